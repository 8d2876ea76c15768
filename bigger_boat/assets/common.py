"""What every asset of the Python half shares: owners, sizes, typed overrides, readable failures, metadata of plots."""

import base64
import dataclasses
import json
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import dagster as dg

from bigger_boat.data.check_specs import CheckSpec
from bigger_boat.errors import BiggerBoatError, GateRefused
from bigger_boat.resources.storage import Storage
from bigger_boat.resources.tracking import TrackedRun, Tracking

if TYPE_CHECKING:
    from bigger_boat.data.dataset_manifest import DatasetManifest
    from bigger_boat.ml.gate import GateCheck
    from bigger_boat.ml.prod2vec import ProductEmbeddings

DATA_OWNERS = ["team:data"]
ML_OWNERS = ["team:ml"]
ADDRESS_IO = "address_io_manager"
SUMMARY = "summary"
SIZE = "size"
WINDOW = "window"
"""Metadata key of an endpoint: the days its version was fitted on (first, last, count)."""
REFUSED = "refused"
"""Metadata key of a failure that is a gate's decision, not a fault."""
EMBEDDINGS_CONFIG = "config.json"
COMMIT_FILE = Path(__file__).resolve().parent.parent / "commit.txt"
"""Where ``git archive`` writes the commit (``.gitattributes``): images are made of an archive, and have no git."""

GATE_SENTENCES = {
    "bundle_is_intact": "Every file of the bundle is as it was written.",
    "intent_dataset_passed_its_checks": "The data set it was fitted on passed its blocking checks.",
    "recommendation_dataset_passed_its_checks": "The data set it was fitted on passed its blocking checks.",
    "fitted_on_this_data": "The candidate was fitted on the data that is judged, not on other data.",
    "beats_base_rate": "Better in PR-AUC than a constant answer, on validation.",
    "beats_popularity": "Better in MRR@20 than popular products, on validation.",
    "beats_session_popularity": "Better in MRR@20 than the session's own popular products, on validation.",
    "lists_are_steady": "One event more or less does not turn a list over, on validation.",
    "passed_the_champions_gate": "It was judged as a champion and fitted again on all days.",
    "endpoint_agrees_with_offline": "Served over HTTP, it answers the golden requests as it did offline.",
    "version_was_taken": "There was room for it, and the server that is up took it.",
}

RETRIES, BACK_OFF_S = 3, 10.0
"""Of a step whose failure may pass: after 10, 40 and 160 s."""

Preset = TypeVar("Preset")


def preset(kind: type[Preset], size: str, overrides: dg.Config) -> Preset:
    """Return ``kind.quick()`` or ``kind.full()`` with every override that is set."""
    base = kind.quick() if size == "quick" else kind.full()  # type: ignore[attr-defined]
    given = {name: value for name, value in overrides.model_dump().items() if value is not None}
    return dataclasses.replace(base, **given)


@contextmanager
def readable_failures(*, again: bool = True) -> Iterator[None]:
    """Turn errors that a person can act on into failures in words; a gate's refusal is marked as one.

    What may pass by itself (a network, a service) is tried again after a while, each time a longer one; with ``again``
    False it is not: for what is another thing when done twice. Nothing else is: a refusal, bad data or a fault of ours
    would be the same again.
    """
    try:
        yield
    except BiggerBoatError as error:
        if again and error.may_pass and (tried := _tries_so_far()) < RETRIES:
            wait_s = BACK_OFF_S * 4**tried
            dg.get_dagster_logger().warning(f"{error.message} Tries again in {wait_s:.0f} s.")
            raise dg.RetryRequested(RETRIES, seconds_to_wait=wait_s) from error
        metadata = {REFUSED: dg.MetadataValue.bool(True)} if isinstance(error, GateRefused) else {}
        raise dg.Failure(description=str(error), metadata=metadata, allow_retries=False) from error


def _tries_so_far() -> int:
    """Return how often the step that runs here was tried again; outside of a step, it cannot be."""
    try:
        return dg.OpExecutionContext.get().retry_number
    except dg.DagsterInvariantViolationError:
        return RETRIES


