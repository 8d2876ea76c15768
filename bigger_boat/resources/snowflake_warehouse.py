"""The warehouse on Snowflake, by dagster-snowflake's resource. What it does is said by ``warehouse.py``.

Landed files go through a temporary internal stage, one file per day in which lists are JSON text, and ``COPY INTO``.
What belongs elsewhere: the login (``snowflake_login.py``), types (``snowflake_arrow.py``), set-up (docs/snowflake.md).
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pydantic import Field

from bigger_boat.data.event_rules import TIME
from bigger_boat.errors import WarehouseError
from bigger_boat.resources.landed_files import PARQUET, execute_on_files, refuse_rows_of_other_days
from bigger_boat.resources.snowflake_arrow import batches, schema_of
from bigger_boat.resources.snowflake_login import key_pair, query_tag
from bigger_boat.resources.warehouse import (
    DAY_MS,
    LOADED,
    RAW_COLUMNS,
    Statement,
    Warehouse,
    day_ranges_ms,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from dagster_snowflake import SnowflakeResource
    from snowflake.connector import SnowflakeConnection
    from snowflake.connector.cursor import SnowflakeCursor

RAW_SCHEMA = "raw"
TYPES = {"varchar": "varchar", "bigint": "number(38, 0)", "integer": "number(38, 0)"}
DAYS_PER_STATEMENT = 500
LONGEST_REASON = 300
NOT_THERE = (2003, 2043)
"""Snowflake's error numbers for a table that does not exist, or that the role may not see."""


