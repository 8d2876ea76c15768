"""The warehouse: dbt's models as assets, its tests as checks, and the schema that Python reads ``sessions`` by.

What belongs elsewhere: the SQL and its tests (``dbt_project/``), running dbt (``resources/dbt.py``).
"""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster import AssetKey
from dagster_dbt import DagsterDbtTranslator, dbt_assets

from bigger_boat.assets.common import DATA_OWNERS, readable_failures
from bigger_boat.assets.verdicts import (
    DayVerdict,
    check_result,
    days_between,
    range_metadata,
    run_range,
    with_neighbours,
)
from bigger_boat.data.fingerprint import FINGERPRINT, Content, loaded_content, source_fingerprint
from bigger_boat.data.read_ahead import read_ahead
from bigger_boat.errors import WarehouseError
from bigger_boat.partitions import daily_partitions
from bigger_boat.resources.dbt import DbtInProcess
from bigger_boat.resources.dbt_manifest import manifest_path, profile_target
from bigger_boat.resources.warehouse import WAREHOUSE_POOL, Warehouse

if TYPE_CHECKING:
    import polars as pl

DAY_COLUMNS = {
    "distinct_events": "event_date",
    "session_stats": "event_date",
    "sessions": "session_date",
    "cart_sessions": "session_date",
}
"""The tables by day, and which column is the day."""

ROWS_IN_MEMORY = 200_000
"""How many sessions are read or sorted at a time."""

SESSIONS = AssetKey("sessions")
BUILD = ["build", "--exclude-resource-type", "unit_test"]

CHUNK_DAYS_TAG = "bigger_boat/chunk_days"
"""A run's tag: how many days are computed at a time; without it, as many as hold about 3 M events."""


class WarehouseTranslator(DagsterDbtTranslator):
    """Our groups and owners; keys, descriptions and checks are dagster-dbt's."""

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str:  # noqa: ARG002 (dagster-dbt's interface)
        """Everything dbt builds is the warehouse."""
        return "warehouse"

    def get_owners(self, dbt_resource_props: Mapping[str, Any]) -> list[str]:  # noqa: ARG002 (dagster-dbt's interface)
        """The data team."""
        return DATA_OWNERS


def _manifest() -> dict[str, Any]:
    path = manifest_path(target=profile_target())
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise WarehouseError(
            f"dbt's manifest {path} is not there: the graph cannot be drawn without it.",
            "Run any bigger-boat command, which builds it.",
        ) from error


MANIFEST = _manifest()


@dbt_assets(
    manifest=MANIFEST,
    name="warehouse_days",
    select=" ".join(["stg_browsing", "stg_search", *DAY_COLUMNS]),
    dagster_dbt_translator=WarehouseTranslator(),
    partitions_def=daily_partitions,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool=WAREHOUSE_POOL,
)
def warehouse_days(
    context: dg.AssetExecutionContext, dbt: DbtInProcess, warehouse: Warehouse
) -> Iterator[dg.Output | dg.AssetCheckResult | dg.AssetObservation]:
    """Build the run's days, and the day on either side, in one dbt invocation; each table is told as it is done."""
    first, last = min(context.partition_keys), max(context.partition_keys)
    variables = {"first_day": first, "last_day": last, "chunk_days": int(context.run.tags.get(CHUNK_DAYS_TAG, 0))}
    with readable_failures(), warehouse.held():
        # what is loaded now: a day that is loaded anew meanwhile is then known to be behind
        content = loaded_content(warehouse.loaded_fingerprints())
        invocation = dbt.cli([*BUILD, "--vars", json.dumps(variables)], context=context)
        for event in invocation.stream():
            if isinstance(event, dg.Output):
                _describe_days(context, warehouse, content, event.output_name, days_between(first, last))
            yield _with_range(event, *with_neighbours(first, last))


