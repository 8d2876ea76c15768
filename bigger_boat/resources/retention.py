"""Which written versions are old enough to go: all but the newest few and those that something refers to.

What belongs elsewhere: the published versions of an endpoint, which its host sweeps (``endpoint_host.py``).
"""

import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bigger_boat.data.dataset_manifest import MANIFEST_FILE
from bigger_boat.data.vocabulary import ENDPOINTS
from bigger_boat.ml.bundle import BUNDLE_FILE
from bigger_boat.resources.endpoint_host import EndpointHost
from bigger_boat.resources.storage import Storage
from bigger_boat.serving.published import read_json, replace_file

VERSIONED = ("datasets", "embeddings", "bundles", "reports")
CHECKPOINT_AGE_S = 7 * 24 * 3600
"""A training that was interrupted goes on from its checkpoint; a week later nobody waits for it."""
_SWEPT = ".swept-"


@dataclass(frozen=True)
class Swept:
    """What was removed: versions and checkpoints, by their address, and their bytes."""

    addresses: tuple[str, ...]
    size_bytes: int

    @property
    def sentence(self) -> str:
        return f"{len(self.addresses)} old versions and checkpoints were removed, {self.size_bytes / 2**20:.1f} MiB."


def sweep(storage: Storage, endpoint_host: EndpointHost, keep: int) -> Swept:
    """Remove all but the newest ``keep`` versions of each thing, and what assets, reports and served versions name.

    Killed anywhere, nothing is half there: a version goes by one rename, and what a kill leaves is removed next time.
    """
    base = Path(storage.base_dir)
    for left in base.glob(f"*/*/{_SWEPT}*"):
        shutil.rmtree(left, ignore_errors=True)
    storage.sweep_drafts()
    doomed = [*_old_versions(base, endpoint_host, keep), *_old_checkpoints(base)]
    sizes = [sum(path.stat().st_size for path in one.rglob("*") if path.is_file()) for one in doomed]
    for one in doomed:
        _keep_manifest(one)
        gone = one.with_name(f"{_SWEPT}{uuid.uuid4().hex[:8]}")
        one.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    return Swept(tuple(storage.address(one) for one in doomed), sum(sizes))


def kept_manifest(version: Path) -> Path:
    """Return where the manifest of a data set stays when the data set is swept: an answer's lineage needs it."""
    kind, name = version.parent.parent, version.parent.name
    return kind.parent / "described" / name / f"{version.name}.json"


def _keep_manifest(version: Path) -> None:
    manifest, kept = version / MANIFEST_FILE, kept_manifest(version)
    if manifest.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        replace_file(kept, manifest.read_bytes())


def _old_versions(base: Path, endpoint_host: EndpointHost, keep: int) -> list[Path]:
    kept = set(_named(base))
    for folder in (path for kind in VERSIONED for path in (base / kind).glob("*")):
        kept.update(_versions(folder)[-keep:])
    published = [path for name in ENDPOINTS for path in endpoint_host.versions(name)]
    for bundle in [*published, *(version / "bundle" for version in kept)]:
        kept.update(_data_sets(base, bundle))
    everything = [one for kind in VERSIONED for folder in (base / kind).glob("*") for one in _versions(folder)]
    return [one for one in everything if one not in kept]


def _versions(folder: Path) -> list[Path]:
    """Return the versions of one thing, oldest first: their names begin with their time."""
    return sorted(path for path in folder.glob("[!.]*") if path.is_dir())


def _named(base: Path) -> Iterator[Path]:
    """Yield what an asset hands on, and the candidates that reports have chosen."""
    for path in base.glob("addresses/*.json"):
        address = str((read_json(path) or {}).get("address", ""))
        yield _version_of(base, address)
        report = read_json(base / address / "report.json") or {}
        yield _version_of(base, report.get("chosen", {}).get("bundle") or "")


def _version_of(base: Path, address: str) -> Path:
    """Return the folder of the version that an address points into: kind, name, version."""
    return base.joinpath(*address.split("/")[:3])


def _data_sets(base: Path, bundle: Path) -> Iterator[Path]:
    """Yield the data sets that a version was fitted on: its lineage ends where they are gone."""
    told = (read_json(bundle / BUNDLE_FILE) or {}).get("info", {}).get("data_versions", {})
    for name, version in told.items():
        yield base / "datasets" / name / version


def _old_checkpoints(base: Path) -> list[Path]:
    oldest = time.time() - CHECKPOINT_AGE_S
    folders = [path for path in base.glob("checkpoints/[!.]*") if path.is_dir()]
    return [one for one in folders if max(map(_modified, [one, *one.rglob("*")])) < oldest]


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # a training has just replaced it
        return time.time()