class SnowflakeWarehouse(Warehouse):
    """A Snowflake database of its own: raw tables in schema RAW, dbt's models in ``marts_schema``."""

    account: str = Field(description="Account identifier, ORGANISATION-ACCOUNT.")
    user: str = Field(description="The user; it logs in with the key of the settings.")
    private_key_path: str = Field("", description="Another file with its private key than the settings'.")
    role: str = Field("", description="Its role; default: the user's own.")
    compute: str = Field(description="The virtual warehouse.")
    compute_size: str = Field("", description="The virtual warehouse's size, set before a run; default: left alone.")
    database: str = Field(description="The database.")
    marts_schema: str = Field("MARTS", description="The schema of dbt's models.")
    statement_timeout_s: int = Field(3600, description="Longest time for a statement.")
    login_timeout_s: int = Field(60, description="How long a login is tried again while the service does not answer.")
    network_timeout_s: int = Field(600, description="How long a request is tried again while the service fails.")
    tag: str = Field("bigger_boat", description="Names this graph in the query history.")
    host: str = Field("", description="Another host than the account's own.")
    port: int = Field(443, description="Its port.")
    protocol: str = Field("https", description="Its protocol.")

    def prepare(self) -> None:
        with self._connect() as connection:
            _create_raw_tables(connection.cursor())
            if self.compute_size:
                connection.cursor().execute(
                    f"alter warehouse {self.compute} set warehouse_size = '{self.compute_size}'"
                )

    def load_days(
        self,
        table: str,
        files_by_day: Mapping[str, Sequence[str]],
        fingerprints: Mapping[str, str] | None = None,
        statements: list[Statement] | None = None,
    ) -> dict[str, int]:
        told = [] if statements is None else statements
        with TemporaryDirectory(prefix="bigger-boat-stage-") as folder:
            staged = _write_days(Path(folder), table, files_by_day)
            with self._connect(autocommit=False) as connection:
                cursor = connection.cursor()
                _create_raw_tables(cursor)
                stage = _put(cursor, Path(folder)) if staged else ""
                for span in day_ranges_ms(files_by_day):
                    delete = f"delete from {RAW_SCHEMA}.{table} where {TIME} >= ? and {TIME} < ?"
                    told.append(_run(cursor, delete, span))
                if staged:
                    told.append(_copy(cursor, table, stage, staged))
                _record(cursor, table, {day: (fingerprints or {}).get(day, "") for day in sorted(files_by_day)})
                connection.commit()
        return {day: staged.get(day, 0) for day in sorted(files_by_day)}

    def loaded_fingerprints(self) -> dict[tuple[str, str], str]:
        with self._connect() as connection:
            cursor = connection.cursor()
            _create_raw_tables(cursor)
            rows = cursor.execute(f"select name, day, fingerprint from {RAW_SCHEMA}.{LOADED}").fetchall()
        return {(name, day): fingerprint for name, day, fingerprint in rows}

    def load_catalog(self, files: Sequence[str], statements: list[Statement] | None = None) -> int:
        told = [] if statements is None else statements
        with TemporaryDirectory(prefix="bigger-boat-stage-") as folder:
            staged = _write_catalog(Path(folder), files)
            with self._connect(autocommit=False) as connection:
                cursor = connection.cursor()
                _create_raw_tables(cursor)
                stage = _put(cursor, Path(folder)) if staged else ""
                told.append(_run(cursor, f"delete from {RAW_SCHEMA}.sku_to_content"))
                if staged:
                    told.append(_copy(cursor, "sku_to_content", stage, staged))
                connection.commit()
        return sum(staged.values())

    @contextmanager
    def read(self, sql: str, params: Sequence[object] = ()) -> Iterator["pa.RecordBatchReader"]:
        """The connection is held until the block ends; chunks are fetched as they are read."""
        import pyarrow as pa

        with self._connect() as connection:
            cursor = connection.cursor()
            cursor.execute(sql, list(params) or None)
            schema = schema_of(cursor.description)
            chunks = cursor.fetch_arrow_batches() if cursor.rowcount else iter(())
            yield pa.RecordBatchReader.from_batches(schema, batches(chunks, schema))

    def try_grants(self) -> str:
        """Make each kind of thing that loading and dbt make, empty, and drop it again; return what in words.

        Raises WarehouseError with what Snowflake refuses.
        """
        self.prepare()
        raw, marts = (f"{schema}.doctor_{secrets.token_hex(8)}" for schema in (RAW_SCHEMA, self.marts_schema))
        tries = (
            ("transient table", raw, "(a integer)"),
            ("temporary stage", f"{raw}_stage", ""),
            ("transient table", marts, "(a integer)"),
            ("view", f"{marts}_view", "as select 1 as a"),
        )
        with self._connect() as connection:
            for kind, name, content in tries:
                connection.cursor().execute(f"create {kind} {name} {content}")
                if not kind.startswith("temporary"):  # that goes with the session
                    connection.cursor().execute(f"drop {kind.rpartition(' ')[2]} {name}")
        return f"it answers, and lets tables be made in {RAW_SCHEMA.upper()} and {self.marts_schema}"

    def dbt_environment(self) -> dict[str, str]:
        return {
            "DBT_SNOWFLAKE_ACCOUNT": self.account,
            "DBT_SNOWFLAKE_USER": self.user,
            "DBT_SNOWFLAKE_ROLE": self.role,
            "DBT_SNOWFLAKE_WAREHOUSE": self.compute,
            "DBT_SNOWFLAKE_DATABASE": self.database,
            "DBT_SNOWFLAKE_SCHEMA": self.marts_schema,
            "DBT_SNOWFLAKE_STATEMENT_TIMEOUT_S": str(self.statement_timeout_s),
            "DBT_SNOWFLAKE_HOST": self.host,
            "DBT_SNOWFLAKE_PORT": str(self.port),
            "DBT_SNOWFLAKE_PROTOCOL": self.protocol,
        }

    def _resource(self, autocommit: bool) -> "SnowflakeResource":
        from dagster_snowflake import SnowflakeResource

        key = key_pair(self.private_key_path)
        address = {"host": self.host, "port": self.port, "protocol": self.protocol} if self.host else {}
        session = {
            "QUERY_TAG": query_tag(self.tag),
            "STATEMENT_TIMEOUT_IN_SECONDS": self.statement_timeout_s,
            "TIMEZONE": "UTC",
        }
        return SnowflakeResource(
            account=self.account,
            user=self.user,
            private_key=key.pem,
            private_key_password=key.passphrase,
            role=self.role or None,
            warehouse=self.compute,
            database=self.database,
            schema=self.marts_schema,
            autocommit=autocommit,
            paramstyle="qmark",
            login_timeout=self.login_timeout_s,
            network_timeout=self.network_timeout_s,
            additional_snowflake_connection_args={**address, "session_parameters": session},
        )

    @contextmanager
    def _connect(self, autocommit: bool = True) -> Iterator["SnowflakeConnection"]:
        """Log in; what is not committed when the block fails is rolled back. Raises WarehouseError in words."""
        from snowflake.connector import errors

        resource = self._resource(autocommit)
        try:
            with resource.get_connection() as connection:
                try:
                    yield connection
                except BaseException:  # the resource itself closes only after success
                    with suppress(errors.Error):
                        connection.rollback()
                    connection.close()
                    raise
        except errors.Error as error:
            raise self._in_words(error) from error

    def _in_words(self, error: Any) -> WarehouseError:
        reason = " ".join(str(error.msg or error).split())[:LONGEST_REASON].rstrip(".")
        if error.errno in NOT_THERE:
            return WarehouseError(
                f"Snowflake cannot answer: {reason}.",
                "Materialize the raw and warehouse assets first: bigger-boat run --select '*sessions'. If they are"
                " there, the role may not read them: docs/snowflake.md has the grants.",
            )
        return WarehouseError(
            f"Snowflake ({self.account}, user {self.user}) refused: {reason}.",
            "See docs/snowflake.md for the user, its key and its grants; the query history has the statement.",
        )


