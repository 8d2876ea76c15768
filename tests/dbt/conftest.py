"""A warehouse per test, and dbt in this process on the parsed project."""

import json
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigger_boat.resources.dbt import DbtInProcess, InProcessInvocation
from bigger_boat.resources.dbt_manifest import PROJECT_DIR, ensure_manifest
from bigger_boat.resources.duckdb_warehouse import DuckDBWarehouse

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode does not
from session_oracle import Event

EPOCH = date(1970, 1, 1)
RAW = ("browsing_train", "search_train")
VIEWS = ("stg_browsing", "stg_search")
TABLES = ("distinct_events", "session_stats", "sessions", "cart_sessions")

BROWSING = pa.schema(
    [
        ("session_id_hash", pa.string()),
        ("event_type", pa.string()),
        ("product_action", pa.string()),
        ("product_sku_hash", pa.string()),
        ("server_timestamp_epoch_ms", pa.int64()),
        ("hashed_url", pa.string()),
        ("event_id", pa.string()),
        ("request_id", pa.string()),
    ]
)
SEARCH = pa.schema(
    [
        ("session_id_hash", pa.string()),
        ("query_vector", pa.list_(pa.float32())),
        ("clicked_skus_hash", pa.list_(pa.string())),
        ("product_skus_hash", pa.list_(pa.string())),
        ("server_timestamp_epoch_ms", pa.int64()),
        ("event_id", pa.string()),
        ("request_id", pa.string()),
    ]
)


class Shop:
    """A small warehouse: replace the events of a day, build days, look at tables."""

    def __init__(self, root: Path, memory_limit: str = "1GB", project_dir: Path = PROJECT_DIR):
        self.root = root
        self.project_dir = project_dir
        self.warehouse = DuckDBWarehouse(  # small days are copied, larger ones read where they landed
            path=str(root / "warehouse.duckdb"), memory_limit=memory_limit, threads=1, in_place_rows=4
        )
        self.dbt = DbtInProcess(
            project_dir=str(project_dir), state_dir=str(root / "dbt"), environment=self.warehouse.dbt_environment()
        )
        self.files = 0

    def load(self, events_by_day: dict[int, list[Event]]) -> None:
        """Replace these days' raw rows."""
        browsing = {_iso(day): self._browsing_file(events) for day, events in events_by_day.items()}
        search = {_iso(day): self._search_file(events) for day, events in events_by_day.items()}
        self.warehouse.load_days("browsing_train", browsing)
        self.warehouse.load_days("search_train", search)

    def build(self, first: int | None = None, last: int | None = None, **variables: object) -> InProcessInvocation:
        """Run ``dbt build`` with data tests; days are day numbers, none means everything."""
        if first is not None:
            variables |= {"first_day": _iso(first), "last_day": _iso(last if last is not None else first)}
        return self._dbt("build", "--exclude-resource-type", "unit_test", "--vars", json.dumps(variables))

    def run(
        self, first: int | None = None, last: int | None = None, views: bool = False, **variables: object
    ) -> InProcessInvocation:
        """Run only the tables by day, without tests, and without their views unless asked; no days: everything."""
        if first is not None:
            variables |= {"first_day": _iso(first), "last_day": _iso(last if last is not None else first)}
        return self._dbt("run", "--select", *(VIEWS if views else ()), *TABLES, "--vars", json.dumps(variables))

    def _dbt(self, *command: str) -> InProcessInvocation:
        manifest = json.loads(ensure_manifest(self.project_dir).read_bytes())
        invocation = self.dbt.cli(list(command), manifest=manifest)
        list(invocation.stream())
        return invocation

    def clear(self) -> None:
        """Empty every table, as before anything had landed."""
        loaded = {
            table: {day: [] for name, day in self.warehouse.loaded_fingerprints() if name == table} for table in RAW
        }
        for table, days in loaded.items():
            self.warehouse.load_days(table, days)
        with self.warehouse.connect() as connection:
            for table in TABLES:
                connection.execute(f"delete from {table}")

    def table(self, name: str, columns: str = "*") -> list[dict]:
        """Return all rows, in a fixed order."""
        with self.warehouse.read(f"select {columns} from {name} order by all") as reader:
            return reader.read_all().to_pylist()

    def tables(self) -> dict[str, list[dict]]:
        """Return every table by day."""
        return {name: self.table(name) for name in TABLES}

    def _browsing_file(self, events: list[Event]) -> list[str]:
        rows = [
            {
                "session_id_hash": event.session,
                "event_type": "pageview" if event.action == "view" else "event_product",
                "product_action": None if event.action == "view" else event.action,
                "product_sku_hash": event.sku or None,
                "server_timestamp_epoch_ms": event.ms,
                "hashed_url": event.url or None,
            }
            for event in events
            if event.action not in ("search", "click")
        ]
        return self._write(rows, BROWSING)

    def _search_file(self, events: list[Event]) -> list[str]:
        """Clicks become the clicked list of the search of their time."""
        rows = [
            {
                "session_id_hash": event.session,
                "server_timestamp_epoch_ms": event.ms,
                "clicked_skus_hash": [
                    click.sku
                    for click in events
                    if click.action == "click" and (click.session, click.ms) == (event.session, event.ms)
                ]
                or None,
            }
            for event in events
            if event.action == "search"
        ]
        return self._write(rows, SEARCH)

    def _write(self, rows: list[dict], schema: pa.Schema) -> list[str]:
        if not rows:
            return []
        self.files += 1
        path = self.root / f"{self.files}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
        return [str(path)]


def _iso(day: int) -> str:
    return (EPOCH + timedelta(days=day)).isoformat()


@pytest.fixture(scope="session", autouse=True)
def _parsed_project() -> None:
    ensure_manifest()


@pytest.fixture(scope="session")
def new_shop(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Shop]:
    """Return a maker of empty warehouses."""
    return lambda **settings: Shop(tmp_path_factory.mktemp("shop"), **settings)
