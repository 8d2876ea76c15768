"""``dataset.json``: what a published data set is made of, what was checked, and the digests of its files.

Quality travels with the data: whoever reads a data set reads its manifest first, and refuses one whose blocking checks
failed or whose files are not the ones that were checked. What belongs elsewhere: the checks (``dataset_checks.py``).
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bigger_boat.data.splits import Splits
from bigger_boat.data.vocabulary import SPLITS
from bigger_boat.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST_FILE = "dataset.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class CheckOutcome:
    """The result of one check: ``description`` is a plain sentence with the numbers, ``value`` the main one of them."""

    name: str
    passed: bool
    blocking: bool
    description: str
    value: float | None = None


@dataclass(frozen=True)
class DatasetManifest:
    """The content of ``dataset.json``. ``days`` and ``rows`` are per split; ``files`` are sha256 digests by name."""

    name: str
    version: str
    created_at: str
    days: dict
    inputs: dict[str, str]
    rows: dict[str, int]
    schema: dict[str, str]
    checks: tuple[CheckOutcome, ...]
    files: dict[str, str]
    format_version: int = FORMAT_VERSION

    @property
    def data_version(self) -> str:
        """A digest of the content: two builds of the same rows have the same, whenever they were made."""
        content = json.dumps([self.name, self.files], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def describe_dataset(
    directory: Path,
    *,
    name: str,
    version: str,
    created_at: datetime,
    splits: Splits,
    inputs: Mapping[str, str],
    rows: Mapping[str, int],
    schema: "pa.Schema",
    checks: Iterable[CheckOutcome],
) -> DatasetManifest:
    """Return the manifest of the split files in ``directory``; ``inputs`` maps each input to its data version."""
    return DatasetManifest(
        name=name,
        version=version,
        created_at=created_at.astimezone(UTC).isoformat(timespec="seconds"),
        days={**_day_range(splits.days), "splits": {split: _day_range(splits.days_of(split)) for split in SPLITS}},
        inputs=dict(inputs),
        rows=dict(rows),
        schema={field.name: str(field.type) for field in schema},
        checks=tuple(checks),
        files={path.name: _sha256(path) for path in sorted(directory.glob("*.parquet"))},
    )


def write_manifest(directory: Path, manifest: DatasetManifest) -> Path:
    """Write ``dataset.json`` atomically, after the files it names; return its path."""
    path = directory / MANIFEST_FILE
    partial = directory / f".{MANIFEST_FILE}.partial"
    with partial.open("w", encoding="utf-8") as file:
        json.dump(asdict(manifest), file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    return path


def read_manifest(directory: Path, verify: bool = True) -> DatasetManifest:
    """Return the manifest of a published data set; with ``verify``, hold its files against their digests.

    Raises DatasetError if the manifest is missing, damaged or of another format, or a file is missing or altered.
    """
    path = directory / MANIFEST_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            raise DatasetError(
                f"{path} is of format {content['format_version']}; this version reads format {FORMAT_VERSION}.", _AGAIN
            )
        checks = tuple(CheckOutcome(**check) for check in content.pop("checks"))
        manifest = DatasetManifest(**content, checks=checks)
    except FileNotFoundError:
        raise DatasetError(f"There is no data set in {directory}: it has no {MANIFEST_FILE}.", _AGAIN) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} is not a readable manifest: {error}.", _AGAIN) from error
    if verify:
        _verify_files(directory, manifest)
    return manifest


def require_passed(manifest: DatasetManifest) -> None:
    """Raise DatasetError naming each blocking check that failed, or if the data set was never checked."""
    failed = [check for check in manifest.checks if check.blocking and not check.passed]
    if failed:
        reasons = "; ".join(f"{check.name}: {check.description}" for check in failed)
        raise DatasetError(
            f"{manifest.name} {manifest.version} failed {len(failed)} of its {len(manifest.checks)} checks. {reasons}",
            "Nothing is made from it. Correct the days or the rule named, then materialize the data set again.",
        )
    if not any(check.blocking for check in manifest.checks):
        raise DatasetError(f"{manifest.name} {manifest.version} carries no results of blocking checks.", _AGAIN)


_AGAIN = "Materialize the data set again."


def _verify_files(directory: Path, manifest: DatasetManifest) -> None:
    missing = {f"{split}.parquet" for split in SPLITS} - set(manifest.files)
    if missing:
        raise DatasetError(f"{directory / MANIFEST_FILE} names no {', '.join(sorted(missing))}.", _AGAIN)
    for name, digest in manifest.files.items():
        path = directory / name
        if not path.is_file():
            raise DatasetError(f"{path} is missing, although {MANIFEST_FILE} names it.", _AGAIN)
        found = _sha256(path)
        if found != digest:
            raise DatasetError(
                f"{path} is not the file that was checked: its sha256 should be {digest[:12]}... and is "
                f"{found[:12]}...",
                _AGAIN,
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _day_range(days: tuple) -> dict:
    return {"first": days[0].isoformat(), "last": days[-1].isoformat(), "count": len(days)}