def _create_raw_tables(cursor: "SnowflakeCursor") -> None:
    """Create what is missing; a role that may not create schemas is not asked to where it is there."""
    found = cursor.execute(
        "select s.schema_name, t.table_name from information_schema.schemata s"
        " left join information_schema.tables t"
        " on t.table_catalog = s.catalog_name and t.table_schema = s.schema_name"
        " where s.catalog_name = current_database() and s.schema_name = ?",
        [RAW_SCHEMA.upper()],
    ).fetchall()
    if not found:
        cursor.execute(f"create schema if not exists {RAW_SCHEMA}")
    missing = {*RAW_COLUMNS, LOADED} - {str(table).lower() for _, table in found}
    for table in sorted(missing - {LOADED}):
        columns = RAW_COLUMNS[table]
        typed = ", ".join(f"{name} {TYPES.get(kind, 'array')}" for name, kind in columns.items())
        extra = ", file_number number(38, 0)" if table == "sku_to_content" else ""
        # files of a day lie together: a day is read and replaced without touching the others
        clustered = f" cluster by (floor({TIME} / {DAY_MS}))" if TIME in columns else ""
        cursor.execute(f"create transient table if not exists {RAW_SCHEMA}.{table} ({typed}{extra}){clustered}")
    if LOADED in missing:
        loaded = "(name varchar, day varchar, fingerprint varchar)"
        cursor.execute(f"create transient table if not exists {RAW_SCHEMA}.{LOADED} {loaded}")


