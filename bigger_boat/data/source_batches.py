"""Reading the rows of a source file in bounded batches.

A fault of the file itself (unreadable, truncated, wrong header, not UTF-8) is a LandingError that names the file and,
where it can be known, the line. What belongs elsewhere: what a row must look like (``source_rows.py``).
"""

import errno
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet

from bigger_boat.data.byte_scan import holds_plain_ids, longest_cell
from bigger_boat.data.csv_rows import (
    LONGEST_ROW_BYTES,
    column_names,
    is_about_a_long_row,
    quiet_about_torn_rows,
    read_csv,
)
from bigger_boat.data.event_rules import LONGEST_ID, MISSING
from bigger_boat.data.read_ahead import read_ahead
from bigger_boat.data.source_columns import OPTIONAL_COLUMNS, REQUIRED_COLUMNS
from bigger_boat.data.source_files import SourceFile, open_bytes
from bigger_boat.data.source_types import refused_column, without_empty_floats
from bigger_boat.data.utf8 import first_line_that_is_not_utf8
from bigger_boat.errors import LandingError

PARQUET_ROWS = 100_000
DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
"""Not the source's fault: unpacking it, the landing zone's disk was full."""
READ_FAULTS = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    pa.ArrowException,
)
"""What readers of CSV, gzip, .zip and Parquet raise for bytes that are not what they should be."""


@dataclass
class Batch:
    """Rows with their line numbers (the header is line 1; Parquet's rows count from 1), and rows that were torn.

    Missing cells are null, however the file writes them. A torn row has more or fewer cells than the header.
    ``plain`` names the columns that surely hold plain ids only, ``longest_cell`` the most bytes any text cell has.
    """

    rows: pl.DataFrame
    lines: np.ndarray
    torn: list[tuple[int, str]] = field(default_factory=list)
    plain: frozenset[str] = frozenset()
    longest_cell: int = 0
    bytes_done: int = 0
    bytes_total: int = 0


def read_batches(file: SourceFile, workdir: Path) -> Iterator[Batch]:
    """Yield a file's rows in order, a bounded number at a time, parsed one batch ahead.

    CSV cells come as strings, Parquet's as they are typed. ``workdir`` takes a Parquet file out of its .zip.
    Raises LandingError for every fault of the file.
    """
    read = _read_parquet if file.name.endswith(".parquet") else _read_csv
    try:
        with quiet_about_torn_rows():
            yield from read_ahead(read(file, workdir))
    except LandingError:
        raise
    except PermissionError as error:
        raise LandingError(f"{file.label} may not be read by this user.", "Grant read permission.") from error
    except READ_FAULTS as error:
        if isinstance(error, OSError) and error.errno in DISK_FAULTS:
            raise
        raise _file_fault(file, error) from error


def _read_csv(file: SourceFile, _workdir: Path) -> Iterator[Batch]:
    for some in read_csv(file, _wanted_columns(file, column_names(file))):
        yield _batch(*some)


def _read_parquet(file: SourceFile, workdir: Path) -> Iterator[Batch]:
    path = file.path
    if file.member:
        with zipfile.ZipFile(file.path) as archive:
            path = Path(archive.extract(file.member, workdir))
    total = path.stat().st_size
    with pa.parquet.ParquetFile(path, page_checksum_verification=True) as parquet:
        wanted = _wanted_columns(file, parquet.schema_arrow.names)
        rows_before = 0
        for record_batch in parquet.iter_batches(batch_size=PARQUET_ROWS, columns=wanted):
            record_batch.validate(full=True)
            record_batch = without_empty_floats(record_batch)
            _refuse_other_types(file, record_batch.schema, wanted)
            lines = np.arange(rows_before, rows_before + record_batch.num_rows) + 1
            rows_before += record_batch.num_rows
            done = total * rows_before // max(1, parquet.metadata.num_rows)
            yield _without_missing(_batch(record_batch, lines, [], done, total))


def _batch(rows: pa.RecordBatch, lines: np.ndarray, torn: list, done: int, total: int) -> Batch:
    columns = dict(zip(rows.schema.names, rows.columns, strict=True))
    plain = frozenset(name for name, column in columns.items() if holds_plain_ids(column, LONGEST_ID))
    longest = max((longest_cell(column) for column in columns.values()), default=0)
    return Batch(pl.from_arrow(pa.Table.from_batches([rows])), lines, torn, plain, longest, done, total)


def _without_missing(batch: Batch) -> Batch:
    """Turn what stands for a missing cell into null, as the CSV reader does while it reads."""
    text = pl.col(pl.String)
    batch.rows = batch.rows.with_columns(pl.col(pl.Categorical).cast(pl.String))
    batch.rows = batch.rows.with_columns(
        pl.when(~text.is_in(MISSING)).then(text).name.keep(), pl.col(pl.Float32, pl.Float64).fill_nan(None)
    )
    return batch


def _wanted_columns(file: SourceFile, names: list[str]) -> list[str]:
    required = REQUIRED_COLUMNS[file.table]
    missing = [name for name in required if name not in names]
    if missing:
        raise LandingError(
            f"{file.label}, line 1: the header must name {', '.join(required)} (in any order); {', '.join(missing)} "
            f"is missing. It names: {', '.join(names)[:500]}.",
            "Check that the file is what its name says, is separated by commas and has its header.",
        )
    wanted = [*required, *(name for name in OPTIONAL_COLUMNS[file.table] if name in names)]
    doubled = [name for name in wanted if names.count(name) > 1]
    if doubled:
        raise LandingError(f"{file.label}, line 1: the column {doubled[0]} is there twice.", "Keep one of them.")
    return wanted


def _refuse_other_types(file: SourceFile, schema: pa.Schema, wanted: list[str]) -> None:
    refused = refused_column(file.table, schema, wanted)
    if refused:
        name, expected = refused
        raise LandingError(
            f"{file.label}: the column {name} is of type {schema.field(name).type}; expected are {expected}.",
            "Write the column in one of these types, then land the file again.",
        )


def _file_fault(file: SourceFile, error: Exception) -> LandingError:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    line = None
    if isinstance(error, (pa.ArrowInvalid, UnicodeDecodeError)) and not file.name.endswith(".parquet"):
        line = _first_line_that_is_not_utf8(file)
    if line or "UTF8" in text or "UTF-8" in text:
        where = f", line {line}" if line else ""
        hint = "Write it in UTF-8 again (iconv -f ... -t UTF-8), then land it."
        return LandingError(f"{file.label}{where}: the text is not valid UTF-8.", hint)
    if is_about_a_long_row(text):
        message = f"{file.label} has a row longer than {LONGEST_ROW_BYTES >> 20} MB."
        return LandingError(message, "A quotation mark that is never closed does that: look for it, then land again.")
    return LandingError(
        f"{file.label} cannot be read to its end: {text}.",
        "It is damaged or cut short (a broken download?): fetch it again and land it; nothing of it has landed.",
    )


def _first_line_that_is_not_utf8(file: SourceFile) -> int | None:
    try:
        with ExitStack() as stack:
            return first_line_that_is_not_utf8(open_bytes(file, stack)[0])
    except READ_FAULTS:
        return None
