"""Writing the landing zone: its lock, immutable files, manifest versions, and the index whose rename is the commit.

Knows files, not their content; whoever lands something (``landing.py``, event collection) stages complete files here
and commits them. What belongs elsewhere: reading (``landing_index.py``), validation and splitting by day.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from bigger_boat.data.durable import sync_directory
from bigger_boat.data.landing_index import (
    INDEX_FORMAT,
    REJECTED,
    STAGING,
    DayEntry,
    LandedFile,
    Manifest,
    current_manifest,
    manifest_path,
    read_index,
)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class StagedFile:
    """A complete file, waiting to be moved in. ``part`` is a day, ``catalog`` or ``unknown``."""

    path: Path
    table: str
    part: str
    producer: str
    digest: str
    rows: int
    rejected: bool = False
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def landed_path(self) -> str:
        """The file's path relative to the landing root."""
        folder = f"{REJECTED}/{self.table}" if self.rejected else self.table
        if self.part != "catalog":
            folder = f"{folder}/date={self.part}"
        return f"{folder}/{self.producer}-{self.digest}.parquet"


@contextmanager
def landing_lock(root: Path, progress: Progress | None = None, *, waits: bool = True) -> Iterator[Path]:
    """Hold the landing zone for writing; yield an empty staging directory that goes away afterwards.

    Waits while another process lands, and says so through ``progress``; with ``waits=False`` raises BlockingIOError
    instead. Whoever holds the lock is the only writer, so
    what lies in the staging area then was left by a process that died, and is removed.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    with open(root / ".lock", "a+", encoding="utf-8") as lock:
        _wait_for(lock, progress, waits)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        shutil.rmtree(root / STAGING, ignore_errors=True)
        (root / STAGING).mkdir(exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=root / STAGING))
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            lock.truncate(0)


def _wait_for(lock, progress: Progress | None, waits: bool) -> None:
    waited_s = 0
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not waits:
                raise
            lock.seek(0)
            if progress and waited_s % 50 == 0:
                progress(f"waiting for another landing (process {lock.read() or 'unknown'})", waited_s // 10, 0)
            time.sleep(0.1)
            waited_s += 1


def commit(
    root: Path,
    staging: Path,
    staged: list[StagedFile],
    superseded: Callable[[str, str, str], bool],
    now: datetime,
    shift: dict | None = None,
) -> tuple[list[str], list[str]]:
    """Bring staged files into force; return the parts that changed and the paths that are new in force.

    Call it while holding the lock. ``superseded(part, table, producer)`` says which files now in force give way to the
    staged ones. Files and manifests are written first, the index last: whatever was killed before leaves the old state.
    """
    root = Path(root)
    for file in staged:
        move_in(file.path, root / file.landed_path)
    index = read_index(root)
    by_part: dict[str, list[StagedFile]] = {part: [] for part in index.parts}
    for file in staged:
        by_part.setdefault(file.part, []).append(file)
    entries, changed, added = dict(index.parts), [], []
    for part, files in sorted(by_part.items()):
        before = current_manifest(root, part, index) or Manifest(part, 0, "")
        after = _next_manifest(root, before, files, superseded, now)
        if after.files == before.files and after.rejected == before.rejected:
            continue
        write_manifest(root, staging, after)
        entries[part] = entry_of(after, entries.get(part))
        changed.append(part)
        added += sorted(_in_force(after) - _in_force(before))
    shifts = list(index.shifts)
    if shift and (changed or not shifts) and shift not in shifts:
        shifts.append(shift)
    if changed or len(shifts) != len(index.shifts):
        write_index(root, staging, entries, shifts)
    return changed, added


def write_manifest(root: Path, staging: Path, manifest: Manifest) -> None:
    """Write a version of a part's manifest, atomically."""
    write_json(staging, manifest_path(root, manifest.part, manifest.version), asdict(manifest))


def write_index(
    root: Path, staging: Path, entries: Mapping[str, DayEntry], shifts: Sequence[Mapping[str, object]]
) -> None:
    """Write the index, atomically: the commit of whatever was written before."""
    parts = {part: asdict(entry) for part, entry in sorted(entries.items())}
    write_json(staging, Path(root) / "index.json", {"format": INDEX_FORMAT, "parts": parts, "shifts": list(shifts)})


def _next_manifest(root: Path, before: Manifest, staged: list[StagedFile], superseded, now: datetime) -> Manifest:
    def merged(kept: dict, rejected: bool) -> dict:
        tables = {
            table: [file for file in files if not superseded(before.part, table, file.producer)]
            for table, files in kept.items()
        }
        for new in (file for file in staged if file.rejected == rejected):
            files = tables.setdefault(new.table, [])
            if all(file.path != new.landed_path for file in files):
                files.append(_landed(root, new, kept.get(new.table, ())))
        return {table: tuple(files) for table, files in sorted(tables.items())}

    files, rejected = merged(before.files, False), merged(before.rejected, True)
    return Manifest(before.part, before.version + 1, now.isoformat(), files, rejected)


def _landed(root: Path, new: StagedFile, before: tuple[LandedFile, ...]) -> LandedFile:
    same = [file for file in before if file.path == new.landed_path]
    size = (root / new.landed_path).stat().st_size
    return same[0] if same else LandedFile(new.landed_path, new.producer, new.digest, new.rows, size, new.reasons)


def entry_of(manifest: Manifest, before: DayEntry | None) -> DayEntry:
    """Return a part's entry in the index when ``manifest`` is in force, after the entry of the version before it."""
    known = before.fingerprints if before else {}
    fingerprints = {table: _fingerprint(table, files) for table, files in manifest.files.items()}
    fingerprints = {**known, **fingerprints}
    rows = {table: sum(file.rows for file in files) for table, files in manifest.files.items()}
    reasons: dict[str, int] = {}
    for file in (file for files in manifest.rejected.values() for file in files):
        for reason, count in file.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
    if manifest.part != "catalog":
        rows = {"browsing": 0, "search": 0, **rows}
    return DayEntry(
        version=manifest.version,
        fingerprint=_digest(sorted(fingerprints.items())) if fingerprints else "",
        rows={**rows, "rejected": sum(reasons.values())},
        fingerprints=fingerprints,
        reasons=dict(sorted(reasons.items())),
        time=manifest.time,
    )


def _fingerprint(table: str, files: tuple[LandedFile, ...]) -> str:
    paths = [file.path for file in files]
    return _digest(paths if table == "catalog" else sorted(paths))  # in the catalog the later file is the newer


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _in_force(manifest: Manifest) -> set[str]:
    return {file.path for group in (manifest.files, manifest.rejected) for files in group.values() for file in files}


def move_in(staged: Path, final: Path) -> None:
    """Move a complete file to its final name, unless the same content lies there already."""
    if final.exists():
        staged.unlink()
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    with open(staged, "rb") as file:
        os.fsync(file.fileno())
    os.replace(staged, final)
    sync_directory(final.parent)


def write_json(staging: Path, path: Path, value: object) -> None:
    """Write a small file of the landing zone, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = staging / path.name
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(value, file, separators=(",", ":"))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_directory(path.parent)
