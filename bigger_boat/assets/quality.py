"""May these days be read? What the blocking checks said last about exactly the days a data set reads.

A blocking check stops only its own run, and a backfill counts a day whose check failed as done: so whoever reads the
warehouse asks here first. What belongs elsewhere: the checks (``raw.py``, ``warehouse.py``, ``arrival.py``), how a
check says which days it speaks for (``verdicts.py``).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date

import dagster as dg
from dagster import AssetCheckKey, AssetKey
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecord

from bigger_boat.assets import arrival, raw, warehouse
from bigger_boat.assets.verdicts import DayVerdict, evaluation_of, read_verdict, run_range, with_neighbours
from bigger_boat.errors import DatasetError

PAGE = 100
SHOWN_DAYS = 5
FAILED = " failed: "


@dataclass(frozen=True)
class Found:
    """The latest evaluation of a check that looked at a day, and when it was made (epoch seconds)."""

    verdict: DayVerdict
    time: float


@dataclass(frozen=True)
class Writer:
    """The step that writes a table, and whether it rewrites the days on either side of its run, too."""

    step: str
    neighbours: bool


def blocking_checks() -> dict[AssetCheckKey, Writer]:
    """Return the blocking checks of all daily tables, each with what writes its table."""
    checks: dict[AssetCheckKey, Writer] = {}
    for definition in (raw.browsing_train, raw.search_train, warehouse.warehouse_days):
        writer = Writer(definition.op.name, neighbours=definition is warehouse.warehouse_days)
        checks |= {spec.key: writer for spec in definition.check_specs if spec.blocking}
    sessions = Writer(warehouse.warehouse_days.op.name, neighbours=True)
    of_sessions = [spec.key for spec in arrival.arrival_checks.check_specs if spec.blocking]
    return checks | dict.fromkeys([*warehouse.sessions_match_schema.check_keys, *of_sessions], sessions)


def refuse_unless_days_passed(
    instance: dg.DagsterInstance, days: Iterable[date | str], asset_keys: Sequence[AssetKey] | None = None
) -> None:
    """Return if every blocking check of the daily tables last passed on each of the days, on the data as it is now.

    ``asset_keys`` narrows the question to the checks of some tables. Raises DatasetError naming day, check and reason.
    """
    wanted = sorted({str(day) for day in days})
    asked = {check for check in blocking_checks() if asset_keys is None or check.asset_key in asset_keys}
    problems = [problem for _, problem in _all_problems(instance, asked, wanted)]
    if problems:
        problems.sort(key=lambda problem: FAILED not in problem)  # what failed is why others were not looked at
        more = f"\n  ... and {len(problems) - SHOWN_DAYS} more" if len(problems) > SHOWN_DAYS else ""
        raise DatasetError(
            "The data set is not built, because days it reads did not pass their checks:\n  "
            + "\n  ".join(problems[:SHOWN_DAYS])
            + more,
            "Correct the source of these days (bigger-boat land --replace), run them again"
            " (bigger-boat run, or materialize them in the web UI), then build the data set.",
        )


def days_in_doubt(
    instance: dg.DagsterInstance, checks: Iterable[AssetCheckKey], days: Iterable[date | str]
) -> set[str]:
    """Return the days that one of these checks, if it is a blocking one of a daily table, does not clear."""
    return {day for day, _ in _all_problems(instance, set(checks), sorted({str(day) for day in days}))}


def _all_problems(
    instance: dg.DagsterInstance, checks: Set[AssetCheckKey], days: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield (day, sentence) for each day that one of these checks does not clear, check by check."""
    asked = {check: writer for check, writer in blocking_checks().items() if check in checks} if days else {}
    written = {key: _materialized_at(instance, key, days) for key in {check.asset_key for check in asked}}
    for check, writer in asked.items():
        yield from _problems(instance, check, writer, days, written[check.asset_key]).items()


def _problems(
    instance: dg.DagsterInstance,
    check: AssetCheckKey,
    writer: Writer,
    days: Sequence[str],
    written: Mapping[str, float],
) -> dict[str, str]:
    """Return a sentence for each day that this check does not clear; ``written`` is when each was materialized."""
    found, unfinished = _latest(instance, check, writer, days)
    name = f"{check.asset_key.to_user_string()}:{check.name}"
    problems = {}
    for day in days:
        if day in unfinished:
            problems[day] = f"{day}: run {unfinished[day][:8]} began to write the day and has not checked it ({name})"
        elif day not in found:
            problems[day] = f"{day}: {name} has never looked at this day"
        elif not found[day].verdict.passed:
            problems[day] = f"{day}: {name}{FAILED}{found[day].verdict.reason}"
        elif found[day].time < written.get(day, 0.0):
            problems[day] = f"{day}: {name} is older than the day's data"
    return problems


def _latest(
    instance: dg.DagsterInstance, check: AssetCheckKey, writer: Writer, days: Sequence[str]
) -> tuple[dict[str, Found], dict[str, str]]:
    """Return the latest evaluation of each day, and the runs that began to write a day later than that, unevaluated."""
    found: dict[str, Found] = {}
    unfinished: dict[str, str] = {}
    evaluated: set[str] = set()
    cursor = None
    while any(day not in found for day in days):
        page = instance.event_log_storage.get_asset_check_execution_history(check, limit=PAGE, cursor=cursor)
        for record in page:
            open_days = [day for day in days if day not in found]
            evaluation = evaluation_of(record)
            if evaluation:
                evaluated.add(record.run_id)
                found |= _verdicts(evaluation, record, open_days)
            elif record.run_id not in evaluated:
                unfinished |= dict.fromkeys(_days_begun(instance, record.run_id, writer, open_days), record.run_id)
        if len(page) < PAGE:
            break
        cursor = page[-1].id
    return found, unfinished


def _verdicts(
    evaluation: dg.AssetCheckEvaluation, record: AssetCheckExecutionRecord, days: Sequence[str]
) -> dict[str, Found]:
    rows = evaluation.metadata.get("dagster_dbt/failed_row_count")
    reason = evaluation.description or (f"{rows.value} rows fail" if rows else "it did not pass")
    verdicts = {day: read_verdict(evaluation.metadata, evaluation.passed, reason, day) for day in days}
    return {day: Found(verdict, record.event.timestamp) for day, verdict in verdicts.items() if verdict}


def _days_begun(instance: dg.DagsterInstance, run_id: str, writer: Writer, days: Sequence[str]) -> list[str]:
    """Return which of the days a run rewrote, at least in part: its writing step has started."""
    run = instance.get_run_by_id(run_id)
    span = run_range(run.tags) if run else None
    if not span or not any(stats.start_time for stats in instance.get_run_step_stats(run_id, [writer.step])):
        return []
    first, last = with_neighbours(*span) if writer.neighbours else span
    return [day for day in days if first <= day <= last]


def _materialized_at(instance: dg.DagsterInstance, key: AssetKey, days: Sequence[str]) -> dict[str, float]:
    """Return when each day was materialized last (epoch seconds)."""
    times: dict[str, float] = {}
    cursor = None
    while any(day not in times for day in days):
        page = instance.fetch_materializations(
            dg.AssetRecordsFilter(key, asset_partitions=list(days)), limit=PAGE, cursor=cursor
        )
        for record in page.records:
            times.setdefault(str(record.partition_key), record.timestamp)
        if not page.has_more:
            break
        cursor = page.cursor
    return times
