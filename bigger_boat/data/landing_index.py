"""Reading the landing zone: its index, its manifests and the files in force.

Standard library only, because ``partitions.py`` reads the index at import. What belongs elsewhere: writing
(``landing_store.py``), turning source files into days (``landing.py``).

Layout under the landing root::

    index.json                               current version, fingerprints and counts of every day; its rename commits
    _manifests/2026-01-31/000002.json        append-only versions of one day: a time, and the files in force
    browsing/date=2026-01-31/land-<digest>.parquet     search/date=.../     catalog/land-<digest>.parquet
    _rejected/browsing/date=2026-01-31/land-<digest>.parquet     (date=unknown where the time itself is at fault)

Besides days there are two parts with manifests of their own: ``catalog``, and ``unknown`` for undated rejects.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bigger_boat.errors import LandingError

INDEX_FORMAT = 1
EVENT_TABLES = ("browsing", "search")
TABLES = (*EVENT_TABLES, "catalog")
CATALOG = "catalog"
UNKNOWN_DAY = "unknown"
MANIFESTS = "_manifests"
REJECTED = "_rejected"
STAGING = "_staging"


@dataclass(frozen=True)
class DayEntry:
    """The current version of one day (or of the catalog).

    ``fingerprint`` changes exactly when the files in force do; ``fingerprints`` tells the tables apart. ``rows`` counts
    rows in force per table and, under ``rejected``, the rows kept out; ``reasons`` says why.
    """

    version: int
    fingerprint: str
    rows: Mapping[str, int]
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    time: str = ""

    @property
    def has_landed(self) -> bool:
        """True if a table has or had rows here, false if all there ever was are rejects."""
        return bool(self.fingerprint)


@dataclass(frozen=True)
class LandingIndex:
    """What is in force. ``days`` are those that landed, in order; one that a replacement empties stays, with 0 rows."""

    days: Mapping[str, DayEntry] = field(default_factory=dict)
    catalog: DayEntry | None = None
    undated: DayEntry | None = None
    rejected_only_days: Mapping[str, DayEntry] = field(default_factory=dict)
    shifts: tuple[Mapping[str, object], ...] = ()

    @property
    def first_day(self) -> str | None:
        """The first landed day as ``YYYY-MM-DD``; None when nothing has landed."""
        return min(self.days, default=None)

    @property
    def last_day(self) -> str | None:
        """The last landed day as ``YYYY-MM-DD``; None when nothing has landed."""
        return max(self.days, default=None)

    @property
    def parts(self) -> dict[str, DayEntry]:
        """Every entry under its name in the index: the days, ``catalog`` and ``unknown``."""
        others = {CATALOG: self.catalog, UNKNOWN_DAY: self.undated}
        present = {name: entry for name, entry in others.items() if entry is not None}
        return {**self.days, **self.rejected_only_days, **present}


@dataclass(frozen=True)
class LandedFile:
    """One immutable file, by its path relative to the landing root, posix style."""

    path: str
    producer: str
    digest: str
    rows: int
    bytes: int
    reasons: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """One version of one part: the files in force per table, and the files of rejected rows, oldest first.

    ``rewritten`` is when ``forget`` took rows out of its files after it was written: "" for nearly all.
    """

    part: str
    version: int
    time: str
    files: Mapping[str, tuple[LandedFile, ...]] = field(default_factory=dict)
    rejected: Mapping[str, tuple[LandedFile, ...]] = field(default_factory=dict)
    rewritten: str = ""


def read_index(root: Path) -> LandingIndex:
    """Return the landing index; an empty one when nothing has landed.

    Raises LandingError if the index is there but cannot be read.
    """
    path = Path(root) / "index.json"
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return LandingIndex()
    except OSError as error:
        raise LandingError(
            f"The landing index {path} cannot be read: {error.strerror}.", "Check its permissions."
        ) from error
    try:
        return _index(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        hint = (
            "Move the file away and land again: files that are there already are found and listed, not written twice."
        )
        raise LandingError(f"The landing index {path} is damaged: {error}.", hint) from error


def read_manifest(root: Path, part: str, version: int) -> Manifest:
    """Return a version of the manifest of a day, of ``catalog`` or of ``unknown``; LandingError if it is not there."""
    path = manifest_path(root, part, version)
    try:
        return parse_manifest(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "Restore it from a backup, or move the landing zone away and land the source files again."
        raise LandingError(
            f"The manifest {path}, which the landing index names, cannot be read: {error}.", hint
        ) from error


def parse_manifest(raw: Mapping) -> Manifest:
    """Return a manifest from what its JSON holds. Raises KeyError or TypeError where that is something else."""
    files, rejected = _files(raw["files"]), _files(raw["rejected"])
    return Manifest(raw["part"], raw["version"], raw["time"], files, rejected, raw.get("rewritten", ""))


def current_manifest(root: Path, part: str, index: LandingIndex | None = None) -> Manifest | None:
    """Return the manifest in force of a part, or None if it has none. Pass ``index`` when asking for many parts."""
    entry = (index or read_index(root)).parts.get(part)
    return read_manifest(root, part, entry.version) if entry else None


def files_for(root: Path, table: str, day: object, index: LandingIndex | None = None) -> list[Path]:
    """Return the files in force of ``browsing`` or ``search`` on a day (a date or ``YYYY-MM-DD``), oldest first."""
    if table not in EVENT_TABLES:
        raise ValueError(f"table must be one of {EVENT_TABLES}, not {table!r}")
    return _paths(root, current_manifest(root, str(day), index), table)


def catalog_files(root: Path, index: LandingIndex | None = None) -> list[Path]:
    """Return the catalog's Parquet files in force, oldest first: where two name one product, the later is newer."""
    return _paths(root, current_manifest(root, CATALOG, index), CATALOG)


def rejected_files(root: Path, day: object = UNKNOWN_DAY, index: LandingIndex | None = None) -> list[Path]:
    """Return the files of rejected rows of a day, of ``catalog``, or (by default) of rows without a usable time."""
    manifest = current_manifest(root, str(day), index)
    return [Path(root) / file.path for files in manifest.rejected.values() for file in files] if manifest else []


def manifest_path(root: Path, part: str, version: int) -> Path:
    """Return where a version of a part's manifest lies."""
    return Path(root) / MANIFESTS / part / f"{version:06d}.json"


def _paths(root: Path, manifest: Manifest | None, table: str) -> list[Path]:
    return [Path(root) / file.path for file in manifest.files.get(table, ())] if manifest else []


def _index(raw: dict) -> LandingIndex:
    if raw["format"] != INDEX_FORMAT:
        raise ValueError(f"its format is {raw['format']!r}, this version reads {INDEX_FORMAT}")
    parts = {name: DayEntry(**entry) for name, entry in sorted(raw["parts"].items())}
    catalog, undated = parts.pop(CATALOG, None), parts.pop(UNKNOWN_DAY, None)
    landed = {day: entry for day, entry in parts.items() if entry.has_landed}
    rejected_only = {day: entry for day, entry in parts.items() if not entry.has_landed}
    return LandingIndex(landed, catalog, undated, rejected_only, tuple(raw["shifts"]))


def _files(raw: dict) -> dict[str, tuple[LandedFile, ...]]:
    return {table: tuple(LandedFile(**file) for file in files) for table, files in raw.items()}
