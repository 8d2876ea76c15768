"""Reading the source's three files, whatever their packing: .csv, .csv.gz, .zip or Parquet, in bounded batches.

A fault of the file itself (unreadable, truncated, wrong header, not UTF-8) is a LandingError that names the file and, where
it can be known, the line. What belongs elsewhere: what a row must look like (``source_rows.py``).
"""

import zipfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from bigger_boat.data.read_ahead import read_ahead
from bigger_boat.data.utf8 import first_line_that_is_not_utf8
from bigger_boat.errors import LandingError

TABLE_OF_STEM = {"browsing_train": "browsing", "search_train": "search", "sku_to_content": "catalog"}
REQUIRED_COLUMNS = {
    "browsing": (
        "session_id_hash",
        "event_type",
        "product_action",
        "product_sku_hash",
        "server_timestamp_epoch_ms",
        "hashed_url",
    ),
    "search": (
        "session_id_hash",
        "query_vector",
        "clicked_skus_hash",
        "product_skus_hash",
        "server_timestamp_epoch_ms",
    ),
    "catalog": ("product_sku_hash", "description_vector", "category_hash", "image_vector", "price_bucket"),
}
OPTIONAL_COLUMNS = {"browsing": ("event_id", "request_id"), "search": ("event_id", "request_id"), "catalog": ()}
SUFFIXES = (".csv", ".csv.gz", ".parquet")
BLOCK_BYTES = 16 << 20
"""How much of a CSV is parsed at once; a single row cannot be longer."""


@dataclass(frozen=True)
class SourceFile:
    """One of the three files: ``table`` is what it holds, ``member`` its name inside ``path`` if that is a .zip."""

    table: str
    path: Path
    member: str | None = None

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"{self.path}, in it {self.member}" if self.member else str(self.path)

    @property
    def name(self) -> str:
        """The name without its folders."""
        return Path(self.member).name if self.member else self.path.name


@dataclass
class Batch:
    """Rows with their line numbers (the header is line 1), and rows that had the wrong number of cells."""

    rows: pl.DataFrame
    lines: np.ndarray
    torn: list[tuple[int, str]] = field(default_factory=list)
    bytes_done: int = 0
    bytes_total: int = 0


def find_source_files(source: Path) -> list[SourceFile]:
    """Return what there is of the three files in a directory, one folder below, in a .zip, or as a single file.

    Raises LandingError if there is nothing, or one of the three twice.
    """
    source = Path(source)
    if not source.exists():
        raise LandingError(f"There is no {source}.", "Give the directory, the .zip or the file to land.")
    try:
        found = _in_directory(source) if source.is_dir() else _in_file(source)
    except PermissionError as error:
        raise LandingError(
            f"{error.filename or source} may not be read by this user.", "Grant read permission."
        ) from error
    for table in REQUIRED_COLUMNS:
        same = [file for file in found if file.table == table]
        if len(same) > 1:
            names = " and ".join(file.label for file in same)
            raise LandingError(
                f"There are two files for the {table} table: {names}.", "Keep one of them and land again."
            )
    if not found:
        names = ", ".join(TABLE_OF_STEM)
        hint = "Name the files like the challenge's, in CSV (plain, .gz or .zip) or Parquet."
        raise LandingError(f"{source} holds none of {names}.", hint)
    return sorted(found, key=lambda file: list(REQUIRED_COLUMNS).index(file.table))


def read_batches(file: SourceFile, workdir: Path) -> Iterator[Batch]:
    """Yield a file's rows in order, a bounded number at a time, parsed one batch ahead.

    CSV cells come as strings, Parquet's as they are typed. ``workdir`` takes a Parquet file out of its .zip.
    Raises LandingError for every fault of the file.
    """
    read = _read_parquet if file.name.endswith(".parquet") else _read_csv
    try:
        yield from read_ahead(read(file, workdir))
    except LandingError:
        raise
    except PermissionError as error:
        raise LandingError(f"{file.label} may not be read by this user.", "Grant read permission.") from error
    except (
        OSError,
        EOFError,
        zipfile.BadZipFile,
        RuntimeError,
        NotImplementedError,
        pa.ArrowException,
        ValueError,
    ) as error:
        raise _file_fault(file, error) from error


def _in_directory(directory: Path) -> list[SourceFile]:
    for folder in (directory, *sorted(path for path in directory.iterdir() if path.is_dir())):
        found = [match for path in sorted(folder.iterdir()) if path.is_file() for match in _in_file(path, strict=False)]
        if found:
            return found
    return []


def _in_file(path: Path, strict: bool = True) -> list[SourceFile]:
    if path.suffix.lower() != ".zip":
        table = _table_of(path.name)
        return [SourceFile(table, path)] if table else []
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if not name.endswith("/")]
    except (zipfile.BadZipFile, EOFError) as error:
        if strict or _table_of(path.stem) or _table_of(path.stem + ".csv"):
            raise LandingError(
                f"{path} is no readable .zip: {error}.", "It may be cut short: fetch it again."
            ) from error
        return []
    matches = [(name, _table_of(Path(name).name)) for name in members]
    return [SourceFile(table, path, name) for name, table in matches if table]


