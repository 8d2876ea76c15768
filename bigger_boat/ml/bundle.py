"""The model bundle: the write-once directory that is trained, judged, published and served.

Belongs here: its layout, its digests, its version names. Does not belong here: comparing answers (``golden.py``),
judging a model (``gate.py``), loading its graph (``serving/predictor.py``), publishing it
(``resources/local_endpoint_host.py``).

``ROOT/VERSION/bundle/`` holds ``bundle.json``, ``1/`` (TensorFlow SavedModel) and ``golden.json``;
``ROOT/VERSION/model.tar.gz`` holds the same files as SageMaker unpacks them. Both appear with one rename.
"""

import gzip
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import tarfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bigger_boat import clock
from bigger_boat.data.durable import sync_directory
from bigger_boat.data.vocabulary import ENDPOINTS
from bigger_boat.errors import BundleError

CONTRACT_VERSION = 1
OLDEST_CONTRACT_VERSION = max(1, CONTRACT_VERSION - 1)
"""The server reads contract versions N and N-1; there is no version 0."""

BUNDLE_FILE = "bundle.json"
GOLDEN_FILE = "golden.json"
SAVED_MODEL_DIRECTORY = "1"
ARCHIVE_FILE = "model.tar.gz"

_LIBRARIES = ("tensorflow", "keras", "numpy", "gensim", "bigger-boat")
_TEMPORARY_PREFIX = ".writing-"
_LEFTOVER_AGE_S = 24 * 3600
_REBUILD = "Materialize the model again; a bundle is never repaired by hand."


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. ``info`` is what the writer said about it (training window, configuration, metrics, ...)."""

    directory: Path
    contract_version: int
    name: str
    kind: str
    version: str
    created_at: str
    info: dict[str, Any]
    files: dict[str, str]
    golden: list[dict[str, Any]]

    @property
    def saved_model(self) -> Path:
        return self.directory / SAVED_MODEL_DIRECTORY

    @property
    def archive(self) -> Path:
        """Where ``model.tar.gz`` lies for a bundle that lies where it was written (published copies have none)."""
        return self.directory.parent / ARCHIVE_FILE


def write_bundle(
    directory: Path,
    *,
    name: str,
    kind: str,
    export: Callable[[Path], object],
    golden: Sequence[Mapping[str, Any]],
    info: Mapping[str, Any],
    now: datetime | None = None,
) -> Bundle:
    """Write a new bundle under the root ``directory`` and return it: ``directory/VERSION/bundle``.

    ``export`` is called with the path of ``1/`` and writes a SavedModel there. ``golden`` pairs requests with answers
    computed offline: ``[{"request": ..., "predictions": [...]}]``. Atomic: a kill leaves no bundle or a whole one.
    Raises BundleError if there is no SavedModel, no golden answer, or ``info`` holds what JSON cannot say.
    """
    _require_writable(name, golden)
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    _sweep_leftovers(root)
    temporary = root / f"{_TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    contents = temporary / "bundle"
    contents.mkdir(parents=True)
    try:
        export(contents / SAVED_MODEL_DIRECTORY)
        _write_synced(contents / GOLDEN_FILE, _render(list(golden), GOLDEN_FILE))
        version = _describe(contents, name, kind, info, now or clock.utc_now())
        _write_archive(contents, temporary / ARCHIVE_FILE)
        target = root / version
        if not target.exists():
            _sync_tree(temporary)
            os.rename(temporary, target)
            sync_directory(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return read_bundle(target / "bundle")


def read_bundle(directory: Path) -> Bundle:
    """Verify every byte of the bundle in ``directory`` and return it. Raises BundleError with the reason."""
    directory = Path(directory)
    described = _read_description(directory)
    _require_contract_version(directory, described.get("contract_version"))
    files = _require_keys(directory, described)
    present = _list_files(directory)
    present.discard(BUNDLE_FILE)
    if missing := sorted(set(files) - present):
        raise BundleError(f"The bundle {directory} lacks {_few(missing)}, which {BUNDLE_FILE} lists.", _REBUILD)
    if GOLDEN_FILE not in files:
        raise BundleError(f"The bundle {directory} has no golden answers ({GOLDEN_FILE}).", _REBUILD)
    if extra := sorted(present - set(files)):
        raise BundleError(f"The bundle {directory} holds {_few(extra)}, which {BUNDLE_FILE} does not list.", _REBUILD)
    for name, digest in sorted(files.items()):
        actual = file_digest(directory / name)
        if actual != digest:
            raise BundleError(
                f"{name} of the bundle {directory} was altered: sha256 {digest[:12]}… expected, {actual[:12]}… found.",
                _REBUILD,
            )
    golden = json.loads((directory / GOLDEN_FILE).read_bytes())
    _require_writable(described["name"], golden)
    return Bundle(
        directory=directory,
        contract_version=described["contract_version"],
        name=described["name"],
        kind=described["kind"],
        version=described["version"],
        created_at=described["created_at"],
        info=described["info"],
        files=files,
        golden=golden,
    )


def new_version(now: datetime, content_digest: str) -> str:
    """Return a version name that sorts by time and is unique by content: ``20261123T093012123Z-ab12cd34``."""
    moment = now.astimezone(UTC)
    return f"{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03d}Z-{content_digest[:8]}"


def file_digest(path: Path) -> str:
    """Return the sha256 of a file as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _require_writable(name: str, golden: Any) -> None:
    if name not in ENDPOINTS:
        raise BundleError(f"A bundle is for one of {', '.join(ENDPOINTS)}; {name!r} was given.")
    complete = isinstance(golden, Sequence) and len(golden) > 0
    if not complete or not all({"request", "predictions"} <= set(entry) for entry in golden):
        raise BundleError(
            f"The {name} bundle needs golden requests with their offline answers; none came.",
            "Give write_bundle at least one {'request': ..., 'predictions': [...]}.",
        )


