"""When the days of what is live are made: the decision, and the sensor that asks for the runs.

A day of answers is complete at midnight; what its sessions did is known later, when the day's events have landed and
been made, and completely only when the next day's have. So the log of a day is made once it is over, and its online
metrics whenever its events, or those of the day after, were made since.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import dagster as dg

from bigger_boat import clock
from bigger_boat.assets.verdicts import RANGE_END, RANGE_START
from bigger_boat.automation.arrival import unfinished_runs
from bigger_boat.automation.jobs import DEFAULT_STATUS, REASON_TAG, TIMEOUT_TAG, interval_s
from bigger_boat.partitions import daily_partitions
from bigger_boat.resources.prediction_logs import PredictionLogs
from bigger_boat.settings import get_settings

LOG, METRICS, EVENTS = (dg.AssetKey(name) for name in ("prediction_log", "online_metrics", "distinct_events"))
WATCH_TAGS = {REASON_TAG: "what is live", **TIMEOUT_TAG}
HEALED_DAYS = 14
"""Online metrics of older days are not made again when their events change: by hand they are."""
LONGEST_DAYS = 90
"""The first look at a long log takes the last days only."""


@dataclass(frozen=True)
class Made:
    """By day, the record in which each asset's day was made last: the larger, the later."""

    log: Mapping[str, int]
    metrics: Mapping[str, int]
    events: Mapping[str, int]


@dataclass(frozen=True)
class Watch:
    """What a tick decided: the runs to ask for, and why, in a sentence."""

    requests: Sequence[dg.RunRequest]
    sentence: str


def decide(
    logged: Sequence[str],
    ended: Sequence[str],
    made: Made,
    fingerprint: Callable[[str], str],
    running: Sequence[str] = (),
) -> Watch:
    """Return which days of the log, and of the online metrics, to make now.

    ``logged``: days with answers; ``ended``: days of the graph that are over, in order. Days between the first answer
    and the last ended day that have none are made too: none is what is known of them.
    """
    days = [day for day in ended if logged and day >= min(logged)][-LONGEST_DAYS:]
    if not days:
        return Watch((), "No day with answers is over yet.")
    if running:
        return Watch((), f"Waits for {running[0]}.")
    unlogged = [day for day in days if day not in made.log]
    # the first look takes many days at once; later each is alone, so that one that cannot be made stops no other
    blocks = [[day] for day in unlogged] if made.log else _blocks(unlogged)
    requests = [_request(LOG, block, [fingerprint(day) for day in block]) for block in blocks]
    behind = [day for day in days[-HEALED_DAYS:] if day in made.log and _is_behind(day, made)]
    requests += [_request(METRICS, block, [_inputs(day, made) for day in block]) for block in _blocks(behind)]
    if requests:
        asked = [f"the log of {_words(unlogged)}"] if unlogged else []
        asked += [f"online metrics of {_words(behind)}"] if behind else []
        return Watch(requests, f"Asks for {' and '.join(asked)}.")
    waiting = [day for day in days[-HEALED_DAYS:] if day not in made.events]
    told = f" Events of {_words(waiting)} have not been made yet." if waiting else ""
    return Watch((), f"Nothing new: {_words(days)} are made.{told}")


def _is_behind(day: str, made: Made) -> bool:
    """Whether a day whose events are there was never measured, or its log or events, or the next day's, are newer."""
    if day not in made.events:
        return False
    inputs = (made.log.get(day, 0), made.events[day], made.events.get(_after(day), 0))
    return made.metrics.get(day, 0) < max(inputs)


def _inputs(day: str, made: Made) -> str:
    return f"{made.log.get(day, 0)}.{made.events.get(day, 0)}.{made.events.get(_after(day), 0)}"


def _after(day: str) -> str:
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()


def _blocks(days: Sequence[str]) -> list[list[str]]:
    """Return days without gaps, each block a run."""
    blocks: list[list[str]] = []
    for day in days:
        if blocks and day == _after(blocks[-1][-1]):
            blocks[-1].append(day)
        else:
            blocks.append([day])
    return blocks


def _request(asset: dg.AssetKey, days: Sequence[str], made_from: Sequence[str]) -> dg.RunRequest:
    """Ask for a run once: its key names what the days are made from, so that a failed run is not asked for again."""
    digest = hashlib.sha256("|".join(made_from).encode()).hexdigest()[:16]
    return dg.RunRequest(
        run_key=f"{asset.to_user_string()}-{days[0]}..{days[-1]}-{digest}",
        asset_selection=[asset],
        tags={RANGE_START: days[0], RANGE_END: days[-1], **WATCH_TAGS},
    )


def _words(days: Sequence[str]) -> str:
    return days[0] if len(days) == 1 else f"{len(days)} days ({days[0]} to {days[-1]})"


@dg.sensor(
    name="watching_sensor",
    asset_selection=dg.AssetSelection.assets(LOG, METRICS),
    minimum_interval_seconds=interval_s(300),
    default_status=DEFAULT_STATUS,
    description="Makes the log of each day once it is over, and its online metrics when its events are there.",
)
def watching_sensor(context: dg.SensorEvaluationContext, prediction_logs: PredictionLogs) -> dg.SensorResult:
    """Each tick says what it did and why."""
    storage = context.instance.event_log_storage
    made = Made(
        *(
            storage.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION)
            for key in (LOG, METRICS, EVENTS)
        )
    )
    ended = daily_partitions.get_partition_keys(current_time=clock.utc_now() - prediction_logs.delay)
    going = unfinished_runs(context.instance, get_settings().data_dir)
    watch = decide(prediction_logs.days(), ended, made, prediction_logs.fingerprint, going)
    context.log.info(watch.sentence)
    told = None if watch.requests else dg.SkipReason(watch.sentence)
    return dg.SensorResult(run_requests=list(watch.requests), skip_reason=told)
