"""The raw tables in DuckDB: small days are copied into the file, large ones are read where they landed.

``raw.browsing_train`` and ``raw.search_train`` are views over both, so that nobody who reads them sees a difference.
Writing text is nearly all that loading costs; the landed Parquet is read as fast as a table, and is there once. What
belongs elsewhere: opening the file and transactions (``duckdb_warehouse.py``), what a landed file must hold
(``landed_files.py``).
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bigger_boat.data.event_rules import TIME
from bigger_boat.resources.landed_files import PARQUET, execute_on_files
from bigger_boat.resources.warehouse import LOADED, RAW_COLUMNS, Statement, day_ranges_ms

if TYPE_CHECKING:
    import duckdb

BY_DAY = ("browsing_train", "search_train")
DAYS_AT_A_TIME = 16
"""How many days of raw rows one statement copies; all of a load are one transaction."""
_COPIED = "{}_copied"
_BASE = "landed_relative_to"

logger = logging.getLogger(__name__)


def create_raw_tables(connection: "duckdb.DuckDBPyConnection", database: Path) -> None:
    """Create what is not there yet, and turn tables of an earlier version into what they are now."""
    connection.execute("create schema if not exists raw")
    for table in BY_DAY:
        if _kind(connection, table) == "BASE TABLE":
            connection.execute(f"alter table raw.{table} rename to {_COPIED.format(table)}")
        connection.execute(f"create table if not exists raw.{_COPIED.format(table)} ({_typed(table)})")
    catalog = f"{_typed('sku_to_content')}, file_number integer"
    connection.execute(f"create table if not exists raw.sku_to_content ({catalog})")
    connection.execute(f"create table if not exists raw.{LOADED} (name varchar, day varchar, fingerprint varchar)")
    for column in ("file varchar", "row_count bigint"):
        connection.execute(f"alter table raw.{LOADED} add column if not exists {column}")
    connection.execute(f"create table if not exists raw.{_BASE} (folder varchar)")
    for table in BY_DAY:
        if _kind(connection, table) is None:
            create_view(connection, table, database)
    follow_the_folder(connection, database)


def follow_the_folder(connection: "duckdb.DuckDBPyConnection", database: Path) -> None:
    """Point the views to the landing zone beside the file, if both were moved or copied since."""
    if _kind(connection, _BASE) is None:
        return
    folder = str(_folder(database))
    known = connection.execute(f"select folder from raw.{_BASE}").fetchone()
    if known == (folder,):
        return
    if known:
        for table in BY_DAY:
            create_view(connection, table, database)
    connection.execute(f"delete from raw.{_BASE}")
    connection.execute(f"insert into raw.{_BASE} values (?)", [folder])


def replace_days(
    connection: "duckdb.DuckDBPyConnection",
    table: str,
    files_by_day: Mapping[str, Sequence[str]],
    rows: Mapping[str, int],
    fingerprints: Mapping[str, str],
    database: Path,
    in_place_rows: int,
) -> list[Statement]:
    """Let the days' files be their rows, inside the caller's transaction; return what was done.

    ``rows`` says how many each day's files hold. A day of one file of at least ``in_place_rows`` is read where it
    landed; many small files would have to be opened one by one.
    """
    days = sorted(files_by_day)
    in_place = {day for day in days if len(files_by_day[day]) == 1 and rows[day] >= in_place_rows}
    columns, copied = ", ".join(RAW_COLUMNS[table]), _COPIED.format(table)
    deleted = 0
    for first_ms, end_ms in day_ranges_ms(files_by_day):
        condition = f"{TIME} >= {first_ms} and {TIME} < {end_ms}"
        deleted += connection.execute(f"delete from raw.{copied} where {condition}").fetchone()[0]
    theirs = "name = ? and list_contains(?, day)"
    counted = f"select coalesce(sum(row_count), 0) from raw.{LOADED} where file is not null and {theirs}"
    deleted += connection.execute(counted, [table, days]).fetchone()[0]
    for start in range(0, len(days), DAYS_AT_A_TIME):
        together = days[start : start + DAYS_AT_A_TIME]
        for day in in_place.intersection(together):  # that it has the columns is seen here, not by the first reader
            execute_on_files(connection, f"select {columns} from {PARQUET} limit 0", files_by_day[day])
        files = [file for day in together if day not in in_place for file in files_by_day[day]]
        if files:  # several at once: a day's file alone keeps one thread busy
            execute_on_files(connection, f"insert into raw.{copied} ({columns}) select {columns} from {PARQUET}", files)
        done = start + len(together)
        logger.info("raw.%s: %s to %s (%d of %d days)", table, together[0], together[-1], done, len(days))
    connection.execute(f"delete from raw.{LOADED} where {theirs}", [table, days])
    files_in_place = {day: _relative(files_by_day[day][0], database) for day in in_place}
    entries = [[table, day, fingerprints.get(day, ""), files_in_place.get(day), rows[day]] for day in days]
    if entries:
        connection.executemany(f"insert into raw.{LOADED} values (?, ?, ?, ?, ?)", entries)
    create_view(connection, table, database)
    inserted = sum(rows[day] for day in days if day not in in_place)
    told = [Statement(f"delete from raw.{table}", deleted), Statement(f"insert into raw.{table}", inserted)]
    if in_place:
        told.append(
            Statement(f"create view raw.{table}: landed files of {len(in_place)} days", sum(rows.values()) - inserted)
        )
    return told


def create_view(connection: "duckdb.DuckDBPyConnection", table: str, database: Path) -> None:
    """Put the view over the copied rows and the files that are read in place."""
    found = connection.execute(
        f"select file from raw.{LOADED} where name = ? and file is not null order by day", [table]
    ).fetchall()
    query = f"select {', '.join(RAW_COLUMNS[table])} from raw.{_COPIED.format(table)}"
    if found:
        files = ", ".join(literal(os.path.normpath(_folder(database) / file)) for (file,) in found)
        typed = ", ".join(f"cast({name} as {kind}) as {name}" for name, kind in RAW_COLUMNS[table].items())
        query += f" union all select {typed} from read_parquet([{files}], hive_partitioning = false)"
    connection.execute(f"create or replace view raw.{table} as {query}")


def _kind(connection: "duckdb.DuckDBPyConnection", name: str) -> str | None:
    """Return ``BASE TABLE``, ``VIEW``, or None where there is nothing of that name in the raw schema."""
    found = connection.execute(
        "select table_type from information_schema.tables where table_schema = 'raw' and table_name = ?", [name]
    ).fetchone()
    return found[0] if found else None


def _typed(table: str) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in RAW_COLUMNS[table].items())


def _folder(database: Path) -> Path:
    return database.absolute().parent


def _relative(file: str, database: Path) -> str:
    return os.path.relpath(Path(file).absolute(), _folder(database))


def literal(value: object) -> str:
    """Return a value as text in SQL, where no parameter can stand."""
    return "'" + str(value).replace("'", "''") + "'"
