"""Splitting rows into days in bounded memory, then writing each day's rows, sorted, as one Parquet file named by its content.

What belongs elsewhere: what rows look like (``source_rows.py``), bringing files into force (``landing_store.py``).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet

SPILL_BYTES = 384 << 20
"""How much one table may hold in memory before it goes to staging."""
SORT_BYTES = 256 << 20
"""How much of a day is sorted at once; a bigger day is sorted in ranges of its first sort column."""
ROW_GROUP_ROWS = 250_000
CONTENT_FORMAT = b"bigger-boat landing content 1"


@dataclass
class DaySpool:
    """Rows of one table, kept apart by day: in memory while they are few, else appended to one staging file per day."""

    directory: Path
    no_day: str = "unknown"
    spill_bytes: int = SPILL_BYTES
    _held: dict[str, list[pl.DataFrame]] = field(default_factory=dict)
    _held_bytes: int = 0
    _spilled: dict[str, pa.ipc.RecordBatchStreamWriter] = field(default_factory=dict)

    def add(self, rows: pl.DataFrame, day_column: str = "day") -> None:
        """Take rows in; ``day_column`` says where they go and is not kept, a null there means ``no_day``."""
        if rows.is_empty():
            return
        for (day,), part in rows.partition_by(day_column, as_dict=True, include_key=False).items():
            self._held.setdefault(self.no_day if day is None else str(day), []).append(part)
        self._held_bytes += rows.estimated_size()
        if self._held_bytes > self.spill_bytes:
            self._spill()

    def days(self) -> list[str]:
        """Return the days that have rows."""
        return sorted({*self._held, *self._spilled})

    def close(self) -> None:
        """Finish adding: nothing is added after this."""
        if self._spilled:
            self._spill()
        for writer in self._spilled.values():
            writer.close()

    def take(self, day: str) -> list[pl.DataFrame]:
        """Hand over the rows of a day, in chunks, and forget them. Spilled chunks are mapped from the staging file."""
        held = self._held.pop(day, [])
        if day not in self._spilled:
            return held
        with pa.ipc.open_stream(pa.memory_map(str(self._path(day)))) as reader:
            return [pl.from_arrow(pa.table(batch)) for batch in reader] + held

    def forget(self, day: str) -> None:
        """Remove the staging file of a day."""
        if day in self._spilled:
            self._path(day).unlink()

    def _spill(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        for day, frames in self._held.items():
            table = pl.concat(frames).to_arrow(compat_level=pl.CompatLevel.oldest())
            if day not in self._spilled:
                self._spilled[day] = pa.ipc.new_stream(str(self._path(day)), table.schema)
            self._spilled[day].write_table(table.combine_chunks())
        self._held.clear()
        self._held_bytes = 0

    def _path(self, day: str) -> Path:
        return self.directory / f"{day}.arrows"


@dataclass(frozen=True)
class WrittenFile:
    """A sorted Parquet file in staging, and the digest of its content (not of its bytes: those change with the writer)."""

    path: Path
    digest: str
    rows: int
    counts: dict[str, int]


def write_sorted(
    chunks: list[pl.DataFrame], path: Path, order=(), ignore: tuple[str, ...] = (), count: str = ""
) -> WrittenFile:
    """Write rows in their total order as one Parquet file; the same rows in any order and chunking give the same digest.

    Rows sort by the columns in ``order`` (by default all of them from the first to the last), then by those in ``ignore``,
    which are left out of the digest.
    ``count`` names a column whose values are counted.
    """
    content = ContentDigest()
    counts: dict[str, int] = {}
    rows, writer = 0, None
    try:
        for piece in _sorted_pieces(chunks, (*order, *ignore)):
            content.update(piece.drop(ignore))
            if count:
                for value, number in piece[count].value_counts().iter_rows():
                    counts[value] = counts.get(value, 0) + number
            table = _portable(piece.to_arrow(compat_level=pl.CompatLevel.oldest()))
            writer = writer or pa.parquet.ParquetWriter(path, table.schema, **PARQUET_OPTIONS)
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
            rows += piece.height
    finally:
        if writer:
            writer.close()
    return WrittenFile(path, content.hexdigest(), rows, dict(sorted(counts.items())))


class ContentDigest:
    """A digest over a table's values, column by column: the same for any chunking, library version and compression."""

    def __init__(self) -> None:
        self._columns: dict[str, list] = {}

    def update(self, rows: pl.DataFrame) -> None:
        """Take further rows in; the columns are the same every time."""
        for series in rows:
            hashers = self._columns.setdefault(series.name, [hashlib.sha256() for _ in range(4)])
            for hasher, values in zip(hashers, _value_buffers(series), strict=False):
                hasher.update(values)

    def hexdigest(self) -> str:
        """Return the first 16 hex digits. Columns that hold only nulls count like columns that are not there."""
        total = hashlib.sha256(CONTENT_FORMAT)
        for name, hashers in sorted(self._columns.items()):
            total.update(name.encode())
            for hasher in hashers:
                total.update(hasher.digest())
        return total.hexdigest()[:16]


def _value_buffers(series: pl.Series) -> Iterator[bytes | memoryview | np.ndarray]:
    """Yield a series' validity, then its lengths where it has any, then its values (of lists: their items')."""
    yield series.is_not_null().cast(pl.UInt8).to_numpy()
    if series.dtype == pl.String:
        yield series.str.len_bytes().fill_null(0).to_numpy().astype("<u4")
        yield _string_bytes(series)
    elif isinstance(series.dtype, pl.List):
        yield series.list.len().fill_null(0).to_numpy().astype("<u4")
        items = series.drop_nulls().explode(empty_as_null=False)
        if items.dtype == pl.String:
            yield items.str.len_bytes().fill_null(0).to_numpy().astype("<u4")
            yield _string_bytes(items)
        else:
            yield np.ascontiguousarray(items.to_numpy())
    else:
        yield np.ascontiguousarray(series.fill_null(0).to_numpy())


def _string_bytes(series: pl.Series) -> memoryview:
    values = series.drop_nulls().rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    if len(values) == 0:
        return memoryview(b"")
    offsets = np.frombuffer(values.buffers()[1], dtype=np.int64)[values.offset : values.offset + len(values) + 1]
    return memoryview(values.buffers()[2])[offsets[0] : offsets[-1]]


def _sorted_pieces(chunks: list[pl.DataFrame], order: tuple[str, ...]) -> Iterator[pl.DataFrame]:
    """Yield the rows in total order, in as many pieces as memory asks for."""
    keys = [*order, *(name for name in chunks[0].columns if name not in order)]
    yield sort_totally(pl.concat(chunks, rechunk=True), keys)


def sort_totally(rows: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Sort by all keys. Most rows are told apart by the first two or three, so only the ties are sorted by the rest."""
    return rows.sort(keys, nulls_last=False)


def _portable(table: pa.Table) -> pa.Table:
    """Strings and lists with 32-bit offsets: what every Parquet reader takes as plain string and list columns."""
    return table.cast(pa.schema([pa.field(field.name, _small(field.type)) for field in table.schema]))


def _small(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_large_list(kind):
        return pa.list_(_small(kind.value_type))
    return kind


PARQUET_OPTIONS = {"compression": "zstd", "compression_level": 1, "use_dictionary": True}
