"""Reading the rows of a CSV file a block at a time, with their lines, and rows that have too many or too few cells.

What belongs elsewhere: Parquet, and what is wrong with a file in words (``source_batches.py``).
"""

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from bigger_boat.data.event_rules import MISSING
from bigger_boat.data.source_files import SourceFile, open_bytes
from bigger_boat.errors import LandingError

BLOCK_BYTES = 4 << 20
"""How much of a CSV is parsed at once: what stays in the processor's cache is parsed in half the time."""
BLOCKS_PER_BATCH = 4
LONGEST_ROW_BYTES = 16 << 20
"""Blocks are that large from the first row on that is longer than a small one; a longer row is a fault of the file."""
LONGEST_TORN_ROW = 1000


class CsvRows(NamedTuple):
    """Whole rows with their lines, torn rows as (line, text), and how many of the file's bytes were read."""

    rows: pa.RecordBatch
    lines: np.ndarray
    torn: list[tuple[int, str]]
    bytes_done: int
    bytes_total: int


def column_names(file: SourceFile) -> list[str]:
    """Return the names in the header."""
    with ExitStack() as stack:
        return _open_csv(open_bytes(file, stack)[0], deque(), LONGEST_ROW_BYTES).schema.names


def read_csv(file: SourceFile, wanted: list[str]) -> Iterator[CsvRows]:
    """Yield a file's rows in order, cells as strings, missing ones null. Raises Arrow's errors, and LandingError if it
    is cut short.
    """
    done = Done()
    try:
        yield from _parse(file, wanted, BLOCK_BYTES, BLOCKS_PER_BATCH, done)
    except pa.ArrowInvalid as error:
        if not is_about_a_long_row(str(error)):
            raise
        yield from _parse(file, wanted, LONGEST_ROW_BYTES, 1, done)


@dataclass
class Done:
    """Whole rows of a file that were yielded, and the lines of torn ones."""

    rows: int = 0
    torn: set[int] = field(default_factory=set)


def _parse(
    file: SourceFile, wanted: list[str], block_bytes: int, blocks_per_batch: int, done: Done
) -> Iterator[CsvRows]:
    """Yield what is not ``done``, and note there that it is."""
    torn: deque[TornRow] = deque()
    rows_before, torn_lines, last_torn = 0, [], None
    with ExitStack() as stack:
        stream, position, total = open_bytes(file, stack)
        blocks = stack.enter_context(_open_csv(stream, torn, block_bytes, wanted))
        for record_batch in _together(blocks, blocks_per_batch):
            torn_now = [torn.popleft() for _ in range(len(torn))]
            torn_lines += [row.line for row in torn_now]
            last_torn = torn_now[-1] if torn_now else last_torn
            lines = _lines(rows_before, record_batch.num_rows, torn_lines)
            known = min(max(done.rows - rows_before, 0), record_batch.num_rows)
            rows_before += record_batch.num_rows
            new = [row for row in torn_now if row.line not in done.torn]
            done.rows = max(done.rows, rows_before)
            done.torn.update(row.line for row in new)
            if new or known < record_batch.num_rows:
                yield CsvRows(record_batch.slice(known), lines[known:], _lines_and_texts(new), position(), total)
    behind = [row for row in torn if row.line not in done.torn]
    if behind:
        no_rows = pa.RecordBatch.from_pylist([], pa.schema([(name, pa.string()) for name in wanted]))
        yield CsvRows(no_rows, np.empty(0, np.int64), _lines_and_texts(behind), total, total)
    last_torn = torn[-1] if torn else last_torn
    if last_torn and last_torn.line == 1 + rows_before + len(torn_lines) + len(torn):
        _refuse_a_cut_file(file, last_torn)


def _together(batches: Iterator[pa.RecordBatch], count: int) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in batches of ``count`` batches."""
    while some := list(islice(batches, count)):
        yield pa.concat_batches(some) if len(some) > 1 else some[0]


@dataclass(frozen=True)
class TornRow:
    """A row with ``cells`` cells where the header has ``expected``."""

    line: int
    text: str
    cells: int
    expected: int


def _lines_and_texts(torn: Iterable[TornRow]) -> list[tuple[int, str]]:
    return [(row.line, row.text) for row in torn]


def _refuse_a_cut_file(file: SourceFile, last: TornRow) -> None:
    """Raise if the file ends within its last row: too few cells, and no line end after them."""
    if last.cells >= last.expected:
        return
    with ExitStack() as stack:
        stream, end = open_bytes(file, stack)[0], b""
        while chunk := stream.read(1 << 20):
            end = chunk[-1:]
    if end not in (b"\n", b"\r"):
        raise LandingError(
            f"{file.label}, line {last.line}: the file ends within a row, after {last.cells} of {last.expected} cells.",
            "It is cut short (a broken download or a full disk?): fetch it again and land it.",
        )


@contextmanager
def quiet_about_torn_rows() -> Iterator[None]:
    """Keep Python from printing that Arrow could not decode a torn row: the file is refused for it, in words."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda seen: None if isinstance(seen.exc_value, UnicodeDecodeError) else before(seen)
    try:
        yield
    finally:
        sys.unraisablehook = before


def _open_csv(
    stream, torn: deque[TornRow], block_bytes: int, wanted: list[str] | None = None
) -> pa.csv.CSVStreamingReader:
    def keep(row: pa.csv.InvalidRow) -> str:
        torn.append(TornRow(row.number or 0, row.text[:LONGEST_TORN_ROW], row.actual_columns, row.expected_columns))
        return "skip"

    # one thread, so that torn rows come with their line; read_ahead keeps the other core busy
    return pa.csv.open_csv(
        stream,
        read_options=pa.csv.ReadOptions(block_size=block_bytes, use_threads=False),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=keep),
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(wanted or [], pa.string()),
            include_columns=wanted,
            null_values=list(MISSING),
            strings_can_be_null=True,
        ),
    )


def _lines(rows_before: int, rows: int, torn_lines: list[int]) -> np.ndarray:
    """Return the line of each whole row: 2 + its index + the torn rows before it."""
    index = np.arange(rows_before, rows_before + rows)
    torn = np.array(torn_lines, dtype=np.int64)
    whole_before = torn - 2 - np.arange(len(torn))
    return index + 2 + np.searchsorted(whole_before, index, side="right")


def is_about_a_long_row(reason: str) -> bool:
    """How Arrow says that a row does not end within a block."""
    return "straddling" in reason or "out of sync" in reason