def _table_of(name: str) -> str | None:
    for stem, table in TABLE_OF_STEM.items():
        if name.lower() in {stem + suffix for suffix in SUFFIXES}:
            return table
    return None


def _read_csv(file: SourceFile, _workdir: Path) -> Iterator[Batch]:
    with ExitStack() as stack:
        stream, position, total = open_bytes(file, stack)
        torn: list[tuple[int, str]] = []

        def keep(row: pa.csv.InvalidRow) -> str:
            torn.append((row.number or 0, row.text[:1000]))
            return "skip"

        reader = stack.enter_context(_open_csv(file, stream, keep))
        wanted = _wanted_columns(file, reader.schema.names)
        rows_before, torn_lines = 0, array("q")
        for batch in reader:
            torn_now, torn[:] = list(torn), []
            torn_lines.extend(line for line, _ in torn_now)
            index = np.arange(rows_before, rows_before + batch.num_rows)
            rows_before += batch.num_rows
            rows = pl.from_arrow(pa.table(batch.select(wanted)))
            yield Batch(rows, _lines(index, torn_lines), torn_now, position(), total)
        if torn:
            yield Batch(
                pl.DataFrame(schema=dict.fromkeys(wanted, pl.String)), np.empty(0, np.int64), list(torn), total, total
            )


def _open_csv(file: SourceFile, stream, keep: Callable) -> pa.csv.CSVStreamingReader:
    columns = (*REQUIRED_COLUMNS[file.table], *OPTIONAL_COLUMNS[file.table])
    try:
        return pa.csv.open_csv(
            stream,
            # one thread, so that torn rows come with their line; read_ahead keeps the other core busy
            read_options=pa.csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=keep),
            convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            raise LandingError(
                f"{file.label} is empty.", "Its first line must name the columns: write it again."
            ) from error
        raise


def _lines(index: np.ndarray, torn_lines: array) -> np.ndarray:
    """Return the line of each whole row: 2 + its index + the torn rows before it."""
    torn = np.array(torn_lines, dtype=np.int64)
    whole_before = torn - 2 - np.arange(len(torn))
    return index + 2 + np.searchsorted(whole_before, index, side="right")


def _read_parquet(file: SourceFile, workdir: Path) -> Iterator[Batch]:
    path = file.path
    if file.member:
        with zipfile.ZipFile(file.path) as archive:
            path = Path(archive.extract(file.member, workdir))
    total = path.stat().st_size
    if not total:
        raise LandingError(f"{file.label} is empty.", "Write it again.")
    with pa.parquet.ParquetFile(path) as parquet:
        wanted = _wanted_columns(file, parquet.schema_arrow.names)
        rows_before = 0
        for batch in parquet.iter_batches(batch_size=100_000, columns=wanted):
            batch.validate(full=True)
            lines = np.arange(rows_before, rows_before + batch.num_rows) + 1
            rows_before += batch.num_rows
            done = total * rows_before // max(1, parquet.metadata.num_rows)
            yield Batch(pl.from_arrow(pa.table(batch)), lines, [], done, total)


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


def open_bytes(file: SourceFile, stack: ExitStack) -> tuple[pa.NativeFile, Callable[[], int], int]:
    """Open a file's bytes, unpacked; return the stream, a function for the packed bytes read so far, and their total."""
    if file.member:
        archive = stack.enter_context(zipfile.ZipFile(file.path))
        member = stack.enter_context(closing(archive.open(file.member)))
        stream, position, total = pa.PythonFile(member), member.tell, archive.getinfo(file.member).file_size
    else:
        stream = stack.enter_context(pa.OSFile(str(file.path)))
        position, total = stream.tell, file.path.stat().st_size
    if not total:
        raise LandingError(f"{file.label} is empty.", "Its first line must name the columns: write it again.")
    if file.name.endswith(".gz"):
        return stack.enter_context(pa.CompressedInputStream(stream, "gzip")), position, total
    return stream, position, total


def _file_fault(file: SourceFile, error: Exception) -> LandingError:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if "UTF8" in text or "UTF-8" in text:
        line = None
        if not file.name.endswith(".parquet"):
            with ExitStack() as stack:
                line = first_line_that_is_not_utf8(open_bytes(file, stack)[0])
        where = f", line {line}" if line else ""
        hint = "Write it in UTF-8 again (iconv -f ... -t UTF-8), then land it."
        return LandingError(f"{file.label}{where}: the text is not valid UTF-8.", hint)
    if "straddling" in text or "out of sync" in text:
        message = f"{file.label} has a row longer than {BLOCK_BYTES >> 20} MB."
        return LandingError(message, "A quotation mark that is never closed does that: look for it, then land again.")
    return LandingError(
        f"{file.label} cannot be read to its end: {text}.",
        "It is damaged or cut short (a broken download?): fetch it again and land it; nothing of it has landed.",
    )
