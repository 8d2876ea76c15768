"""What past runs took, and what a plan's runs are made of: the numbers that ``estimate.py`` reckons with."""

from collections.abc import Iterable, Mapping
from datetime import date, timedelta

import dagster as dg
from dagster import AssetKey

from bigger_boat.assets.verdicts import PARTITION_TAG, RANGE_END, RANGE_START
from bigger_boat.automation.estimate import Estimate, Observation, Work, estimate
from bigger_boat.automation.plan import Plan
from bigger_boat.data.landing_index import EVENT_TABLES, LandingIndex

SIZE_TAG = "bigger_boat/size"
"""Tag of a run: quick or full. How long training takes depends on it."""

RUNS = 10
AROUND_DAYS, AROUND_OTHERS = "around the tables by day", "around other assets"
"""What a run takes besides the steps that make something: its checks, and Dagster between the steps."""

IN_WAREHOUSE = {"raw", "warehouse", "datasets"}


def foresee(plan: Plan, graph, instance: dg.DagsterInstance, index: LandingIndex, size: str) -> Estimate:
    """Return what a plan will take, by this instance's last successful runs."""
    work: list[Work] = []
    for first, last in plan.blocks() if plan.partitioned else ():
        rows = _rows(index, _days(first, last))
        work += [*_steps(plan.partitioned, graph, rows), Work(AROUND_DAYS, rows)]
    if plan.unpartitioned:
        work += [*_steps(plan.unpartitioned, graph, 0), Work(AROUND_OTHERS)]
    days = plan.days if plan.partitioned else ()
    return estimate(len(days), _rows(index, days), work, history(graph, instance, index, size))


def foresee_training(
    keys: Iterable[AssetKey], days: Iterable[str], graph, instance: dg.DagsterInstance, index: LandingIndex, size: str
) -> Estimate:
    """Return what making assets that have no days will take, of the data of these days."""
    days = list(days)
    work = [*_steps(keys, graph, 0), Work(AROUND_OTHERS)]
    return estimate(len(days), _rows(index, days), work, history(graph, instance, index, size))


def history(graph, instance: dg.DagsterInstance, index: LandingIndex, size: str) -> Mapping[str, list[Observation]]:
    """Return what each step took in the last successful runs, latest first; of runs of another size, tables only."""
    names = {_step(graph, key) for key in graph.materializable_asset_keys}
    seen: dict[str, list[Observation]] = {}
    succeeded = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])
    for record in instance.get_run_records(succeeded, limit=RUNS):
        tags, run_id = record.dagster_run.tags, record.dagster_run.run_id
        first, last = (tags.get(tag, tags.get(PARTITION_TAG)) for tag in (RANGE_START, RANGE_END))
        if not first and tags.get(SIZE_TAG, size) != size:
            continue
        rows = _rows(index, _days(first, last)) if first and last else 0
        around = (record.end_time or 0.0) - (record.start_time or 0.0)
        for step in instance.get_run_step_stats(run_id):
            if step.step_key in names and step.start_time and step.end_time:
                seconds = step.end_time - step.start_time
                around -= seconds
                seen.setdefault(step.step_key, []).append(Observation(rows, seconds))
        seen.setdefault(AROUND_DAYS if first else AROUND_OTHERS, []).append(Observation(rows, max(around, 0.0)))
    return seen


def _steps(keys: Iterable[AssetKey], graph, rows: int) -> list[Work]:
    assets: dict[str, list[AssetKey]] = {}
    for key in keys:
        assets.setdefault(_step(graph, key), []).append(key)
    return [
        Work(
            step,
            rows,
            tuple(key.to_user_string() for key in made),
            graph.get(made[0]).group_name in IN_WAREHOUSE,
            _job(graph, made[0]),
        )
        for step, made in assets.items()
    ]


def _job(graph, key: AssetKey) -> str:
    """Return the queue whose job the step of an asset may be, "" for none."""
    keys = graph.get(key).assets_def.required_resource_keys
    return next((kind for kind in ("gpu", "cpu") if f"{kind}_compute" in keys), "")


def _step(graph, key: AssetKey) -> str:
    """Return the key of the step that makes an asset."""
    return graph.get(key).assets_def.node_def.name


def _days(first: str, last: str) -> list[str]:
    start = date.fromisoformat(first)
    return [(start + timedelta(days=n)).isoformat() for n in range((date.fromisoformat(last) - start).days + 1)]


def _rows(index: LandingIndex, days: Iterable[str]) -> int:
    entries = (index.days[day] for day in days if day in index.days)
    return sum(entry.rows.get(table, 0) for entry in entries for table in EVENT_TABLES)
