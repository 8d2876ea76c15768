"""The warehouse as assets see it: one interface, an adapter per profile, and what the raw tables hold.

What belongs elsewhere: the adapters (``duckdb_warehouse.py``), the set work (``dbt_project/``, run by ``dbt.py``), what
a row must look like (``data/``).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from bigger_boat.data.event_rules import TIME

if TYPE_CHECKING:
    import pyarrow as pa

WAREHOUSE_POOL = "warehouse"
"""The concurrency pool of every step that opens the warehouse: one at a time, as DuckDB has one writer."""

DAY_MS = 86_400_000

RAW_COLUMNS: dict[str, dict[str, str]] = {
    "browsing_train": {
        "session_id_hash": "varchar",
        "event_type": "varchar",
        "product_action": "varchar",
        "product_sku_hash": "varchar",
        TIME: "bigint",
        "hashed_url": "varchar",
        "event_id": "varchar",
        "request_id": "varchar",
    },
    "search_train": {
        "session_id_hash": "varchar",
        "query_vector": "float[]",
        "clicked_skus_hash": "varchar[]",
        "product_skus_hash": "varchar[]",
        TIME: "bigint",
        "event_id": "varchar",
        "request_id": "varchar",
    },
    "sku_to_content": {
        "product_sku_hash": "varchar",
        "description_vector": "float[]",
        "category_hash": "varchar",
        "image_vector": "float[]",
        "price_bucket": "integer",
    },
}
"""The raw tables: the source's columns, plus what /collect adds. The catalog also has ``file_number``."""

LOADED = "loaded_days"
"""Which content each day of the raw tables by day was loaded from, written in the transaction of its rows."""


@dataclass(frozen=True)
class Statement:
    """A statement that changed a raw table: what it was, how many rows, and the warehouse's id of it, if it has one."""

    sql: str
    rows: int
    query_id: str = ""


class Warehouse(dg.ConfigurableResource, ABC):
    """What the graph asks of a warehouse. Tables are named as in SQL: ``raw.browsing_train``, ``sessions``.

    SQL passed in is what both dialects read, with ``?`` for parameters. Errors are WarehouseErrors.
    """

    @abstractmethod
    def prepare(self) -> None:
        """Wait until the warehouse can be written, and create the raw tables that dbt's views read."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Prepare it, and keep other processes out until the block ends: dbt runs inside."""
        self.prepare()
        yield

    @abstractmethod
    def load_days(
        self,
        table: str,
        files_by_day: Mapping[str, Sequence[str]],
        fingerprints: Mapping[str, str] | None = None,
        statements: list[Statement] | None = None,
    ) -> dict[str, int]:
        """Replace these days of ``raw.table`` by their files' rows, all in one transaction; return each day's rows.

        A day without files becomes empty. ``fingerprints`` say what content a day's files hold; they are kept beside
        the rows. ``statements``, if given, gets what was done. Raises WarehouseError, with nothing changed, if a file
        cannot be read or holds rows of another day.
        """

    @abstractmethod
    def loaded_fingerprints(self) -> dict[tuple[str, str], str]:
        """Return by (raw table, day) the fingerprint of the content that is loaded."""

    @abstractmethod
    def load_catalog(self, files: Sequence[str], statements: list[Statement] | None = None) -> int:
        """Replace ``raw.sku_to_content`` by the rows of these files, oldest first, at once; return how many."""

    @abstractmethod
    def read(self, sql: str, params: Sequence[object] = ()) -> AbstractContextManager["pa.RecordBatchReader"]:
        """Run a query and hand out its rows as Arrow batches, in bounded memory, until the block ends."""

    @abstractmethod
    def dbt_environment(self) -> dict[str, str]:
        """Return the variables of ``dbt_project/profiles.yml`` that point dbt at this warehouse; no secrets."""

    def purge(self) -> None:
        """Make sure that deleted rows are gone from disk, as far as we can: servers have their own retention."""

    def row_counts(self, table: str, day_column: str, first: date | str, last: date | str) -> dict[str, int]:
        """Return the rows of each day from ``first`` to ``last``, days without rows included."""
        first, last = date.fromisoformat(str(first)), date.fromisoformat(str(last))
        sql = (
            f"select {day_column} as day, count(*) as row_count from {table}"
            f" where {day_column} between date '{first}' and date '{last}' group by 1"
        )
        with self.read(sql) as reader:
            counted = {row["day"]: row["row_count"] for row in reader.read_all().to_pylist()}
        days = [first + timedelta(days=offset) for offset in range((last - first).days + 1)]
        return {day.isoformat(): counted.get(day, 0) for day in days}

    def count(self, table: str) -> int:
        """Return the number of rows of a table."""
        with self.read(f"select count(*) as row_count from {table}") as reader:
            return reader.read_all()["row_count"][0].as_py()


def day_start_ms(day: str) -> int:
    """Return midnight UTC of a day (``YYYY-MM-DD``) in epoch milliseconds."""
    return (date.fromisoformat(day) - date(1970, 1, 1)).days * DAY_MS


def day_ranges_ms(days: Mapping[str, object]) -> list[tuple[int, int]]:
    """Return the days as milliseconds [first, end), neighbouring days joined."""
    ranges: list[tuple[int, int]] = []
    for first in (day_start_ms(day) for day in sorted(days)):
        if ranges and ranges[-1][1] == first:
            ranges[-1] = (ranges[-1][0], first + DAY_MS)
        else:
            ranges.append((first, first + DAY_MS))
    return ranges
