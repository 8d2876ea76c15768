"""The warehouse half of the graph on a stand-in for Snowflake or on DuckDB, over one landing zone."""

import csv
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import polars as pl

from bigger_boat.data.source_columns import BROWSING_COLUMNS, CATALOG_COLUMNS, SEARCH_COLUMNS
from bigger_boat.resources.dbt import DbtInProcess
from bigger_boat.resources.dbt_manifest import PROJECT_DIR, ensure_manifest
from bigger_boat.resources.duckdb_warehouse import DuckDBWarehouse
from bigger_boat.resources.landing_zone import LandingZone
from bigger_boat.resources.snowflake_warehouse import SnowflakeWarehouse
from bigger_boat.resources.storage import AddressIOManager, LocalStorage
from bigger_boat.resources.twin import DuckDBTwin
from bigger_boat.resources.warehouse import Warehouse

ensure_manifest()
from bigger_boat.assets import arrival, datasets, landing, parity, raw, warehouse  # noqa: E402 (they read the manifest)

DATABASE = "BIGGER_BOAT"
DAYS = ["2026-10-05", "2026-10-06", "2026-10-07"]
DAILY = [*(dg.AssetKey(["raw", name]) for name in ("browsing_train", "search_train"))] + [
    dg.AssetKey(name)
    for name in ("stg_browsing", "stg_search", "distinct_events", "session_stats", "sessions", "cart_sessions")
]
CATALOG = [dg.AssetKey(["raw", "sku_to_content"]), dg.AssetKey("stg_products"), dg.AssetKey("products")]
DATA_SETS = [dg.AssetKey("intent_dataset"), dg.AssetKey("recommendation_dataset")]
VECTOR = json.dumps([0.1, -1.5] * 25)
KEYS = parity.KEYS | {
    "stg_browsing": ("session_id", "timestamp_ms", "action", "sku", "url"),
    "stg_search": ("session_id", "timestamp_ms"),
    "stg_products": ("sku", "file_number"),
}
"""Everything that dbt makes, and what names a row of it."""


@dataclass(frozen=True)
class StandIn:
    """The server's port, and what it has been asked."""

    port: int
    record: Path

    def entries(self, kind: str) -> list:
        """Return the statements, or the logins, in their order."""
        lines = [json.loads(line) for line in self.record.read_text().splitlines()] if self.record.exists() else []
        return [line[kind] for line in lines if kind in line]

    def warehouse(self, database: str = DATABASE, **fields: object) -> SnowflakeWarehouse:
        """Return a warehouse in a database of its own (the first login creates it)."""
        where = {"host": "127.0.0.1", "port": self.port, "protocol": "http", "network_timeout_s": 20}
        who = {"account": "fakesnow", "user": "loader", "compute": "LOADING", "database": database}
        return SnowflakeWarehouse(**{**where, **who, **fields})


@contextmanager
def stand_in(folder: Path) -> Iterator[StandIn]:
    """Start the server in a process of its own; end it, by its id, at the end."""
    import socket

    for _ in range(5):  # another process may take the port between asking for a free one and listening on it
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        record = folder / f"record-{port}.jsonl"
        command = [sys.executable, str(Path(__file__).parent / "stand_in.py"), str(port), str(record)]
        with (folder / "server.log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONWARNINGS": "ignore"})
        try:
            if _is_up(process, port):
                yield StandIn(port, record)
                return
        finally:
            process.terminate()
            process.wait(30)
    raise AssertionError((folder / "server.log").read_text())


def _is_up(process: subprocess.Popen, port: int) -> bool:
    import httpx

    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/", timeout=5).status_code == 404
        except httpx.HTTPError:
            time.sleep(0.2)
    return False