@dbt_assets(
    manifest=MANIFEST,
    name="warehouse_catalog",
    select="stg_products products",
    dagster_dbt_translator=WarehouseTranslator(),
    pool=WAREHOUSE_POOL,
)
def warehouse_catalog(
    context: dg.AssetExecutionContext, dbt: DbtInProcess, warehouse: Warehouse
) -> Iterator[dg.Output | dg.AssetCheckResult | dg.AssetObservation]:
    """Build the catalog."""
    with readable_failures(), warehouse.held():
        for event in dbt.cli(BUILD, context=context).stream():
            if isinstance(event, dg.Output) and event.output_name == "products":
                context.add_asset_metadata({"dagster/row_count": warehouse.count("products")}, asset_key="products")
            yield event


@dg.asset_check(asset=SESSIONS, blocking=True, pool=WAREHOUSE_POOL)
def sessions_match_schema(context: dg.AssetCheckExecutionContext, warehouse: Warehouse) -> dg.AssetCheckResult:
    """Every day of ``sessions`` that the run touched is as the code that reads it expects (Pandera)."""
    with readable_failures():
        days = run_range(context.run.tags)
        first, last = with_neighbours(*days) if days else all_days(warehouse)
        return check_result(validate_days(warehouse, warehouse.row_counts("sessions", "session_date", first, last)))


def validate_days(warehouse: Warehouse, rows_by_day: Mapping[str, int]) -> dict[str, DayVerdict]:
    """Return a verdict per day. Days are read together up to a number of rows, and one by one where one is wrong."""
    verdicts: dict[str, DayVerdict] = {}
    read = ((days, _sessions_of(warehouse, days)) for days in day_groups(rows_by_day))
    for days, sessions in read_ahead(read, depth=1):
        reason = _schema_faults(sessions)
        for day in days:
            fault = _schema_faults(_sessions_of(warehouse, [day])) if reason and len(days) > 1 else reason
            verdicts[day] = DayVerdict(not fault, fault, rows_by_day[day])
    return verdicts


def _sessions_of(warehouse: Warehouse, days: list[str]) -> "pl.DataFrame":
    import polars as pl

    with warehouse.read("select * from sessions where session_date between ? and ?", [days[0], days[-1]]) as reader:
        return pl.DataFrame(pl.from_arrow(reader.read_all()))


def _schema_faults(sessions: "pl.DataFrame") -> str:
    """Return what of these sessions is not as the schema says; "" where all is."""
    from bigger_boat.data.schemas import schema_failures, sessions_schema

    failures = schema_failures(sessions_schema(), sessions)
    return f"{failures.count:,} failures, such as: {'; '.join(failures.examples)}" if failures else ""


def day_groups(rows_by_day: Mapping[str, int]) -> Iterator[list[str]]:
    """Split days into neighbouring groups of at most ROWS_IN_MEMORY rows (a larger day stands alone)."""
    group: list[str] = []
    rows = 0
    for day in sorted(rows_by_day):
        if group and rows + rows_by_day[day] > ROWS_IN_MEMORY:
            yield group
            group, rows = [], 0
        group.append(day)
        rows += rows_by_day[day]
    if group:
        yield group


def all_days(warehouse: Warehouse) -> tuple[str, str]:
    """Return the first and last day of ``sessions``: what a check looks at outside of a run of days."""
    with warehouse.read(
        "select min(session_date)::varchar as first, max(session_date)::varchar as last from sessions"
    ) as reader:
        row = reader.read_all().to_pylist()[0]
    if row["first"] is None:
        raise WarehouseError("sessions is empty: nothing to check.", "Materialize sessions for some days first.")
    return str(row["first"]), str(row["last"])


def _describe_days(
    context: dg.AssetExecutionContext, warehouse: Warehouse, content: Content, table: str, days: list[str]
) -> None:
    """Attach to each day of a table that was built its rows, and from what loaded content it was made."""
    rows = warehouse.row_counts(table, DAY_COLUMNS[table], days[0], days[-1]) if table in DAY_COLUMNS else {}
    for day in days:
        metadata: dict[str, Any] = {FINGERPRINT: source_fingerprint(content, table, day)}
        if rows:
            metadata["dagster/partition_row_count"] = rows[day]
        context.add_asset_metadata(metadata, asset_key=table, partition_key=day)


def _with_range(event: Any, first: str, last: str) -> Any:
    if isinstance(event, dg.AssetCheckResult):
        return event.with_metadata({**event.metadata, **range_metadata(first, last)})
    return event
