"""Which days to make because their content changed: the decision, and the sensor that asks for the runs.

The landing index alone says whether anything changed since the last tick (one small file, however many days there
are). Only the days that changed are then held against what has been made of them (``plan.py``), so that days made by
the command line or by hand are not made twice, and a day lost between two ticks is found again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg

from bigger_boat import clock
from bigger_boat.assets.verdicts import RANGE_END, RANGE_START
from bigger_boat.automation.jobs import DEFAULT_STATUS, REASON_TAG, SWEEP_TAG, TIMEOUT_TAG, interval_s
from bigger_boat.automation.plan import Plan, make_plan
from bigger_boat.automation.runner import ALIVE, command_that_runs
from bigger_boat.data.landing_index import CATALOG, LandingIndex
from bigger_boat.partitions import daily_partitions
from bigger_boat.resources.landing_zone import LandingZone
from bigger_boat.settings import get_settings

SETTLE_S = 30.0
"""Content that changed a moment ago may go on changing: wait so long for it to settle, and take a burst as one."""
LONGEST_WAIT_S = 600.0
"""Content that never settles is taken all the same after this time."""
ARRIVAL_TAGS = {REASON_TAG: "arrival", **TIMEOUT_TAG}
UNFINISHED = [dg.DagsterRunStatus.QUEUED, *ALIVE]


@dataclass(frozen=True)
class Seen:
    """A tick's memory: the content of each part that was dealt with, and since when changes have been waiting (s)."""

    content: Mapping[str, str] = field(default_factory=dict)
    waiting_since: float | None = None

    @classmethod
    def from_cursor(cls, cursor: str | None) -> "Seen":
        """Read a cursor; one that is none counts as nothing seen, which costs a look and loses nothing."""
        try:
            raw = json.loads(cursor or "{}")
            return cls(dict(raw["content"]), raw["waiting_since"])
        except (ValueError, KeyError, TypeError):
            return cls()

    def cursor(self) -> str:
        return json.dumps({"content": dict(self.content), "waiting_since": self.waiting_since}, separators=(",", ":"))


@dataclass(frozen=True)
class Arrival:
    """What a tick decided: the runs to ask for, what to remember, and why, in a sentence."""

    requests: Sequence[dg.RunRequest]
    seen: Seen
    sentence: str


def decide(
    index: LandingIndex,
    seen: Seen,
    now: datetime,
    plan_of: Callable[[Sequence[str]], Plan],
    running: Sequence[str] = (),
    is_day: Callable[[str], bool] = lambda _day: True,
) -> Arrival:
    """Return which days (and whether the catalogue) to make now.

    ``plan_of(days)`` says what of these days is behind; ``running`` says what is going on and may be making them;
    ``is_day`` says whether a day has ended and belongs to the graph: others wait, unseen, until it does.
    """
    content = _content(index, is_day)
    changed = sorted(part for part, fingerprint in content.items() if seen.content.get(part) != fingerprint)
    if not changed:
        return Arrival((), Seen(content), f"Nothing new: {_days(len(content.keys() - {CATALOG}))} as before.")
    what = named(changed)
    if running:
        waiting = Seen(seen.content, seen.waiting_since or now.timestamp())
        return Arrival((), waiting, f"{what} changed; waits for {running[0]}.")
    since = seen.waiting_since or now.timestamp()
    quiet_s = now.timestamp() - max(_landed_at(index, part) for part in changed)
    if quiet_s < SETTLE_S and now.timestamp() - since < LONGEST_WAIT_S:
        sentence = f"{what} changed {max(quiet_s, 0):.0f} s ago; waits until nothing has changed for {SETTLE_S:.0f} s."
        return Arrival((), Seen(seen.content, since), sentence)
    days = [day for day in _with_neighbours(changed) if day in content]
    plan = plan_of(days)
    by_day = (_range_request(plan, block, index) for block in _ranges(plan.days))
    requests = (*_catalogue_request(plan, index), *by_day)
    asked = f"asks for {_runs(plan, requests)}" if requests else "made already"
    return Arrival(requests, Seen(content), f"{what} changed: {asked}.")


def days_behind(
    graph, instance: dg.DagsterInstance, index: LandingIndex, now: datetime
) -> tuple[list[dg.RunRequest], str]:
    """Return runs that make every landed day that is behind, and a sentence; for the schedule that heals late days."""
    if not index.parts:
        return [], "Nothing has landed yet."
    known = daily_partitions.get_partition_keys(current_time=now)
    by_day = dg.AssetSelection.groups("raw", "warehouse").resolve(graph)
    days = [day for day in known if day in index.days]
    plan = make_plan(graph, instance, by_day, index, size="", days=days)
    requests = [*_catalogue_request(plan, index), *(_range_request(plan, block, index) for block in _ranges(plan.days))]
    if not requests:
        return [], f"All {_days(len(days))} that have landed and are over are made."
    behind = named([*plan.days, *([CATALOG] if plan.independent else [])])
    sentence = f"{behind} behind: asks for {_runs(plan, requests)}."
    heal = {REASON_TAG: sentence[:250]}
    return [
        dg.RunRequest(
            run_key=f"{now:%Y-%m-%d}-{one.run_key}", asset_selection=one.asset_selection, tags=one.tags | heal
        )
        for one in requests
    ], sentence


