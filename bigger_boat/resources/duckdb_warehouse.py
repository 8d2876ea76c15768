"""The warehouse on DuckDB, and waiting for whoever holds its file. What it does is said by ``warehouse.py``."""

import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, PrivateAttr

from bigger_boat.errors import WarehouseError
from bigger_boat.resources.duckdb_raw import create_raw_tables, follow_the_folder, literal, replace_days
from bigger_boat.resources.landed_files import PARQUET, execute_on_files, refuse_rows_of_other_days
from bigger_boat.resources.warehouse import LOADED, RAW_COLUMNS, Statement, Warehouse

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

DATABASE_FILE = "warehouse.duckdb"
"""DuckDB calls a database after its file, and dbt's manifest names the database: the file's name is fixed."""

ROWS_PER_BATCH = 65_536

logger = logging.getLogger(__name__)


class DuckDBWarehouse(Warehouse):
    """One DuckDB file. One process has it at a time: a second one waits, then says who holds it."""

    path: str = Field(description=f"The database file; its name is {DATABASE_FILE}.")
    memory_limit: str = Field("2GB", description="What DuckDB may use before it spills to the temporary directory.")
    threads: int = Field(2, description="Threads of one query.")
    temp_directory: str = Field("", description="Where DuckDB spills; beside the database file by default.")
    in_place_rows: int = Field(5_000, description="From how many rows on a day of one file is read where it landed.")
    lock_timeout_s: float = Field(300.0, description="How long to wait for another process that holds the file.")

    _held: "duckdb.DuckDBPyConnection | None" = PrivateAttr(default=None)

    @contextmanager
    def connect(self) -> Iterator["duckdb.DuckDBPyConnection"]:
        """Open the database for writing, with the raw tables in it. Raises WarehouseError if that cannot be."""
        connection = self._open()
        try:
            create_raw_tables(connection, Path(self.path))
            yield connection
        finally:
            connection.close()

    def prepare(self) -> None:
        with self.connect():
            pass

    @contextmanager
    def held(self) -> Iterator[None]:
        """The file stays open here: nobody can take it before dbt, which then shares it, opens it too."""
        self._held = self._open(_DBT_CONFIG)
        try:
            create_raw_tables(self._held, Path(self.path))
            yield
        finally:
            connection, self._held = self._held, None
            connection.close()

    def load_days(
        self,
        table: str,
        files_by_day: Mapping[str, Sequence[str]],
        fingerprints: Mapping[str, str] | None = None,
        statements: list[Statement] | None = None,
    ) -> dict[str, int]:
        with self.connect() as connection, _transaction(connection):
            rows = {
                day: refuse_rows_of_other_days(connection, table, day, files_by_day[day]) if files_by_day[day] else 0
                for day in sorted(files_by_day)
            }
            told = replace_days(
                connection, table, files_by_day, rows, fingerprints or {}, Path(self.path), self.in_place_rows
            )
        if statements is not None:
            statements += told
        return rows

    def loaded_fingerprints(self) -> dict[tuple[str, str], str]:
        with self.connect() as connection:
            rows = connection.execute(f"select name, day, fingerprint from raw.{LOADED}").fetchall()
        return {(name, day): fingerprint for name, day, fingerprint in rows}

    def load_catalog(self, files: Sequence[str], statements: list[Statement] | None = None) -> int:
        columns = ", ".join(RAW_COLUMNS["sku_to_content"])
        rows = 0
        with self.connect() as connection, _transaction(connection):
            deleted = connection.execute("delete from raw.sku_to_content").fetchone()[0]
            for number, file in enumerate(files):
                numbered = f"select {columns}, {number} from {PARQUET}"
                query = f"insert into raw.sku_to_content ({columns}, file_number) {numbered}"
                rows += execute_on_files(connection, query, [str(file)]).fetchone()[0]
        if statements is not None:
            statements += [
                Statement("delete from raw.sku_to_content", deleted),
                Statement("insert into raw.sku_to_content", rows),
            ]
        return rows

    @contextmanager
    def read(self, sql: str, params: Sequence[object] = ()) -> Iterator["pa.RecordBatchReader"]:
        """The file is held until the block ends."""
        connection = self._open()
        try:
            follow_the_folder(connection, Path(self.path))
            yield self._run(connection, sql, params).fetch_record_batch(ROWS_PER_BATCH)
        finally:
            connection.close()

    def purge(self) -> None:
        """Write the file anew and swap it in: DuckDB leaves deleted rows in blocks that other rows share."""
        path = Path(self.path)
        if not path.exists():
            return
        folder = path.with_name(f".{path.name}.purged")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        fresh = folder / path.name
        with self.connect() as connection:
            connection.execute(f"attach {literal(fresh)} as fresh")
            connection.execute(f"copy from database {path.stem} to fresh")
            connection.execute("detach fresh")
            os.replace(fresh, path)
        shutil.rmtree(folder)

    def dbt_environment(self) -> dict[str, str]:
        return {
            "DBT_DUCKDB_PATH": str(Path(self.path).absolute()),
            "DBT_DUCKDB_THREADS": str(self.threads),
            "DBT_DUCKDB_MEMORY_LIMIT": self.memory_limit,
            "DBT_DUCKDB_TEMP_DIRECTORY": self._temp_directory(),
        }

    def _temp_directory(self) -> str:
        return str(Path(self.temp_directory or f"{self.path}.tmp").absolute())

    def _run(
        self, connection: "duckdb.DuckDBPyConnection", sql: str, params: Sequence[object] = ()
    ) -> "duckdb.DuckDBPyConnection":
        import duckdb

        try:
            return connection.execute(sql, list(params))
        except duckdb.CatalogException as error:
            raise WarehouseError(
                f"The warehouse {self.path} cannot answer: {_first_line(error)}.",
                "Materialize the raw and warehouse assets first: bigger-boat run --select +cart_sessions.",
            ) from error
        except duckdb.IOException as error:
            raise WarehouseError(
                f"The warehouse {self.path} cannot be read: {_first_line(error)}.",
                "Large days are read from the landing zone. If a landed file is gone, land its source again with "
                "bigger-boat land --replace, then bigger-boat run.",
            ) from error

    def _open(self, config: Mapping[str, str] | None = None) -> "duckdb.DuckDBPyConnection":
        """Open the file, waiting for whoever has it. One configuration at a time per process: DuckDB's own rule."""
        import duckdb

        if self._held is not None:
            return self._held.cursor()
        if Path(self.path).name != DATABASE_FILE:
            raise WarehouseError(f"The warehouse file must be called {DATABASE_FILE}, not {Path(self.path).name}.")
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        deadline, told = time.monotonic() + self.lock_timeout_s, False
        while True:
            try:
                return duckdb.connect(self.path, config=dict(self._config() if config is None else config))
            except duckdb.IOException as error:
                holder = _lock_holder(error)
                if holder is None:
                    raise self._cannot_be_opened(error) from error
                if time.monotonic() >= deadline:
                    raise WarehouseError(
                        f"The warehouse {self.path} is in use by {holder}; waited {self.lock_timeout_s:.0f} s for it.",
                        "DuckDB has one writer: wait until that process ends, or end it, and run this again.",
                    ) from error
                if not told:
                    logger.warning(
                        "Waiting up to %.0f s for the warehouse: it is in use by %s.", self.lock_timeout_s, holder
                    )
                    told = True
                time.sleep(0.2)

    def _cannot_be_opened(self, error: Exception) -> WarehouseError:
        return WarehouseError(
            f"The warehouse {self.path} cannot be opened: {_first_line(error)}.",
            "Check disk and permissions. If the file is damaged, delete it and make all tables again: "
            "bigger-boat run --force --select 'group:raw or group:warehouse'.",
        )

    def _config(self) -> dict[str, str]:
        return {
            "memory_limit": self.memory_limit,
            "threads": str(self.threads),
            "temp_directory": self._temp_directory(),
            "preserve_insertion_order": "false",
            "disabled_compression_methods": "fsst",  # hashed ids: a tenth smaller, for a third more time to write
        }


_DBT_CONFIG: Mapping[str, str] = {}
"""What dbt connects with: it makes its settings afterwards."""


@contextmanager
def _transaction(connection: "duckdb.DuckDBPyConnection") -> Iterator[None]:
    connection.execute("begin transaction")
    try:
        yield
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute("commit")


def _lock_holder(error: Exception) -> str | None:
    """Return who holds the file (``python3.11 (PID 4711)``) from DuckDB's message; None if the error is another one."""
    text = str(error)
    if "Could not set lock" not in text and "Conflicting lock" not in text:
        return None
    holder = re.search(r"lock is held in (.+?) \(PID (\d+)\)", text)
    return f"{Path(holder[1]).name} (process {holder[2]})" if holder else "another process"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
