"""Taking sessions out of the landing zone: the one exception to the immutability of its files.

Every file that holds a row of them, in force or not, gets a successor without these rows, named by its new content;
every version of every manifest that names the file is rewritten to name the successor; the index is computed again;
then the old files go. New before old: killed anywhere, what is in force can be read, and doing it again ends the same.
What belongs elsewhere: tables and data sets (``cli/forget.py``), landing itself (``landing.py``).
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet

from bigger_boat.data.content_digest import ContentDigest
from bigger_boat.data.landing import REJECT_ORDER
from bigger_boat.data.landing_days import ROW_GROUP_ROWS, open_parquet
from bigger_boat.data.landing_history import versions
from bigger_boat.data.landing_index import (
    EVENT_TABLES,
    MANIFESTS,
    REJECTED,
    DayEntry,
    LandedFile,
    Manifest,
    read_index,
    read_manifest,
)
from bigger_boat.data.landing_store import Progress, entry_of, landing_lock, move_in, write_index, write_manifest

SESSION = "session_id_hash"
BETWEEN_IDS = r"""[\s,'"\[\]{}<>\x00-\x1f\x7f]"""
"""What stands beside an id in the text of a torn row; no id holds one of these."""

TORN = "wrong_number_of_cells"


@dataclass(frozen=True)
class Forgotten:
    """``rows``: how many each session had, in landed and rejected files; ``parts``: whose files in force changed."""

    rows: Mapping[str, int]
    parts: tuple[str, ...]
    files: int


@dataclass(frozen=True)
class Successor:
    """What a file becomes: None where no row is left."""

    file: LandedFile | None
    rows: Mapping[str, int]


def rows_in_landing(root: Path, sessions: Collection[str]) -> dict[str, int]:
    """Return how many rows each session has in any file of the landing zone; sessions without any are left out."""
    found: Counter[str] = Counter()
    for path in _data_files(Path(root)):
        found.update(_rows_of(Path(root), path, sessions))
    return dict(found)


def forget_sessions(
    root: Path, sessions: Collection[str], now: datetime, progress: Progress | None = None
) -> Forgotten:
    """Take every row of these sessions out of the landing zone, also from superseded and rejected files.

    Waits for the landing lock. Idempotent; raises OSError where the disk fails, with the old or the new state in force.
    """
    root = Path(root)
    with landing_lock(root, progress) as staging:
        files = list(_data_files(root))
        successors: dict[str, Successor] = {}
        for done, path in enumerate(files, start=1):
            rows = _rows_of(root, path, sessions)
            if rows:
                name = path.relative_to(root).as_posix()
                successors[name] = Successor(_write_successor(root, path, sessions, staging), rows)
            if progress:
                progress("looking for the sessions", done, len(files))
        _rewrite_manifests(root, staging, successors, now)
        parts = _rewrite_index(root, staging)
        for name in successors:
            (root / name).unlink(missing_ok=True)
    total = sum((Counter(successor.rows) for successor in successors.values()), Counter())
    return Forgotten(dict(total), tuple(parts), len(successors))


def _data_files(root: Path) -> Iterator[Path]:
    """Yield every file that may hold rows of sessions, named by a manifest or not (a landing may have died)."""
    for folder in (*EVENT_TABLES, REJECTED):
        yield from sorted((root / folder).rglob("*.parquet"))


def _is_rejected(root: Path, path: Path) -> bool:
    return path.relative_to(root).parts[0] == REJECTED


def _is_of(session: str) -> pl.Expr:
    """True where a rejected row is this session's: by its cell, or by any cell of a torn row."""
    in_cell = rf'"{SESSION}":"?\s*{re.escape(json.dumps(session, ensure_ascii=False)[1:-1])}\s*"?[,}}]'
    in_torn_row = rf"(?:^|{BETWEEN_IDS}){re.escape(session)}(?:$|{BETWEEN_IDS})"
    is_torn = pl.col("reason") == TORN
    return pl.when(is_torn).then(pl.col("raw").str.contains(in_torn_row)).otherwise(pl.col("raw").str.contains(in_cell))


def _rows_of(root: Path, path: Path, sessions: Collection[str]) -> dict[str, int]:
    """Return how many rows of a file each session has; one without any is left out."""
    if _is_rejected(root, path):
        rejects = pl.read_parquet(path, columns=["reason", "raw"])
        counts = {session: int(rejects.select(_is_of(session).sum()).item()) for session in sessions}
        return {session: rows for session, rows in counts.items() if rows}
    ids = pl.scan_parquet(path).select(SESSION).filter(pl.col(SESSION).is_in(list(sessions)))
    return dict(ids.group_by(SESSION).len().collect().iter_rows())


def _write_successor(root: Path, path: Path, sessions: Collection[str], staging: Path) -> LandedFile | None:
    """Write a file's other rows, in their order, beside it; return what the manifests say of it, or None if none is."""
    rejected = _is_rejected(root, path)
    is_theirs = pl.any_horizontal(*map(_is_of, sessions)) if rejected else pl.col(SESSION).is_in(list(sessions))
    content, rows, reasons, writer = ContentDigest(), 0, Counter(), None
    staged = staging / "successor.parquet"
    with pa.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=ROW_GROUP_ROWS):
            wanted = pl.DataFrame(pl.from_arrow(batch)).select(~is_theirs)
            table = pa.Table.from_batches([batch]).filter(pa.array(wanted.to_series().to_list(), pa.bool_()))
            content.update(table.drop_columns(list(REJECT_ORDER.ignored)) if rejected else table)
            reasons.update(table["reason"].to_pylist() if rejected else ())
            writer = writer or open_parquet(staged, table.schema)
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
            rows += table.num_rows
    if writer:
        writer.close()
    if not rows:
        return None
    producer, digest = path.stem.rsplit("-", 1)[0], content.hexdigest()
    final = path.with_name(f"{producer}-{digest}.parquet")
    move_in(staged, final)
    size = final.stat().st_size
    return LandedFile(final.relative_to(root).as_posix(), producer, digest, rows, size, dict(sorted(reasons.items())))