def _describe(contents: Path, name: str, kind: str, info: Mapping[str, Any], now: datetime) -> str:
    """Write ``bundle.json`` and return the version."""
    if not (contents / SAVED_MODEL_DIRECTORY / "saved_model.pb").is_file():
        raise BundleError(f"The export of the {name} model wrote no SavedModel into {SAVED_MODEL_DIRECTORY}/.")
    files = {file: file_digest(contents / file) for file in sorted(_list_files(contents))}
    described = {
        "contract_version": CONTRACT_VERSION,
        "name": name,
        "kind": kind,
        "created_at": now.astimezone(UTC).isoformat(timespec="milliseconds"),
        "library_versions": _library_versions(),
        "info": dict(info),
        "files": files,
    }
    version = new_version(now, hashlib.sha256(_render(described, BUNDLE_FILE)).hexdigest())
    _write_synced(contents / BUNDLE_FILE, _sealed({**described, "version": version}))
    return version


def _sealed(described: dict[str, Any]) -> bytes:
    """Render ``bundle.json`` with the digest over its own text, so that no byte of it can change unseen."""
    digest = hashlib.sha256(_render(described, BUNDLE_FILE)).hexdigest()
    return _render({**described, "digest": digest}, BUNDLE_FILE)


def _read_description(directory: Path) -> dict[str, Any]:
    path = directory / BUNDLE_FILE
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise BundleError(f"{directory} is no bundle: there is no {BUNDLE_FILE}.", _REBUILD) from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        described = json.loads(raw)
        unsealed = {key: value for key, value in described.items() if key != "digest"}
        intact = _sealed(unsealed) == raw
    except (ValueError, AttributeError):
        intact = False
    if not intact:
        raise BundleError(f"{path} was altered: it does not match its own digest.", _REBUILD)
    return described


def _require_contract_version(directory: Path, version: Any) -> None:
    if not isinstance(version, int) or not OLDEST_CONTRACT_VERSION <= version <= CONTRACT_VERSION:
        age = "newer" if isinstance(version, int) and version > CONTRACT_VERSION else "older"
        raise BundleError(
            f"The bundle {directory} follows contract version {version}; versions {OLDEST_CONTRACT_VERSION} to "
            f"{CONTRACT_VERSION} are read here, and it is {age}.",
            "Update Bigger Boat."
            if age == "newer"
            else "Materialize the model again with this version of Bigger Boat.",
        )


def _require_keys(directory: Path, described: Mapping[str, Any]) -> dict[str, str]:
    lacking = {"name", "kind", "version", "created_at", "info", "files"} - set(described)
    if lacking or not isinstance(described["files"], dict):
        raise BundleError(f"{directory / BUNDLE_FILE} lacks {_few(sorted(lacking)) or 'its list of files'}.", _REBUILD)
    return described["files"]


def _list_files(directory: Path) -> set[str]:
    names = set()
    for path in directory.rglob("*"):
        if path.is_symlink():
            raise BundleError(
                f"The bundle {directory} holds a link ({path.name}); a bundle holds plain files.", _REBUILD
            )
        if path.is_file():
            names.add(path.relative_to(directory).as_posix())
    return names


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _library_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _render(payload: Any, file: str) -> bytes:
    try:
        text = json.dumps(payload, indent=2, sort_keys=True, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise BundleError(f"{file} cannot be written as JSON: {error}.", "Numbers in it must be finite.") from error
    return text.encode() + b"\n"


def _plain(value: Any) -> Any:
    """JSON for what is not JSON: numpy scalars and arrays, dates, paths."""
    for method in ("tolist", "isoformat"):
        if hasattr(value, method):
            return getattr(value, method)()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _write_archive(contents: Path, archive: Path) -> None:
    """Write a tar whose bytes depend on the contents only."""
    with (
        archive.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=1) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in sorted(_list_files(contents)):
            member = tarfile.TarInfo(name)
            member.size = (contents / name).stat().st_size
            member.mode = 0o644
            with (contents / name).open("rb") as stream:
                tar.addfile(member, stream)


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_tree(directory: Path) -> None:
    for path in [*directory.rglob("*"), directory]:
        sync_directory(path)


def _sweep_leftovers(root: Path) -> None:
    """Remove what a kill left behind a day or more ago; a younger one may belong to a living writer."""
    for leftover in root.glob(f"{_TEMPORARY_PREFIX}*"):
        if time.time() - leftover.stat().st_mtime > _LEFTOVER_AGE_S:
            shutil.rmtree(leftover, ignore_errors=True)
