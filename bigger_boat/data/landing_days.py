"""Splitting rows into days in bounded memory, then writing each day, sorted, as one Parquet file named by its content.

What belongs elsewhere: what rows look like (``source_rows.py``), bringing files into force (``landing_store.py``).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet

from bigger_boat.data.content_digest import ContentDigest

SPILL_BYTES = 256 << 20
"""How much one table may hold in memory before it goes to staging."""
SORT_BYTES = 256 << 20
"""How much of a day is sorted at once; a bigger day is sorted in ranges of its first sort key."""
ROW_GROUP_ROWS = 250_000
PARQUET_OPTIONS = {
    "compression": "zstd",  # a third smaller than snappy and no slower, measured on hashed ids
    "compression_level": 1,
    "dictionary_pagesize_limit": 8 << 20,  # 60 k products of 64 characters fit, the default of 1 MB holds 16 k
}


@dataclass
class DaySpool:
    """Rows of one table, kept apart by day: in memory while they are few, else appended to one staging file per day."""

    directory: Path
    no_day: str = "unknown"
    _held: dict[str, list[pl.DataFrame]] = field(default_factory=dict)
    _held_bytes: int = 0
    _bytes: Counter = field(default_factory=Counter)
    _is_spilled: bool = False

    def add(self, rows: pl.DataFrame, day_column: str = "day") -> None:
        """Take rows in; ``day_column`` says where they go and is not kept, a null there means ``no_day``."""
        if rows.is_empty():
            return
        row_bytes = rows.estimated_size() / rows.height
        for (day,), part in rows.partition_by(day_column, as_dict=True, include_key=False).items():
            name = self.no_day if day is None else str(day)
            self._held.setdefault(name, []).append(part)
            self._bytes[name] += int(part.height * row_bytes)
        self._held_bytes += rows.estimated_size()
        if self._held_bytes > SPILL_BYTES:
            self._spill()

    def close(self) -> None:
        """Finish adding: nothing is added after this."""
        if self._is_spilled:
            self._spill()

    def days(self) -> list[str]:
        """Return the days that have rows."""
        return sorted(self._bytes)

    def bytes_of(self, day: str) -> int:
        """Return about how much memory a day's rows take."""
        return self._bytes[day]

    def chunks(self, day: str) -> Iterator[pl.DataFrame]:
        """Yield a day's rows, chunk by chunk; may be called again. Spilled ones are mapped from the staging file."""
        if not self._is_spilled:
            yield from self._held[day]
            return
        with pa.memory_map(str(self._path(day))) as file:
            while file.tell() < file.size():
                with pa.ipc.open_stream(file) as stream:
                    yield from (pl.from_arrow(pa.Table.from_batches([batch])) for batch in stream)

    def forget(self, day: str) -> None:
        """Let go of a day's rows."""
        self._held.pop(day, None)
        self._path(day).unlink(missing_ok=True)

    def _spill(self) -> None:
        self._is_spilled = True
        self.directory.mkdir(parents=True, exist_ok=True)
        for day, frames in self._held.items():
            table = pl.concat(frames).to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
            # one whole stream per spill: no file stays open, however many days there are
            with open(self._path(day), "ab") as file, pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)
        self._held.clear()
        self._held_bytes = 0

    def _path(self, day: str) -> Path:
        return self.directory / f"{day}.arrows"


@dataclass(frozen=True)
class SortOrder:
    """A total order: by ``first``, then by ``keys``, then by the columns in ``ignored``, which no digest covers.

    ``first`` is a cheap expression that tells nearly all rows apart; only its ties are compared by the other columns.
    """

    first: pl.Expr
    keys: tuple[str, ...]
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class WrittenFile:
    """A sorted Parquet file in staging, and the digest of its content (its bytes change with the writer)."""

    path: Path
    digest: str
    rows: int
    counts: dict[str, int]


def write_sorted(spool: DaySpool, day: str, path: Path, order: SortOrder, count: str = "") -> WrittenFile:
    """Write a day as one sorted Parquet file; the same rows in any order and chunking give the same digest.

    ``count`` names a column whose values are counted.
    """
    content, counts, rows, writer = ContentDigest(), Counter(), 0, None
    try:
        for piece in _sorted_pieces(spool, day, order):
            table = _portable(piece.to_arrow(compat_level=pl.CompatLevel.oldest()))
            content.update(table.drop_columns(list(order.ignored)))
            if count:
                counts.update(dict(piece[count].value_counts().iter_rows()))
            writer = writer or pa.parquet.ParquetWriter(path, table.schema, **PARQUET_OPTIONS)
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
            rows += piece.height
    finally:
        if writer:
            writer.close()
    return WrittenFile(path, content.hexdigest(), rows, dict(sorted(counts.items())))


def _sorted_pieces(spool: DaySpool, day: str, order: SortOrder) -> Iterator[pl.DataFrame]:
    """Yield a day's rows in their total order, in as many pieces as memory asks for."""
    piece_count = 1 + spool.bytes_of(day) // SORT_BYTES
    if piece_count == 1:
        yield sort_totally(pl.concat(list(spool.chunks(day))), order)
        return
    firsts = pl.concat([chunk.select(order.first.alias("first"))["first"] for chunk in spool.chunks(day)])
    bounds = firsts.gather_every(max(1, len(firsts) // 100_000)).sort()
    bounds = bounds.gather([len(bounds) * i // piece_count for i in range(1, piece_count)]).unique().sort().to_list()
    del firsts
    for low, high in zip([None, *bounds], [*bounds, None], strict=True):
        above = pl.lit(True) if low is None else order.first >= low
        below = pl.lit(True) if high is None else order.first < high
        parts = [_own_copy(chunk.filter(above & below)) for chunk in spool.chunks(day)]
        yield sort_totally(pl.concat(parts), order)


def _own_copy(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows without references into the mapped staging file, whose pages could not be let go otherwise."""
    return pl.from_arrow(rows.to_arrow(compat_level=pl.CompatLevel.oldest()), rechunk=True)


def sort_totally(rows: pl.DataFrame, order: SortOrder) -> pl.DataFrame:
    """Return the rows in their total order."""
    firsts = rows.select(order.first.alias("first"))["first"]
    sorted_at = firsts.arg_sort().to_numpy().copy()
    firsts = firsts.gather(sorted_at)
    same = (firsts == firsts.shift(1)).fill_null(False)
    ties = np.flatnonzero((same | same.shift(-1).fill_null(False)).to_numpy())
    if len(ties):
        tied = rows[sorted_at[ties]].with_columns(
            firsts.gather(ties).alias("_first"), pl.Series("_at", sorted_at[ties])
        )
        sorted_at[ties] = tied.sort("_first", *order.keys, *order.ignored)["_at"].to_numpy()
    return rows[sorted_at]


def _portable(table: pa.Table) -> pa.Table:
    """Strings and lists with 32-bit offsets: what every Parquet reader takes as plain string and list columns."""
    return table.cast(pa.schema([pa.field(field.name, _small(field.type)) for field in table.schema]))


def _small(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_large_list(kind):
        return pa.list_(_small(kind.value_type))
    return kind