def _write_days(folder: Path, table: str, files_by_day: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Write one file per day with rows, lists as JSON text; return the rows of each. Nothing is uploaded yet."""
    import duckdb

    columns = ", ".join(_as_text(name, kind) for name, kind in RAW_COLUMNS[table].items())
    rows: dict[str, int] = {}
    with duckdb.connect() as connection:
        for day, names in sorted(files_by_day.items()):
            if files := [str(name) for name in names]:
                refuse_rows_of_other_days(connection, table, day, files)
                rows[day] = _write(connection, f"select {columns} from {PARQUET}", files, folder / f"{day}.parquet")
    return rows


def _write_catalog(folder: Path, files: Sequence[str]) -> dict[str, int]:
    """Write the catalog's files, each with its number; return the rows of each."""
    import duckdb

    columns = ", ".join(_as_text(name, kind) for name, kind in RAW_COLUMNS["sku_to_content"].items())
    rows: dict[str, int] = {}
    with duckdb.connect() as connection:
        for number, file in enumerate(files):
            query = f"select {columns}, {number} as file_number from {PARQUET}"
            rows[f"{number:06}"] = _write(connection, query, [str(file)], folder / f"{number:06}.parquet")
    return rows


def _as_text(name: str, kind: str) -> str:
    return (
        f"case when {name} is not null then cast(to_json({name}) as varchar) end as {name}" if _is_list(kind) else name
    )


def _is_list(kind: str) -> bool:
    return kind.endswith("[]")


def _write(connection: Any, query: str, files: Sequence[str], path: Path) -> int:
    return execute_on_files(connection, f"copy ({query}) to '{path}' (format parquet)", files).fetchone()[0]


def _put(cursor: "SnowflakeCursor", folder: Path) -> str:
    """Upload the folder's files to a temporary stage of this session; return the stage's name."""
    stage = f"{RAW_SCHEMA}.load_{secrets.token_hex(8)}"
    cursor.execute(f"create temporary stage {stage}")
    cursor.execute(f"put 'file://{folder}/*.parquet' @{stage} auto_compress = false")
    return stage


def _copy(cursor: "SnowflakeCursor", table: str, stage: str, staged: Mapping[str, int]) -> Statement:
    """Load a stage's files. Raises WarehouseError unless each file's rows have all been loaded."""
    kinds = {**RAW_COLUMNS[table], **({"file_number": "integer"} if table == "sku_to_content" else {})}
    values = ", ".join(
        f"parse_json($1:{name}::varchar)::array" if _is_list(kind) else f"$1:{name}::{TYPES[kind]}"
        for name, kind in kinds.items()
    )
    cursor.execute(
        f"copy into {RAW_SCHEMA}.{table} ({', '.join(kinds)}) from (select {values} from @{stage})"
        " FILE_FORMAT = (TYPE = 'PARQUET') FORCE = TRUE"
    )
    names = [column.name.lower() for column in cursor.description]
    report = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    loaded = {Path(str(row["file"])).stem: int(row["rows_loaded"]) for row in report}
    if loaded != dict(staged):
        wrong = sorted(name for name in {*loaded, *staged} if loaded.get(name) != staged.get(name))
        raise WarehouseError(
            f"Snowflake loaded other rows than were sent into raw.{table}, for {', '.join(wrong[:5])}.",
            "Nothing was changed. Look at the COPY in the query history, and run this again.",
        )
    return Statement(f"copy into raw.{table}", sum(loaded.values()), str(cursor.sfqid or ""))


def _record(cursor: "SnowflakeCursor", table: str, fingerprints: Mapping[str, str]) -> None:
    """Write which content each day was loaded from, in the transaction of its rows."""
    days = list(fingerprints)
    for start in range(0, len(days), DAYS_PER_STATEMENT):
        some = days[start : start + DAYS_PER_STATEMENT]
        marks = ", ".join("?" * len(some))
        cursor.execute(f"delete from {RAW_SCHEMA}.{LOADED} where name = ? and day in ({marks})", [table, *some])
        rows = ", ".join(["(?, ?, ?)"] * len(some))
        values = [value for day in some for value in (table, day, fingerprints[day])]
        cursor.execute(f"insert into {RAW_SCHEMA}.{LOADED} (name, day, fingerprint) values {rows}", values)


def _run(cursor: "SnowflakeCursor", sql: str, params: Sequence[object] = ()) -> Statement:
    cursor.execute(sql, list(params) or None)
    return Statement(sql.split(" where ")[0], int(cursor.rowcount or 0), str(cursor.sfqid or ""))
