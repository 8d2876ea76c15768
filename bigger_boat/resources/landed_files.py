"""Landed files, read by DuckDB on this machine: what both warehouses load from. What belongs elsewhere: loading."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bigger_boat.data.event_rules import TIME
from bigger_boat.errors import WarehouseError
from bigger_boat.resources.warehouse import DAY_MS, day_start_ms

if TYPE_CHECKING:
    import duckdb

PARQUET = "read_parquet(?, hive_partitioning = false, union_by_name = true)"
"""A table in a query that ``execute_on_files`` runs."""


def execute_on_files(
    connection: "duckdb.DuckDBPyConnection", query: str, files: Sequence[str]
) -> "duckdb.DuckDBPyConnection":
    """Run a query over PARQUET on these files. Raises WarehouseError if one cannot be read."""
    import duckdb

    try:
        return connection.execute(query, [list(files)])
    except (duckdb.IOException, duckdb.InvalidInputException, duckdb.BinderException) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise WarehouseError(
            f"A landed file cannot be loaded: {reason}. Nothing was changed. Files: {_listed(files)}.",
            "Land the source again with bigger-boat land --replace.",
        ) from error


def refuse_rows_of_other_days(
    connection: "duckdb.DuckDBPyConnection", table: str, day: str, files: Sequence[str]
) -> int:
    """Return how many rows a day's files have. Raises WarehouseError if one lies in another day, or has no time."""
    query = f"select min({TIME}), max({TIME}), count({TIME}), count(*) from {PARQUET}"
    first, last, with_time, rows = execute_on_files(connection, query, files).fetchone()
    start = day_start_ms(day)
    if with_time < rows or (first is not None and (first < start or last >= start + DAY_MS)):
        raise WarehouseError(
            f"raw.{table}: the landed files of {day} hold rows of another day or without a time ({', '.join(files)}).",
            "Land the source again: bigger-boat land sorts every row into its day.",
        )
    return rows


def _listed(files: Sequence[str], at_most: int = 3) -> str:
    more = f" and {len(files) - at_most} more" if len(files) > at_most else ""
    return ", ".join(files[:at_most]) + more
