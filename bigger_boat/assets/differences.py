"""What another version would change, shown where versions are promoted or refused, and by ``bigger-boat diff``.

Belongs here: finding two versions, asking both the same through the graphs that serve. Does not belong here: comparing
their answers (``ml/version_diff.py``), whether one may serve (``ml/gate.py``).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from bigger_boat.assets.common import table
from bigger_boat.data.vocabulary import ENDPOINTS
from bigger_boat.errors import BundleError
from bigger_boat.resources.endpoint_host import EndpointHost
from bigger_boat.resources.storage import Storage

if TYPE_CHECKING:
    from bigger_boat.ml.bundle import Bundle
    from bigger_boat.ml.version_diff import Question, VersionDiff

CHANGES = "what_changes"
"""Metadata key of an endpoint or champion: what its version changes against the one that served before."""


def compare(before_dir: Path, after_dir: Path, storage: Storage) -> "VersionDiff":
    """Return what the version in ``after_dir`` changes. Raises BundleError for versions of different endpoints."""
    from bigger_boat.ml.bundle import read_bundle
    from bigger_boat.ml.version_diff import diff, require_same_endpoint
    from bigger_boat.ml.version_questions import QUESTIONS, golden_questions

    before, after = read_bundle(before_dir), read_bundle(after_dir)
    require_same_endpoint(before, after)
    dataset = f"{after.name}_dataset"
    folders = [_dataset(storage, dataset, bundle) for bundle in (before, after)]
    latest = folders[1] or folders[0]
    questions = [*(QUESTIONS[after.name](latest) if latest else []), *golden_questions([before, after])]
    answers = [_answers(bundle, questions) for bundle in (before, after)]
    return diff(before, after, questions, *answers, data=_data_rows(dataset, *folders))


def changes_metadata(before_dir: Path | None, after_dir: Path, storage: Storage) -> dict[str, dg.MetadataValue]:
    """Return metadata that shows what a version changes; nothing serves yet: none. It never stops a promotion."""
    if before_dir is None:
        return {}
    try:
        return {CHANGES: dg.MetadataValue.md(as_markdown(compare(before_dir, after_dir, storage)))}
    except Exception as error:  # whatever it is: the version serves, or was refused, already
        return {CHANGES: dg.MetadataValue.md(f"What changes could not be found out: {error}")}


def as_markdown(found: "VersionDiff") -> str:
    """Return a diff for the web UI: a sentence and its tables; a table without rows is left out."""
    tables = [f"**{title}**\n\n{table(rows).value}" for title, rows in found.tables.items() if rows]
    return "\n\n".join([found.summary, *tables])


def find_version(version: str, storage: Storage, endpoint_host: EndpointHost, name: str = "") -> Path:
    """Return the directory of a version: published, or where it was written; ``name``: of this endpoint alone.

    Raises BundleError where it is not, with those that are.
    """
    names = (name,) if name else ENDPOINTS
    published = {path.name: path for one in names for path in endpoint_host.versions(one)}
    pattern = f"{name}_champion/*/bundle" if name else "*/*/bundle"
    written = {path.parent.name: path for path in storage.folder("bundles").glob(pattern)}
    found = {**written, **published}
    if version not in found:
        for one in names:
            if path := endpoint_host.bundle(one, version):
                return path
        known = ", ".join(sorted(found)[-5:]) or "none"
        of = f" of {name}" if name else ""
        raise BundleError(
            f"There is no version {version}{of}: it was swept away, or it is misspelt.",
            f"The newest there are: {known}.",
        )
    return found[version]


def _dataset(storage: Storage, name: str, bundle: "Bundle") -> Path | None:
    """Return the folder of the data set that a version was fitted on; None where it was swept away."""
    folder = storage.folder(f"datasets/{name}") / bundle.info.get("data_versions", {}).get(name, "unknown")
    return folder if folder.is_dir() else None


def _data_rows(name: str, before: Path | None, after: Path | None) -> list[dict[str, Any]]:
    from bigger_boat.data.dataset_difference import dataset_rows

    return dataset_rows(name, before, after)


def _answers(bundle: "Bundle", questions: Sequence["Question"]) -> list[dict[str, Any]]:
    from bigger_boat.serving.contract import Limits, parse_request
    from bigger_boat.serving.predictor import Predictor

    request = {"sessions": [list(question.events) for question in questions]}
    limits = Limits(sessions=len(questions), request_events=10**9)
    return Predictor.load(bundle.directory).predict(parse_request(request, limits))