def _content(index: LandingIndex, is_day: Callable[[str], bool]) -> dict[str, str]:
    content = {day: entry.fingerprint for day, entry in index.days.items() if is_day(day)}
    if index.catalog:
        content[CATALOG] = index.catalog.fingerprint
    return content


def _landed_at(index: LandingIndex, part: str) -> float:
    entry = index.parts.get(part)
    return datetime.fromisoformat(entry.time).timestamp() if entry and entry.time else 0.0


def _with_neighbours(parts: Sequence[str]) -> list[str]:
    """Return the days among ``parts`` and those beside them, whose sessions they may change."""
    days = [date.fromisoformat(part) for part in parts if part != CATALOG]
    return sorted({(day + timedelta(days=offset)).isoformat() for day in days for offset in (-1, 0, 1)})


def _ranges(days: Sequence[str]) -> list[tuple[str, str]]:
    """Return days without gaps as (first, last): no day between them is made that need not be."""
    ranges: list[tuple[str, str]] = []
    for day in sorted(days):
        if ranges and date.fromisoformat(day) - date.fromisoformat(ranges[-1][1]) == timedelta(days=1):
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return ranges


def _range_request(plan: Plan, block: tuple[str, str], index: LandingIndex) -> dg.RunRequest:
    """Ask for a run; asked for twice (a restart before the cursor was kept), it is run once.

    Its key holds versions, not contents alone: content that comes back after a correction is another run.
    """
    days = {day: entry for day, entry in index.days.items() if block[0] <= day <= block[1]}
    made_from = "|".join(f"{day}:{entry.version}:{entry.fingerprint}" for day, entry in days.items())
    return dg.RunRequest(
        run_key=f"{block[0]}..{block[1]}-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}",
        asset_selection=list(plan.partitioned),
        tags={RANGE_START: block[0], RANGE_END: block[1], **ARRIVAL_TAGS},
    )


def _catalogue_request(plan: Plan, index: LandingIndex) -> list[dg.RunRequest]:
    if not plan.independent:
        return []
    key = f"{index.catalog.version}-{index.catalog.fingerprint}" if index.catalog else "empty"
    return [dg.RunRequest(run_key=f"catalogue-{key}", asset_selection=list(plan.independent), tags=ARRIVAL_TAGS)]


def named(parts: Sequence[str]) -> str:
    """Return days, and the catalogue, in words: the days themselves where they are few."""
    days = [part for part in parts if part != CATALOG]
    named = ", ".join(days) if len(days) <= 3 else f"{_days(len(days))} ({days[0]} to {days[-1]})"
    return " and ".join([*([named] if days else []), *(["the catalogue"] if CATALOG in parts else [])])


def _runs(plan: Plan, requests: Sequence[dg.RunRequest]) -> str:
    days = f"{_days(len(plan.days))} in " if plan.days else ""
    return f"{days}{len(requests)} run{'s' if len(requests) != 1 else ''}"


def _days(count: int) -> str:
    return f"{count} day{'s' if count != 1 else ''}"


@dg.sensor(
    name="arrival_sensor",
    asset_selection=dg.AssetSelection.groups("raw", "warehouse"),
    minimum_interval_seconds=interval_s(30),
    default_status=DEFAULT_STATUS,
    description="Makes the tables of exactly those days whose landed content changed, once the day has ended (UTC).",
)
def arrival_sensor(context: dg.SensorEvaluationContext, landing_zone: LandingZone) -> dg.SensorResult:
    """Each tick says what it did and why; the cursor holds what content was dealt with."""
    graph = context.repository_def.asset_graph
    index, now = landing_zone.index(), clock.utc_now()
    by_day = dg.AssetSelection.groups("raw", "warehouse").resolve(graph)

    def plan_of(days: Sequence[str]) -> Plan:
        return make_plan(graph, context.instance, by_day, index, size="", days=days)

    known = set(daily_partitions.get_partition_keys(current_time=now))
    going = unfinished_runs(context.instance, get_settings().data_dir)
    arrival = decide(index, Seen.from_cursor(context.cursor), now, plan_of, going, known.__contains__)
    context.log.info(arrival.sentence)
    told = None if arrival.requests else dg.SkipReason(arrival.sentence)
    return dg.SensorResult(run_requests=list(arrival.requests), skip_reason=told, cursor=arrival.seen.cursor())


def unfinished_runs(instance: dg.DagsterInstance, data_dir: Path) -> list[str]:
    """Return what is going on in words: a command that runs the graph, and runs (those of a sweep left out)."""
    command = command_that_runs(data_dir)
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    return [
        *([f"the command line ({command})"] if command else []),
        *(f"run {r.run_id}" for r in runs if SWEEP_TAG not in r.tags),
    ]