@contextmanager
def refusals_show(metadata: Callable[[], Mapping[str, dg.MetadataValue]]) -> Iterator[None]:
    """Attach metadata to a gate's refusal; it is made only then."""
    try:
        yield
    except GateRefused as error:
        shown_too = {REFUSED: dg.MetadataValue.bool(True), **metadata()}
        raise dg.Failure(description=str(error), metadata=shown_too, allow_retries=False) from error


def gate_specs(asset: str, *names: str) -> list[dg.AssetCheckSpec]:
    """Return the specs of an asset's checks that show what the gate decided."""
    return [dg.AssetCheckSpec(name, asset=asset, blocking=True, description=GATE_SENTENCES[name]) for name in names]


def specs_of(asset: str, checks: Iterable[CheckSpec]) -> list[dg.AssetCheckSpec]:
    """Return the specs of an asset's checks from their names, facts and whether they block."""
    return [
        dg.AssetCheckSpec(check.name, asset=asset, blocking=check.blocking, description=check.sentence)
        for check in checks
    ]


def shown(checks: Iterable["GateCheck"]) -> Iterator[dg.AssetCheckResult]:
    """Show decisions of the gate as asset checks; yield them before the gate may raise."""
    for check in checks:
        metadata = {} if check.value is None else {"value": check.value}
        yield dg.AssetCheckResult(
            check_name=check.name, passed=check.passed, description=check.description, metadata=metadata
        )


def plot(png: bytes) -> dg.MarkdownMetadataValue:
    """Return a PNG as metadata that the web UI shows as a picture."""
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")


def table(rows: list[dict[str, Any]], digits: int = 4) -> dg.MarkdownMetadataValue:
    """Return rows of equal keys as a Markdown table; floats are rounded."""
    if not rows:
        return dg.MetadataValue.md("no rows")
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(_cell(row[name], digits) for name in head) + " |" for row in rows]
    return dg.MetadataValue.md("\n".join(lines))


def load_embeddings(storage: Storage, address: str) -> tuple["ProductEmbeddings", dict[str, Any], str]:
    """Return the embeddings, the configuration they were trained with, and the version of the data set."""
    from bigger_boat.ml.prod2vec import ProductEmbeddings

    folder = storage.fetch(address)
    described = json.loads((folder / EMBEDDINGS_CONFIG).read_text())
    return ProductEmbeddings.load(folder), described["configuration"], described["recommendation_dataset"]


def candidate_info(
    manifest: "DatasetManifest",
    *,
    data: dict[str, str],
    configuration: dict[str, Any],
    chosen: dict[str, Any],
    metrics: dict[str, Any],
) -> dict[str, Any]:
    """Return what a candidate's bundle says of itself. ``chosen``: what fitting chose on validation."""
    return {
        "training_window": manifest.days["splits"]["train"],
        "refit": None,
        "data_versions": data,
        "git_commit": git_commit(),
        "configuration": configuration,
        "chosen": chosen,
        "metrics": metrics,
        "gate": [],
    }


def tracked(
    tracking: Tracking, asset: str, configuration: Mapping[str, Any], data: Mapping[str, str]
) -> AbstractContextManager[TrackedRun]:
    """Return a run at the tracking service that says what is trained, on which data versions, by which commit."""
    tags = {"git_commit": git_commit(), **{f"data.{name}": version for name, version in data.items()}}
    return tracking.run(asset, configuration, tags)


def git_commit() -> str:
    """Return the commit of the code that runs, '' where neither an archive nor git says."""
    archived = COMMIT_FILE.read_text().strip()
    if not archived.startswith("$"):
        return archived
    command = ["git", "rev-parse", "HEAD"]
    with suppress(FileNotFoundError):  # an image has no git
        answer = subprocess.run(command, cwd=COMMIT_FILE.parent, capture_output=True, text=True, check=False)
        return answer.stdout.strip()
    return ""


def _cell(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def verified_dataset(storage: Storage, address: str) -> tuple[Path, "DatasetManifest"]:
    """Return folder and manifest of a data set whose files are those that were checked and whose checks passed."""
    from bigger_boat.data.dataset_manifest import read_manifest, require_passed

    folder = storage.fetch(address)
    manifest = read_manifest(folder)
    require_passed(manifest)
    return folder, manifest
