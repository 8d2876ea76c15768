"""From events to the challenge's two event files, shuffled with bounded memory.

Rows are scattered at random over buckets on disk (21 bytes each), then every bucket is shuffled and written: together a
uniform shuffle of the whole file, with one bucket in memory at a time. What happens in a session: ``shoppers.py``.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa

from bigger_boat.data.simulator import identifiers
from bigger_boat.data.simulator.catalogue import Catalogue
from bigger_boat.data.simulator.parameters import ShopParameters
from bigger_boat.data.simulator.shoppers import DETAIL, NONE, SEARCH, VIEW, Events
from bigger_boat.data.source_columns import BROWSING_COLUMNS, SEARCH_COLUMNS

BUCKET_ROWS = 500_000
SEARCH_BUCKET_ROWS = 100_000  # a search row is long: 1.3 kB of text
ROW = np.dtype([("session", "<u4"), ("action", "i1"), ("product", "<i4"), ("page", "<i4"), ("time_ms", "<i8")])
"""``page`` is the URL of a browsing row, the query of a search row."""


class Buckets:
    """Rows scattered over files in a directory, in a random order that a seed repeats."""

    def __init__(self, directory: Path, expected_rows: int, bucket_rows: int, seed: list[int]):
        directory.mkdir(parents=True)
        self._seed = seed
        self._scatter = np.random.default_rng([*seed, 0])
        self.paths = [directory / f"{index:05d}" for index in range(max(1, -(-expected_rows // bucket_rows)))]
        self._files: list[BinaryIO] = [path.open("wb") for path in self.paths]
        self.rows = 0

    def add(self, rows: np.ndarray) -> None:
        """Scatter some rows (dtype ``ROW``)."""
        bucket = self._scatter.integers(0, len(self.paths), len(rows))
        rows = rows[np.argsort(bucket, kind="stable")]
        ends = np.cumsum(np.bincount(bucket, minlength=len(self.paths)))
        for file, part in zip(self._files, np.split(rows, ends[:-1]), strict=True):
            part.tofile(file)
        self.rows += len(rows)

    def shuffled(self) -> Iterator[np.ndarray]:
        """Yield the rows of each bucket, shuffled. Call once, after the last ``add``."""
        for file in self._files:
            file.close()
        for index, path in enumerate(self.paths):
            rows = np.fromfile(path, dtype=ROW)
            yield rows[np.random.default_rng([*self._seed, 1, index]).permutation(len(rows))]


def browsing_rows(
    events: Events, parameters: ShopParameters, catalogue: Catalogue, first_session: int, rng: np.random.Generator
) -> np.ndarray:
    """Return browsing rows (dtype ``ROW``): one per event but search, and a pageview beside every detail."""
    kept = events.action != SEARCH
    rows = _rows(events, kept, first_session)
    products = len(catalogue.category)
    urls, pages = int(products * parameters.urls_per_product), max(20, products // 4)
    other = rng.random(len(rows)) < parameters.other_url_share
    shared = (rows["product"] * 7919 + rng.integers(0, 2, len(rows)) * 104_729) % urls
    page = urls + (pages * rng.random(len(rows)) ** 3).astype(np.int64)  # few pages get most of the views
    rows["page"] = np.where(rows["product"] == NONE, page, np.where(other, shared, rows["product"]))
    doubled = rows[rows["action"] == DETAIL]
    doubled["action"], doubled["product"] = VIEW, NONE
    return np.concatenate([rows, doubled])


def search_rows(events: Events, first_session: int) -> np.ndarray:
    """Return search rows (dtype ``ROW``): the product is the one clicked."""
    kept = events.action == SEARCH
    rows = _rows(events, kept, first_session)
    rows["page"] = events.query[kept]
    return rows


def _rows(events: Events, kept: np.ndarray, first_session: int) -> np.ndarray:
    rows = np.empty(int(kept.sum()), dtype=ROW)
    rows["session"] = events.session[kept] + first_session
    for name in ("action", "product", "time_ms"):
        rows[name] = getattr(events, name)[kept]
    return rows


def _taken(values: pa.Array, index: np.ndarray) -> pl.Series:
    """Return ``values`` at ``index``, missing where it is -1."""
    return pl.from_arrow(values.take(pa.array(index, mask=index == NONE)))


def write_browsing(
    buckets: Buckets, catalogue: Catalogue, parameters: ShopParameters, path: Path, tick: Callable[[int], None]
) -> None:
    """Write ``browsing_train.csv``; ``tick(rows written)`` after every bucket."""
    products = len(catalogue.category)
    pages = int(products * parameters.urls_per_product) + max(20, products // 4)
    url_ids = identifiers.hashed_ids(np.arange(pages), identifiers.URL, catalogue.seed)
    types = pa.array(["pageview", *["event_product"] * 4], pa.large_string())
    actions = pa.array([None, "detail", "add", "remove", "purchase"], pa.large_string())
    with path.open("wb") as file:
        file.write((",".join(BROWSING_COLUMNS) + "\n").encode())
        for rows in buckets.shuffled():
            columns = (
                pl.from_arrow(identifiers.hashed_ids(rows["session"], identifiers.SESSION, catalogue.seed)),
                _taken(types, rows["action"]),
                _taken(actions, rows["action"]),
                _taken(catalogue.sku_ids, rows["product"]),
                pl.Series(rows["time_ms"]),
                _taken(url_ids, rows["page"]),
            )
            pl.DataFrame(dict(zip(BROWSING_COLUMNS, columns, strict=True))).write_csv(file, include_header=False)
            tick(len(rows))


def write_search(buckets: Buckets, catalogue: Catalogue, path: Path) -> None:
    """Write ``search_train.csv``: query vectors as JSON lists, products as Python-style lists of text."""
    skus = np.array(catalogue.sku_ids.to_pylist(), dtype=object)
    vectors = pa.array(catalogue.query_vectors, pa.large_string())
    results = pa.array([_text_list(row) for row in skus[catalogue.results].tolist()], pa.large_string())
    clicks = pa.array([_text_list([sku]) for sku in skus], pa.large_string())
    with path.open("wb") as file:
        file.write((",".join(SEARCH_COLUMNS) + "\n").encode())
        for rows in buckets.shuffled():
            columns = (
                pl.from_arrow(identifiers.hashed_ids(rows["session"], identifiers.SESSION, catalogue.seed)),
                _taken(vectors, rows["page"]),
                _taken(clicks, rows["product"]),
                _taken(results, rows["page"]),
                pl.Series(rows["time_ms"]),
            )
            pl.DataFrame(dict(zip(SEARCH_COLUMNS, columns, strict=True))).write_csv(file, include_header=False)


def _text_list(skus: list[str]) -> str:
    return str(list(skus))