def _rewrite_manifests(root: Path, staging: Path, successors: Mapping[str, Successor], now: datetime) -> None:
    """Let every version that names a file name its successor, also one that was being written when a landing died."""
    for path in sorted((root / MANIFESTS).glob("*/*.json")):
        manifest = read_manifest(root, path.parent.name, int(path.stem))
        files, rejected = (_succeeded(group, successors) for group in (manifest.files, manifest.rejected))
        if (files, rejected) != (dict(manifest.files), dict(manifest.rejected)):
            rewritten = replace(manifest, files=files, rejected=rejected, rewritten=now.isoformat())
            write_manifest(root, staging, rewritten)


def _succeeded(
    files_by_table: Mapping[str, tuple[LandedFile, ...]], successors: Mapping[str, Successor]
) -> dict[str, tuple[LandedFile, ...]]:
    """Return files with each replaced by what it became; two that became the same are one."""
    result = {}
    for table, files in files_by_table.items():
        became = [successors[file.path].file if file.path in successors else file for file in files]
        result[table] = tuple({file.path: file for file in became if file}.values())
    return result


def _rewrite_index(root: Path, staging: Path) -> list[str]:
    """Compute every entry again from the manifests; write the index if one changed, and return which did."""
    index = read_index(root)
    entries = {part: _folded(versions(root, part, entry.version)) for part, entry in index.parts.items()}
    changed = [part for part, entry in entries.items() if entry != index.parts[part]]
    if changed:
        write_index(root, staging, entries, index.shifts)
    return changed


def _folded(manifests: Iterator[Manifest]) -> DayEntry:
    entry = None
    for manifest in manifests:
        entry = entry_of(manifest, entry)
    assert entry is not None
    return entry
