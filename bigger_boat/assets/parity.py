"""Both warehouses, the same rows: after a run on Snowflake, its last day is made on DuckDB, too, and compared.

Part of the graph where the warehouse is Snowflake. What belongs elsewhere: comparing (``data/parity.py``).
"""

from collections.abc import Iterator

import dagster as dg
from dagster import AssetKey

from bigger_boat.assets.common import readable_failures
from bigger_boat.assets.verdicts import run_range
from bigger_boat.assets.warehouse import DAY_COLUMNS, all_days
from bigger_boat.data.parity import Comparison, compare_tables
from bigger_boat.resources.landing_zone import LandingZone
from bigger_boat.resources.twin import DuckDBTwin
from bigger_boat.resources.warehouse import WAREHOUSE_POOL, Warehouse

SAME = "same_on_both_warehouses"
KEYS = {
    "distinct_events": ("session_id", "timestamp_ms", "action", "sku", "url"),
    "session_stats": ("session_id", "event_date"),
    "sessions": ("session_id", "session_date"),
    "cart_sessions": ("session_id", "session_date"),
    "products": ("sku",),
}
"""What names a row of each table."""


class ParityConfig(dg.Config):
    """Which day; without one, the run's last, else the last there is."""

    day: str = ""


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(
            SAME,
            asset=AssetKey(table),
            description="A day made by DuckDB from the same landed files has the same rows.",
        )
        for table in KEYS
    ],
    can_subset=True,
    pool=WAREHOUSE_POOL,
)
def parity_checks(
    context: dg.AssetCheckExecutionContext,
    config: ParityConfig,
    landing_zone: LandingZone,
    warehouse: Warehouse,
    twin: DuckDBTwin,
) -> Iterator[dg.AssetCheckResult]:
    """Compare one day row by row and column by column; of the products, all."""
    wanted = {key.asset_key.path[-1] for key in context.selected_asset_check_keys}
    with readable_failures():
        by_day = wanted & set(DAY_COLUMNS)
        day = (config.day or (run_range(context.run.tags) or all_days(warehouse))[1]) if by_day else ""
        with twin.build(landing_zone, day, catalog=wanted > by_day) as other:
            results = [
                _result(table, day, compare_day(table, day, warehouse, other)) for table in KEYS if table in wanted
            ]
    yield from results


def compare_day(table: str, day: str, warehouse: Warehouse, other: Warehouse) -> Comparison:
    """Compare a day of a table on two warehouses; a table that is not by day as a whole."""
    import polars as pl

    where = f" where {DAY_COLUMNS[table]} = date '{day}'" if table in DAY_COLUMNS else ""
    frames = []
    for each in (warehouse, other):
        with each.read(f"select * from {table}{where}") as reader:
            frames.append(pl.DataFrame(pl.from_arrow(reader.read_all())))
    return compare_tables(frames[0], frames[1], KEYS[table])


def _result(table: str, day: str, found: Comparison) -> dg.AssetCheckResult:
    of = f"of {day}" if table in DAY_COLUMNS else "of the catalogue"
    same = f"{found.left_rows:,} rows {of} are the same on both warehouses."
    differ = f"{found.count:,} differences {of}: {found.left_rows:,} rows on Snowflake, {found.right_rows:,} on DuckDB."
    return dg.AssetCheckResult(
        asset_key=AssetKey(table),
        check_name=SAME,
        passed=found.same,
        description=same if found.same else differ,
        metadata={
            **({"day": day} if table in DAY_COLUMNS else {}),
            "rows": found.left_rows,
            "differences": found.count,
            "table": dg.MetadataValue.md(found.markdown("Snowflake", "DuckDB")),
        },
    )
