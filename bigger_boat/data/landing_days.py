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
from bigger_boat.data.event_rules import TIME

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

    def chunks(self, day: str) -> Iterator[pa.Table]:
        """Yield a day's rows, chunk by chunk; may be called again. Spilled ones are mapped from the staging file."""
        if not self._is_spilled:
            yield _arrow(self._held[day])
            return
        with pa.memory_map(str(self._path(day))) as file:
            while file.tell() < file.size():
                with pa.ipc.open_stream(file) as stream:
                    yield stream.read_all()

    def forget(self, day: str) -> None:
        """Let go of a day's rows."""
        self._held.pop(day, None)
        self._path(day).unlink(missing_ok=True)

    def _spill(self) -> None:
        self._is_spilled = True
        self.directory.mkdir(parents=True, exist_ok=True)
        for day, frames in self._held.items():
            table = _arrow(frames)
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
        for table in _sorted_pieces(spool, day, order):
            content.update(table.drop_columns(list(order.ignored)))
            if count:
                counts.update(dict(pl.from_arrow(table[count]).value_counts().iter_rows()))
            writer = writer or open_parquet(path, table.schema)
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
            rows += table.num_rows
    finally:
        if writer:
            writer.close()
    return WrittenFile(path, content.hexdigest(), rows, dict(sorted(counts.items())))


def open_parquet(path: Path, schema: pa.Schema) -> pa.parquet.ParquetWriter:
    """Return a writer of landed files. A dictionary pays where values repeat: of times and vectors none does."""
    text = [field.name for field in schema if pa.types.is_string(field.type)]
    lists = [f"{field.name}.list.element" for field in schema if field.type == pa.list_(pa.string())]
    return pa.parquet.ParquetWriter(
        path, schema, use_dictionary=[*text, *lists], write_statistics=[TIME], **PARQUET_OPTIONS
    )


def _sorted_pieces(spool: DaySpool, day: str, order: SortOrder) -> Iterator[pa.Table]:
    """Yield a day's rows in their total order, in as many pieces as memory asks for."""
    piece_count = 1 + spool.bytes_of(day) // SORT_BYTES
    if piece_count == 1:
        yield sort_totally(pa.concat_tables(spool.chunks(day)), order)
        return
    firsts = pl.concat([_firsts(chunk, order) for chunk in spool.chunks(day)])
    bounds = firsts.gather_every(max(1, len(firsts) // 100_000)).sort()
    bounds = bounds.gather([len(bounds) * i // piece_count for i in range(1, piece_count)]).unique().sort().to_list()
    del firsts
    for low, high in zip([None, *bounds], [*bounds, None], strict=True):
        # what a filter leaves is a copy: nothing refers to the mapped staging file, whose pages can be let go
        parts = [chunk.filter(_is_between(_firsts(chunk, order), low, high)) for chunk in spool.chunks(day)]
        yield sort_totally(pa.concat_tables(parts), order)


def _is_between(firsts: pl.Series, low: object, high: object) -> pa.Array:
    above = pl.lit(True) if low is None else pl.col("first") >= low
    below = pl.lit(True) if high is None else pl.col("first") < high
    return firsts.to_frame().select((above & below).alias("inside"))["inside"].to_arrow()


def _firsts(rows: pa.Table, order: SortOrder) -> pl.Series:
    needed = rows.select([name for name in rows.column_names if name in order.first.meta.root_names()])
    return pl.from_arrow(needed).select(order.first.alias("first"))["first"]


def sort_totally(rows: pa.Table, order: SortOrder) -> pa.Table:
    """Return the rows in their total order. Arrow gathers them: Polars takes twice as long for columns of text."""
    firsts = _firsts(rows, order)
    sorted_at = firsts.arg_sort().to_numpy().copy()
    firsts = firsts.gather(sorted_at)
    same = (firsts == firsts.shift(1)).fill_null(False)
    ties = np.flatnonzero((same | same.shift(-1).fill_null(False)).to_numpy())
    rows = rows.combine_chunks()
    if len(ties):
        tied = pl.from_arrow(_take(rows, sorted_at[ties])).with_columns(
            firsts.gather(ties).alias("_first"), pl.Series("_at", sorted_at[ties])
        )
        sorted_at[ties] = tied.sort("_first", *order.keys, *order.ignored)["_at"].to_numpy()
    return _take(rows, sorted_at)


def _take(rows: pa.Table, places: np.ndarray) -> pa.Table:
    """Gather rows; what is null in all of them need not be."""
    empty = [name for name in rows.column_names if rows[name].null_count == rows.num_rows]
    taken = rows.drop_columns(empty).take(pl.Series(places).to_arrow())  # pyarrow's own way would import pandas
    columns = [pa.nulls(len(places), field.type) if field.name in empty else taken[field.name] for field in rows.schema]
    return pa.Table.from_arrays(columns, schema=rows.schema)


def _arrow(frames: list[pl.DataFrame]) -> pa.Table:
    return _portable(pl.concat(frames).to_arrow(compat_level=pl.CompatLevel.oldest())).combine_chunks()


def _portable(table: pa.Table) -> pa.Table:
    """Strings and lists with 32-bit offsets: what every Parquet reader takes as plain string and list columns."""
    return table.cast(pa.schema([pa.field(field.name, _small(field.type)) for field in table.schema]))


def _small(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_large_list(kind):
        return pa.list_(_small(kind.value_type))
    return kind
