"""Raw tables: the landing zone's current files in the warehouse, exactly as landed, replaced a day at a time.

What belongs elsewhere: what a row must look like (``data/``, before it lands), what rows mean (``dbt_project/``).
"""

from collections.abc import Iterator
from hashlib import sha256

import dagster as dg
from dagster import AssetKey

from bigger_boat.assets.common import DATA_OWNERS, readable_failures, table
from bigger_boat.assets.verdicts import DayVerdict, check_result
from bigger_boat.data.fingerprint import FINGERPRINT, catalog_fingerprint, landed_content, source_fingerprint
from bigger_boat.partitions import daily_partitions
from bigger_boat.resources.dbt_manifest import profile_target
from bigger_boat.resources.landing_zone import LandingZone
from bigger_boat.resources.warehouse import WAREHOUSE_POOL, Statement, Warehouse

ROWS_MATCH_LANDING = "rows_match_landing"
CONTENT = "content_fingerprint"
STATEMENTS = "statements"

BROWSING, SEARCH, CATALOG = (AssetKey(["raw", name]) for name in ("browsing_train", "search_train", "sku_to_content"))


def _matches_landing(key: AssetKey) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        ROWS_MATCH_LANDING,
        asset=key,
        blocking=True,
        description="Every day holds as many rows as its files in force in the landing zone.",
    )


@dg.asset(
    key=BROWSING,
    group_name="raw",
    owners=DATA_OWNERS,
    kinds={profile_target(), "parquet"},
    deps=["landing_browsing"],
    partitions_def=daily_partitions,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[_matches_landing(BROWSING)],
    pool=WAREHOUSE_POOL,
)
def browsing_train(
    context: dg.AssetExecutionContext, landing_zone: LandingZone, warehouse: Warehouse
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """One row per page view or product event as it was sent; exact duplicates included."""
    yield from _load_days(context, landing_zone, warehouse, "browsing")


@dg.asset(
    key=SEARCH,
    group_name="raw",
    owners=DATA_OWNERS,
    kinds={profile_target(), "parquet"},
    deps=["landing_search"],
    partitions_def=daily_partitions,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[_matches_landing(SEARCH)],
    pool=WAREHOUSE_POOL,
)
def search_train(
    context: dg.AssetExecutionContext, landing_zone: LandingZone, warehouse: Warehouse
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """One row per search as it was sent, with the products shown and clicked; exact duplicates included."""
    yield from _load_days(context, landing_zone, warehouse, "search")


@dg.asset(
    key=CATALOG,
    group_name="raw",
    owners=DATA_OWNERS,
    kinds={profile_target(), "parquet"},
    deps=["landing_catalog"],
    pool=WAREHOUSE_POOL,
)
def sku_to_content(landing_zone: LandingZone, warehouse: Warehouse) -> dg.MaterializeResult:
    """The catalog: category, price decile and vectors of each product, one row per product and file it came in."""
    with readable_failures():
        files = landing_zone.catalog_files()
        statements: list[Statement] = []
        rows = warehouse.load_catalog([str(file) for file in files], statements)
        fingerprint = catalog_fingerprint(landing_zone.index())
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": rows,
            CONTENT: fingerprint,
            FINGERPRINT: fingerprint,
            "files": len(files),
            STATEMENTS: _shown(statements),
        },
        data_version=dg.DataVersion(fingerprint),
    )


def _load_days(
    context: dg.AssetExecutionContext, landing_zone: LandingZone, warehouse: Warehouse, source: str
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """Load the run's days of ``browsing`` or ``search``; every day gets its own counts, fingerprint and verdict."""
    days = sorted(context.partition_keys)
    with readable_failures():
        index = landing_zone.index()
        files = landing_zone.files_by_day(source, days)
        content = landed_content(index)
        name = context.asset_key.path[-1]
        statements: list[Statement] = []
        rows = warehouse.load_days(name, files, {day: content(source, day) for day in days}, statements)
    landed = {day: index.days[day].rows.get(source, 0) if day in index.days else 0 for day in days}
    metadata = {}
    for day in days:
        fingerprint = content(source, day)
        metadata[day] = {
            "dagster/partition_row_count": rows[day],
            CONTENT: fingerprint or "empty",
            FINGERPRINT: source_fingerprint(content, name, day),
            "files": len(files[day]),
        }
        context.add_asset_metadata(metadata[day], asset_key=context.asset_key, partition_key=day)
    yield dg.MaterializeResult(
        data_version=_version_of([metadata[day][CONTENT] for day in days]), metadata={STATEMENTS: _shown(statements)}
    )
    yield check_result(
        {day: _compare(rows[day], landed[day]) for day in days},
        asset_key=context.asset_key,
        check_name=ROWS_MATCH_LANDING,
    )


def _shown(statements: list[Statement]) -> dg.MarkdownMetadataValue:
    """Return what the load changed in the warehouse, statement by statement, for all days of its run."""
    return table([{"statement": each.sql, "rows": each.rows, "query": each.query_id} for each in statements])


def _version_of(fingerprints: list[str]) -> dg.DataVersion:
    """Return a run's data version (Dagster keeps one): the day's fingerprint, or a digest over those of its days."""
    if len(fingerprints) == 1:
        return dg.DataVersion(fingerprints[0])
    return dg.DataVersion(sha256("\n".join(fingerprints).encode()).hexdigest()[:16])


def _compare(rows: int, landed: int) -> DayVerdict:
    reason = "" if rows == landed else f"{rows:,} rows were loaded, but {landed:,} are in force in the landing zone"
    return DayVerdict(rows == landed, reason, rows)