class Graph:
    """A warehouse over a landing zone, with an instance and storage of its own."""

    def __init__(self, root: Path, landing_root: Path, on: Warehouse):
        root.mkdir(parents=True, exist_ok=True)
        self.warehouse = on
        self.storage = LocalStorage(base_dir=str(root))
        self.instance = dg.DagsterInstance.ephemeral(tempdir=str(root))
        target = "snowflake" if isinstance(on, SnowflakeWarehouse) else "duckdb"
        dbt = DbtInProcess(
            project_dir=str(PROJECT_DIR),
            state_dir=str(root / "dbt"),
            target=target,
            environment=on.dbt_environment(),
            query_tag="tests",
        )
        checks = [warehouse, arrival, datasets, *([parity] if target == "snowflake" else [])]
        self.definitions = dg.Definitions(
            assets=dg.load_assets_from_modules([landing, raw, warehouse, datasets]),
            asset_checks=dg.load_asset_checks_from_modules(checks),
            resources={
                "warehouse": on,
                "landing_zone": LandingZone(path=str(landing_root)),
                "dbt": dbt,
                "storage": self.storage,
                "address_io_manager": AddressIOManager(base_dir=str(root / "addresses")),
                "twin": DuckDBTwin(project_dir=str(PROJECT_DIR)),
            },
        )
        self.job = self.definitions.resolve_implicit_global_asset_job_def()

    def run(
        self, keys: list[dg.AssetKey], first: str = "", last: str = "", more_checks: bool = True
    ) -> dg.ExecuteInProcessResult:
        """Materialize assets, for a range of days if there is one. Their steps' own checks run, others if wanted."""
        days = {"start": first, "end": last} if first else {}
        tags = {f"dagster/asset_partition_range_{name}": day for name, day in days.items()}
        own = {check for made in self.definitions.assets if made.keys & set(keys) for check in made.check_keys}
        job = self.job.get_subset(asset_selection=set(keys), asset_check_selection=None if more_checks else own)
        return job.execute_in_process(instance=self.instance, tags=tags, raise_on_error=False)

    def check(self, name: str, tables: tuple[str, ...], config: dict | None = None) -> dg.ExecuteInProcessResult:
        """Run one check on some tables, alone."""
        keys = {dg.AssetCheckKey(dg.AssetKey(table), name) for table in tables}
        job = self.job.get_subset(asset_selection=set(), asset_check_selection=keys)
        return job.execute_in_process(instance=self.instance, run_config=config or {}, raise_on_error=False)

    def tables(self) -> dict[str, pl.DataFrame]:
        """Return every table and view that dbt makes, in no order."""
        found = {}
        for name in KEYS:
            with self.warehouse.read(f"select * from {name}") as reader:
                found[name] = pl.DataFrame(pl.from_arrow(reader.read_all()))
        return found

    def dataset(self, key: dg.AssetKey) -> Path:
        """Return the folder of the data set's last version."""
        address = json.loads((Path(self.storage.base_dir) / "addresses" / f"{key.path[-1]}.json").read_text())
        return self.storage.fetch(address["address"])

    def materialization(self, key: dg.AssetKey, day: str) -> dg.AssetMaterialization:
        """Return the latest materialization of a day."""
        wanted = dg.AssetRecordsFilter(key, asset_partitions=[day])
        return self.instance.fetch_materializations(wanted, limit=1).records[0].asset_materialization


def duckdb_graph(root: Path, landing_root: Path) -> Graph:
    """Return the same graph on DuckDB."""
    return Graph(root, landing_root, DuckDBWarehouse(path=str(root / "warehouse.duckdb"), threads=1))


def failures(result: dg.ExecuteInProcessResult) -> str:
    """Return what failed, in words."""
    ended = [event.event_specific_data for event in result.all_events if event.is_step_failure]
    return "\n".join(
        str(data.user_failure_data.description if data.user_failure_data else data.error) for data in ended
    )


def new_key(size: int = 2048, passphrase: str = "") -> str:
    """Return a new private key in PEM form."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    lock = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    key = rsa.generate_private_key(public_exponent=65537, key_size=size)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock).decode()


def write_shop(folder: Path, days: list[str], sessions_a_day: int, seed: int = 1) -> Path:
    """Write a shop's three files: carts and purchases on every day, searches with clicks, sessions over midnight."""
    from datetime import date

    rng = random.Random(seed)
    folder.mkdir(parents=True)
    browsing, search, end = [], [], 86_400_000
    for day in days:
        midnight = (date.fromisoformat(day) - date(1970, 1, 1)).days * end
        for number in range(sessions_a_day):
            session = f"{day}-{number}"
            time_ms = midnight + (end - 60_000 if number == 0 and day != days[-1] else rng.randrange(end - 3_600_000))
            for place in range(rng.randrange(4, 9)):
                sku, url = f"p{rng.randrange(12)}", f"u{rng.randrange(20)}"
                # four carts a day, of which every other one is bought
                story = ["detail", "add", "detail", "purchase" if number % 2 else "remove"] if number < 4 else []
                action = story[place] if place < len(story) else ""
                if rng.random() < 0.2:
                    clicked = f"['{sku}', 'p0']" if rng.random() < 0.7 else ""
                    search.append([session, VECTOR, clicked, "['p0', 'p1']", time_ms])
                row = [session, "event_product" if action else "pageview", action, sku if action else "", time_ms, url]
                browsing += [row, row] if rng.random() < 0.1 else [row]
                time_ms += rng.randrange(0, 30_000, 7)
    products = [
        [f"p{number}", VECTOR if number % 3 else "", "a/b" if number % 2 else "", "", number or ""]
        for number in range(12)
    ]
    for name, columns, rows in (
        ("browsing_train", BROWSING_COLUMNS, browsing),
        ("search_train", SEARCH_COLUMNS, search),
        ("sku_to_content", CATALOG_COLUMNS, products),
    ):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
    return folder
