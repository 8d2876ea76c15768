"""``bigger-boat land``: the source's three files into the landing zone, by UTC day, in one bounded-memory pass.

What belongs elsewhere: reading files (``source_files.py``), judging rows (``source_rows.py``), sorting and writing days
(``landing_days.py``), locking and committing (``landing_store.py``), reading what landed (``landing_index.py``).
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

import polars as pl

from bigger_boat.data.event_rules import TIME
from bigger_boat.data.landing_days import DaySpool, SortOrder, WrittenFile, write_sorted
from bigger_boat.data.landing_index import CATALOG, EVENT_TABLES, UNKNOWN_DAY
from bigger_boat.data.landing_store import Progress, StagedFile, commit, landing_lock
from bigger_boat.data.source_batches import read_batches
from bigger_boat.data.source_columns import SCHEMAS
from bigger_boat.data.source_files import SourceFile, find_source_files
from bigger_boat.data.source_rows import torn_rows, validate
from bigger_boat.errors import LandingError

ORDERS = {
    # a detail and the pageview that doubles it share their time: the flag tells them apart without comparing text
    "browsing": SortOrder(pl.col(TIME) * 2 + (pl.col("event_type") == "pageview"), tuple(SCHEMAS["browsing"])),
    "search": SortOrder(pl.col(TIME), tuple(SCHEMAS["search"])),
    "catalog": SortOrder(pl.col("product_sku_hash"), tuple(SCHEMAS["catalog"])),
}
REJECT_ORDER = SortOrder(pl.col("raw"), ("reason", "day"), ignored=("file", "line"))


@dataclass
class FileReport:
    """What became of one source file: ``landed + rejected == read``, in rows."""

    table: str
    file: str
    read: int = 0
    landed: int = 0
    rejected: Counter = field(default_factory=Counter)
    rejected_by_day: dict[str, Counter] = field(default_factory=dict)
    days: set[str] = field(default_factory=set)


@dataclass
class LandingReport:
    """What a landing did. ``days_changed``: whose files in force changed; ``catalog`` may be among them."""

    files: list[FileReport] = field(default_factory=list)
    days_changed: list[str] = field(default_factory=list)
    files_added: list[str] = field(default_factory=list)
    files_unchanged: int = 0
    faults: list[LandingError] = field(default_factory=list)

    @property
    def read(self) -> int:
        """Rows read from files that landed."""
        return sum(file.read for file in self.files)

    @property
    def landed(self) -> int:
        """Rows that are in the landing zone now, or were already."""
        return sum(file.landed for file in self.files)

    @property
    def rejected(self) -> Counter:
        """Rejected rows by reason."""
        return sum((file.rejected for file in self.files), Counter())


def land(
    source: Path,
    root: Path,
    *,
    producer: str = "land",
    replace: tuple[date, date] | None = None,
    shift_weeks: int = 0,
    now: datetime,
    progress: Progress | None = None,
) -> LandingReport:
    """Land a directory, a .zip or a file in the landing zone ``root``, and return what was read, landed and rejected.

    Adds to what is there; the same rows again, in any order, change nothing. ``replace=(first, last)`` makes the
    source's tables supersede this producer's files on every day of the range. ``shift_weeks`` moves all times.
    ``progress`` is called with a sentence, what is done and the total (bytes, or days). ``now`` (aware) tells which
    times are in the future.

    Raises LandingError, with the report as ``error.report``, if a file cannot be landed: nothing of that file has
    landed then, the others have. Killed at any time, it leaves the zone as it was, and landing again ends the same.
    """
    _check_arguments(producer, replace, now)
    report = LandingReport()
    try:
        with landing_lock(root, progress) as staging:
            staged = _stage_all(find_source_files(source), staging, report, producer, shift_weeks, now, progress)
            tables = {file.table for file in report.files}
            shift = {"producer": producer, "weeks": shift_weeks} if shift_weeks and tables else None
            superseded = _superseded(producer, tables, replace)
            report.days_changed, report.files_added = commit(root, staging, staged, superseded, now, shift)
            report.files_unchanged = len(staged) - len(report.files_added)
    except OSError as error:
        raise _zone_fault(error, root) from error
    if report.faults:
        raise _fault_of(report)
    return report


def _check_arguments(producer: str, replace: tuple[date, date] | None, now: datetime) -> None:
    if not producer.replace("_", "").isalnum() or not producer.isascii():
        raise LandingError(f"{producer!r} cannot name a producer.", "Use letters, digits and underscores.")
    if replace and replace[0] > replace[1]:
        raise LandingError(f"The range from {replace[0]} to {replace[1]} is empty.", "Give the earlier day first.")
    if now.tzinfo is None:
        raise ValueError("now must be aware of its time zone")


def _stage_all(
    files: list[SourceFile],
    staging: Path,
    report: LandingReport,
    producer: str,
    shift_weeks: int,
    now: datetime,
    progress: Progress | None,
) -> list[StagedFile]:
    staged: list[StagedFile] = []
    for file in files:
        workdir = staging / file.table
        workdir.mkdir()
        try:
            file_report, good, bad = _split(file, workdir, shift_weeks, now, progress)
        except LandingError as error:
            report.faults.append(error)
            continue
        report.files.append(file_report)
        staged += write_days(file.table, good, workdir, producer, False, progress)
        staged += write_days(file.table, bad, workdir, producer, True, None)
    return staged


def _split(
    file: SourceFile, workdir: Path, shift_weeks: int, now: datetime, progress: Progress | None
) -> tuple[FileReport, DaySpool, DaySpool]:
    report = FileReport(file.table, file.label)
    no_day = CATALOG if file.table == CATALOG else UNKNOWN_DAY
    good, bad = DaySpool(workdir / "good", no_day), DaySpool(workdir / "bad", no_day)
    for batch in read_batches(file, workdir):
        rows = validate(file.table, batch, file.name, shift_weeks, now)
        rejects = pl.concat([rows.bad, torn_rows(batch.torn, file.name)]) if batch.torn else rows.bad
        report.read += batch.rows.height + len(batch.torn)
        report.landed += rows.good.height
        good.add(rows.good)
        _count_rejects(report, rejects)
        bad.add(rejects.with_columns(pl.col("day").alias("_day")), "_day")
        if progress:
            progress(f"reading {file.name}", batch.bytes_done, batch.bytes_total)
    good.close()
    bad.close()
    report.days = set(good.days()) if file.table in EVENT_TABLES else set()
    return report, good, bad


def _count_rejects(report: FileReport, rejects: pl.DataFrame) -> None:
    no_day = CATALOG if report.table == CATALOG else UNKNOWN_DAY
    for day, reason, count in rejects.group_by("day", "reason").len().iter_rows():
        report.rejected[reason] += count
        report.rejected_by_day.setdefault(day or no_day, Counter())[reason] += count


def write_days(
    table: str, spool: DaySpool, workdir: Path, producer: str, rejected: bool, progress: Progress | None
) -> list[StagedFile]:
    """Write a table's rows, good or rejected ones, as a sorted file per day in ``workdir``; not in force yet."""
    days = spool.days()

    def write(day: str) -> WrittenFile:
        path = workdir / f"{'bad' if rejected else 'good'}-{day}.parquet"
        if rejected:
            return write_sorted(spool, day, path, REJECT_ORDER, count="reason")
        return write_sorted(spool, day, path, ORDERS[table])

    staged = []
    with ThreadPoolExecutor(2) as pool:
        for done, (day, file) in enumerate(zip(days, pool.map(write, days), strict=True), start=1):
            spool.forget(day)
            staged.append(StagedFile(file.path, table, day, producer, file.digest, file.rows, rejected, file.counts))
            if progress:
                progress(f"writing {table}", done, len(days))
    return staged


def _superseded(producer: str, tables: set[str], replace: tuple[date, date] | None):
    """Return which files in force give way: this producer's, of the tables that landed, on the days of the range."""
    if replace is None:
        return lambda _part, _table, _producer: False
    first, last = (day.isoformat() for day in replace)

    def superseded(part: str, table: str, of: str) -> bool:
        return of == producer and table in tables and (part in (CATALOG, UNKNOWN_DAY) or first <= part <= last)

    return superseded


def _zone_fault(error: OSError, root: Path) -> LandingError:
    where = error.filename or root
    return LandingError(
        f"The landing zone {root} cannot be written: {error.strerror or error} ({where}).",
        "Make room on the disk or grant write permission, then land again: what was there is untouched.",
    )


def _fault_of(report: LandingReport) -> LandingError:
    landed = ", ".join(f"{file.file} ({file.landed:,} rows)" for file in report.files)
    message = "\n".join(fault.message for fault in report.faults)
    message += f"\nNothing of it has landed; landed have: {landed}." if landed else "\nNothing has landed."
    error = LandingError(message, report.faults[0].hint)
    error.report = report
    return error
