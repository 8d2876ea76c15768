"""The warehouse half of the graph on a small landed shop, run in this process on a real instance."""

import csv
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg

from bigger_boat.data.landing import land
from bigger_boat.resources.dbt import DbtInProcess
from bigger_boat.resources.dbt_manifest import PROJECT_DIR, ensure_manifest
from bigger_boat.resources.duckdb_warehouse import DuckDBWarehouse
from bigger_boat.resources.landing_zone import LandingZone

ensure_manifest()
from bigger_boat.assets import arrival, landing, raw, warehouse  # noqa: E402 (they read the manifest)

DAY_MS = 86_400_000
EPOCH = date(1970, 1, 1)
DAILY = [
    dg.AssetKey(key)
    for key in (
        ["raw", "browsing_train"],
        ["raw", "search_train"],
        ["stg_browsing"],
        ["stg_search"],
        ["distinct_events"],
        ["session_stats"],
        ["sessions"],
        ["cart_sessions"],
    )
]


def ms(day: str, second: int = 43_200) -> int:
    """Return the time of a second of a day in epoch milliseconds."""
    return (date.fromisoformat(day) - EPOCH).days * DAY_MS + second * 1000


class Graph:
    """A landing zone, a warehouse and an instance of their own."""

    def __init__(self, root: Path):
        self.root = root
        self.instance = dg.DagsterInstance.ephemeral(tempdir=str(root))
        self.warehouse = DuckDBWarehouse(path=str(root / "warehouse.duckdb"), threads=1)
        self.landing_zone = LandingZone(path=str(root / "landing"))
        resources = {
            "warehouse": self.warehouse,
            "landing_zone": self.landing_zone,
            "dbt": DbtInProcess(
                project_dir=str(PROJECT_DIR),
                state_dir=str(root / "dbt"),
                environment=self.warehouse.dbt_environment(),
            ),
        }
        self.definitions = dg.Definitions(
            assets=dg.load_assets_from_modules([landing, raw, warehouse]),
            asset_checks=dg.load_asset_checks_from_modules([warehouse, arrival]),
            resources=resources,
        )
        self.job = self.definitions.resolve_implicit_global_asset_job_def()

    def land(self, *events: tuple[str, int, str, str], replace: tuple[str, str] | None = None) -> None:
        """Land browsing events (session, ms, action, sku); a view has no sku."""
        source = self.root / "source"
        source.mkdir(parents=True, exist_ok=True)
        header = "session_id_hash,event_type,product_action,product_sku_hash,server_timestamp_epoch_ms,hashed_url"
        with (source / "browsing_train.csv").open("w", newline="") as file:
            file.write(header + "\n")
            csv.writer(file).writerows(
                [
                    session,
                    "pageview" if action == "view" else "event_product",
                    "" if action == "view" else action,
                    sku,
                    time,
                    "u" + sku,
                ]
                for session, time, action, sku in events
            )
        dates = tuple(date.fromisoformat(day) for day in replace) if replace else None
        land(source, self.landing_zone.root, replace=dates, now=datetime(2026, 11, 1, tzinfo=UTC))

    def run(self, first: str, last: str, keys: list[dg.AssetKey] | None = None) -> dg.ExecuteInProcessResult:
        """Materialize the daily tables for a range, in one run."""
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        return self.job.execute_in_process(
            instance=self.instance, tags=tags, asset_selection=keys or DAILY, raise_on_error=False
        )

    def materialization(self, key: dg.AssetKey, day: str) -> dg.AssetMaterialization:
        """Return the latest materialization of a day."""
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(key, asset_partitions=[day]), limit=1
        ).records
        return records[0].asset_materialization
