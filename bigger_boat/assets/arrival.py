"""What arrived, judged by day: freshness, volume, rejects, duplicates, and what sessions look like. One step for all.

A warning never stops anything. The blocking ones stop what is downstream in their run, and, by their verdict on each
day, every data set that reads it (``quality.py``). What belongs elsewhere: thresholds and sentences
(``data/arrival_checks.py``, ``data/session_checks.py``).
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import dagster as dg
from dagster import AssetKey

from bigger_boat import clock
from bigger_boat.assets.common import readable_failures
from bigger_boat.assets.raw import BROWSING
from bigger_boat.assets.verdicts import DayVerdict, check_result, days_between, run_range, with_neighbours
from bigger_boat.assets.warehouse import SESSIONS, all_days
from bigger_boat.data import arrival_checks as arrives
from bigger_boat.data import session_checks as sessions
from bigger_boat.data.arrival_checks import Finding
from bigger_boat.data.check_specs import CheckSpec
from bigger_boat.data.landing_index import LandingIndex, rejected_files
from bigger_boat.partitions import daily_partitions
from bigger_boat.resources.landing_zone import LandingZone
from bigger_boat.resources.warehouse import WAREHOUSE_POOL, Warehouse

ON: Mapping[AssetKey, Sequence[CheckSpec]] = {
    BROWSING: [arrives.ARRIVES, arrives.VOLUME, arrives.FEW_REJECTS, arrives.KNOWN_ACTIONS],
    AssetKey("distinct_events"): [arrives.METADATA],
    AssetKey("session_stats"): [arrives.DUPLICATES],
    SESSIONS: [arrives.REJECTS, arrives.DURATION, arrives.NOT_EMPTY, arrives.LIMIT, arrives.LENGTH],
}
"""The blocking ones are on ``sessions``: a bad day's tables are made and can be looked at, but not learned from."""

TABLES: Mapping[str, tuple[str, Sequence[sessions.Rule]]] = {
    "sessions": (sessions.SESSION_COUNTS, sessions.SESSION_RULES),
    "session_stats": (sessions.DUPLICATE_COUNTS, sessions.DUPLICATE_RULES),
    "distinct_events": (sessions.PRODUCT_COUNTS, sessions.METADATA_RULES),
}


def _specs() -> Iterator[dg.AssetCheckSpec]:
    for key, checks in ON.items():
        for check in checks:
            deps = ["products"] if check is arrives.METADATA else None
            yield dg.AssetCheckSpec(
                check.name, asset=key, blocking=check.blocking, description=check.sentence, additional_deps=deps
            )


@dg.multi_asset_check(specs=list(_specs()), can_subset=True, pool=WAREHOUSE_POOL)
def arrival_checks(
    context: dg.AssetCheckExecutionContext, landing_zone: LandingZone, warehouse: Warehouse
) -> Iterator[dg.AssetCheckResult]:
    """Judge every day that the run touched, and the days on either side, whose sessions it made again."""
    wanted = {(key.asset_key, key.name) for key in context.selected_asset_check_keys}
    with readable_failures():
        days = days_between(*with_neighbours(*_days_of(context, warehouse)))
        findings = [
            (key, finding)
            for key, checks in ON.items()
            if any((key, check.name) in wanted for check in checks)
            for finding in _findings(key, landing_zone, warehouse, days)
        ]
    for key, finding in findings:
        if (key, finding.spec.name) in wanted:
            yield _result(key, finding)


def _days_of(context: dg.AssetCheckExecutionContext, warehouse: Warehouse) -> tuple[str, str]:
    return run_range(context.run.tags) or all_days(warehouse)


def _findings(key: AssetKey, landing_zone: LandingZone, warehouse: Warehouse, days: Sequence[str]) -> Iterator[Finding]:
    index, examples = landing_zone.index(), _rejected_examples(landing_zone)
    if key == BROWSING:
        ended = daily_partitions.get_partition_keys(current_time=clock.utc_now())
        yield arrives.days_have_arrived(index, days, ended[-1] if ended else days[-1])
        yield arrives.volume_is_usual(index, days)
        yield arrives.rejected_rows(index, days, examples, arrives.FEW_REJECTS)
        yield arrives.actions_are_known(index, days, examples)
        return
    if key == SESSIONS:
        yield arrives.rejected_rows(index, days, examples, arrives.REJECTS)
    if arrives.METADATA in ON[key] and not _has_products(index, warehouse):
        yield Finding(arrives.METADATA, {}, None, "No catalogue is loaded: land sku_to_content and run products")
        return
    yield from sessions.judge(*reversed(TABLES[key.path[-1]]), days, _query(warehouse))


def _rejected_examples(landing_zone: LandingZone) -> arrives.Examples:
    def examples(day: str, reasons: Collection[str]) -> list[str]:
        return arrives.rejected_examples(rejected_files(landing_zone.root, day), reasons)

    return examples


def _has_products(index: LandingIndex, warehouse: Warehouse) -> bool:
    found = "select count(*) as found from information_schema.tables where lower(table_name) = 'products'"
    return index.catalog is not None and bool(_query(warehouse)(found, [])[0]["found"])


def _query(warehouse: Warehouse) -> Callable[[str, Sequence[object]], list[Mapping[str, object]]]:
    def query(sql: str, params: Sequence[object]) -> list[Mapping[str, object]]:
        with warehouse.read(sql, params) as reader:
            return reader.read_all().to_pylist()

    return query


def _result(key: AssetKey, finding: Finding) -> dg.AssetCheckResult:
    verdicts = {
        day: DayVerdict(not found.reason, found.reason, found.rows, found.value) for day, found in finding.days.items()
    }
    number = "" if finding.value is None else f" Measured: {finding.value:,.4g}."
    return check_result(
        verdicts,
        asset_key=key,
        check_name=finding.spec.name,
        fact=finding.spec.sentence + number,
        also=finding.also,
        value=finding.value,
        severity=dg.AssetCheckSeverity.ERROR if finding.spec.blocking else dg.AssetCheckSeverity.WARN,
    )
