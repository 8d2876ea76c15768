"""The Parquet files of a data set, one per split: written atomically in fixed row groups, and read back.

What belongs elsewhere: which rows (``intent_dataset.py``, ``recommendation_dataset.py``), the manifest beside the files
(``dataset_manifest.py``).
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from bigger_boat.data.splits import Splits
from bigger_boat.data.vocabulary import SPLITS
from bigger_boat.errors import DatasetError

ROWS_PER_GROUP = 32_768
"""Fixed, so that the bytes of a file do not depend on the batches that came in."""

BATCH_ROWS = 16_384
"""Sessions worked on at a time, whatever the size of the batches that come in."""

DICTIONARY_BYTES = 16 * 2**20
"""Room for 200,000 hashed SKUs; Arrow's default of 1 MiB is given up at 16,000."""

ORDER = ("session_date", "started_at", "session_id")
"""The total order of sessions in every data set."""


def split_path(directory: Path, split: str) -> Path:
    return directory / f"{split}.parquet"


def sample_rows(frame: pl.DataFrame, count: int | None) -> pl.DataFrame:
    """Return at most ``count`` rows (None: all), in their order; the same for the same number of rows."""
    if count is None or len(frame) <= count:
        return frame
    return frame[np.sort(np.random.default_rng(0).choice(len(frame), count, replace=False))]


def read_split(directory: Path, split: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Return one split, in its row order."""
    return pl.from_arrow(pq.read_table(split_path(directory, split), columns=columns))


def split_batches(directory: Path, split: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield one split by row group, in its row order."""
    with pq.ParquetFile(split_path(directory, split)) as file:
        yield from file.iter_batches(batch_size=ROWS_PER_GROUP, columns=columns)


def session_batches(reader: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the columns of ``schema``, a bounded number of rows at a time; DatasetError if they are not in order.

    Order is (session_date, started_at, session_id), strictly rising: a session that comes twice is found here, too.
    """
    last_key = None
    for batch in reader:
        missing = set(schema.names) - set(batch.schema.names)
        if missing:
            raise DatasetError(
                f"The sessions read from the warehouse lack the columns {', '.join(sorted(missing))}.",
                "Build the warehouse's tables with this version of the dbt project.",
            )
        for start in range(0, batch.num_rows, BATCH_ROWS):
            part = batch.select(schema.names).slice(start, BATCH_ROWS).cast(schema)
            last_key = _require_order(part, last_key)
            yield part


def _require_order(batch: pa.RecordBatch, last_key: pl.DataFrame | None) -> pl.DataFrame:
    keys = pl.from_arrow(batch.select(ORDER))
    keys = keys if last_key is None else pl.concat([last_key, keys])
    day, time, session = (pl.col(name) for name in ORDER)
    rising = (day > day.shift()) | (
        (day == day.shift()) & ((time > time.shift()) | ((time == time.shift()) & (session > session.shift())))
    )
    wrong = keys.with_row_index().filter(~rising)
    if wrong.height:
        row = wrong.row(0, named=True)
        raise DatasetError(
            f"Sessions must come once each, in the order {', '.join(ORDER)}; session {row['session_id']} of "
            f"{row['session_date']} started at {row['started_at']} does not.",
            "Order the query by these columns; if it is, the warehouse holds a session twice: run its days again.",
        )
    return keys.tail(1)


class SplitFiles:
    """A context that takes batches in time order and leaves one file per split: all of them, or none.

    Files appear under their names at the end only, after an fsync each; an error removes what was begun.
    """

    def __init__(self, directory: Path, splits: Splits, schema: pa.Schema):
        self.rows = dict.fromkeys(SPLITS, 0)
        self._directory = directory
        self._starts = np.array([splits.range_of(split)[0] for split in SPLITS], dtype="datetime64[D]")
        self._end = np.datetime64(splits.days[-1]) + 1
        self._schema = schema
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._waiting: dict[str, list[pa.RecordBatch]] = {split: [] for split in SPLITS}

    def __enter__(self) -> "SplitFiles":
        self._directory.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            self._writers[split] = pq.ParquetWriter(
                self._partial(split), self._schema, compression="zstd", dictionary_pagesize_limit=DICTIONARY_BYTES
            )
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows, in the order of their days. Raises DatasetError for a day outside of the splits."""
        days = batch.column("session_date").to_numpy(zero_copy_only=False).astype("datetime64[D]")
        if len(days) and (days[0] < self._starts[0] or days[-1] >= self._end):
            raise DatasetError(
                f"Sessions of {days[0]} to {days[-1]} are not within the data set's days, {self._starts[0]} to "
                f"{self._end - 1}.",
                "Read only sessions of the days that the splits were made from.",
            )
        bounds = [*np.searchsorted(days, self._starts), len(days)]
        for split, start, end in zip(SPLITS, bounds[:-1], bounds[1:], strict=True):
            if end > start:
                self._add(split, batch.slice(start, end - start))

    def _add(self, split: str, batch: pa.RecordBatch) -> None:
        self.rows[split] += batch.num_rows
        waiting = self._waiting[split]
        waiting.append(batch)
        if sum(part.num_rows for part in waiting) >= ROWS_PER_GROUP:
            table = pa.Table.from_batches(waiting, self._schema)
            whole = table.num_rows - table.num_rows % ROWS_PER_GROUP
            self._writers[split].write_table(table.slice(0, whole), ROWS_PER_GROUP)
            self._waiting[split] = table.slice(whole).to_batches()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        for split, writer in self._writers.items():
            if kind is None and self._waiting[split]:
                writer.write_table(pa.Table.from_batches(self._waiting[split], self._schema), ROWS_PER_GROUP)
            writer.close()
        if kind is not None:
            for split in SPLITS:
                self._partial(split).unlink(missing_ok=True)
            return
        for split in SPLITS:
            with self._partial(split).open("rb+") as file:
                os.fsync(file.fileno())
        for split in SPLITS:
            os.replace(self._partial(split), split_path(self._directory, split))

    def _partial(self, split: str) -> Path:
        return self._directory / f".{split}.parquet.partial"
