"""When to train a model again: the decision from evidence, and the sensor that asks for the run.

A model is trained again when enough days have come or changed since the days it was fitted on, when the data or its
own scores have moved away from them, when its answers have become worse, or when it is old. Not while a run is going
on, not twice for the same evidence (a gate that refused once refuses again), not soon after the last time, and not
often in a day. Whether the new one serves, the gate decides.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from bigger_boat import clock
from bigger_boat.assets.common import WINDOW
from bigger_boat.assets.live import DECLINES, SCORE_PSI
from bigger_boat.assets.monitoring import GREAT, MEASURED_TO, PSI_BY_WINDOW
from bigger_boat.assets.quality import blocking_checks, days_in_doubt
from bigger_boat.assets.serving_events import serving_event
from bigger_boat.automation.arrival import named, unfinished_runs
from bigger_boat.automation.costs import in_a_sentence
from bigger_boat.automation.jobs import DEFAULT_STATUS, REASON_TAG, TIMEOUT_TAG, interval_s
from bigger_boat.automation.past_runs import foresee_training
from bigger_boat.automation.selection import select_assets
from bigger_boat.data.landing_index import read_index
from bigger_boat.data.vocabulary import ENDPOINTS
from bigger_boat.ml.online_decline import FIRST_DAYS, Decline
from bigger_boat.settings import get_settings

GROUPS = ("datasets", "embeddings", "models", "evaluation", "champions", "endpoints")
SESSIONS, DRIFT = dg.AssetKey("sessions"), dg.AssetKey("drift_report")
LOG, METRICS = dg.AssetKey("prediction_log"), dg.AssetKey("online_metrics")
RUN_KEY_TAG = "dagster/run_key"
FORESEEN_TAG = "bigger_boat/foreseen"
"""Tag of a training that was asked for: its days and rows, how long it takes, what it costs."""
DRIFT_TAGS = {REASON_TAG: "drift", **TIMEOUT_TAG}
DRIFT_DAYS = 3
"""Fewer days than this say little about drift: a weekend is no week."""


@dataclass(frozen=True)
class Policy:
    """When to train again, and how often at most. A first model waits for ``fewest_days``: a week has its rhythm.

    ``fall``: of the online metric against its first days, as a share; more against its offline number, which is of
    other sessions.
    """

    fewest_days: int = 7
    changed_days: int = 7
    psi: float = GREAT
    fall: float = 0.15
    fall_of_offline: float = 0.30
    age_days: float = 30.0
    cool_down_h: float = 6.0
    per_day: int = 2


@dataclass(frozen=True)
class Serving:
    """The days that the serving version was fitted on, and when it began to serve (s since 1970)."""

    version: str
    first: str
    last: str
    since: float


@dataclass(frozen=True)
class Evidence:
    """What is known of one model. Days are those whose sessions are made; ``changed``: made again since it serves.

    ``score_psi`` and ``decline``: of the answers of the serving version, as its last logged days have them.
    """

    serving: Serving | None
    days: int
    new_days: int
    changed_days: int
    newest_record: int
    psi: float | None = None
    score_psi: float | None = None
    decline: Decline | None = None


@dataclass(frozen=True)
class Asked:
    """When a model was last asked for (s since 1970), on which evidence, and how often on that day (UTC)."""

    at: float = 0.0
    record: int = -1
    version: str = ""
    day: str = ""
    times: int = 0


@dataclass(frozen=True)
class Verdict:
    """Whether to train a model now, and why or why not, in a sentence with numbers."""

    train: bool
    sentence: str


def decide(model: str, seen: Evidence, asked: Asked, now: datetime, policy: Policy = Policy()) -> Verdict:
    """Return whether ``model`` is trained again now."""
    reason = _reason(seen, now, policy)
    if not reason:
        return Verdict(False, f"{model}: no retraining, {_state(seen, now, policy)}.")
    if (asked.record, asked.version) == (seen.newest_record, _version(seen)) and not _is_old(seen, now, policy):
        return Verdict(False, f"{model}: {reason}, but it was trained on this very data at {_clock(asked.at)} already.")
    hours = (now.timestamp() - asked.at) / 3600
    if asked.at and hours < policy.cool_down_h:
        rest = f"asked {hours:.1f} h ago, {policy.cool_down_h:g} h have to pass"
        return Verdict(False, f"{model}: {reason}, but it cools down: {rest}.")
    if asked.day == now.date().isoformat() and asked.times >= policy.per_day:
        return Verdict(False, f"{model}: {reason}, but it was trained {asked.times} times today, which is the most.")
    return Verdict(True, f"{model}: retrains, {reason}.")


def _reason(seen: Evidence, now: datetime, policy: Policy) -> str:
    if seen.days < policy.fewest_days:
        return ""
    if seen.serving is None:
        return f"nothing serves yet and {seen.days} days are there"
    if seen.new_days + seen.changed_days >= policy.changed_days:
        return f"{_news(seen)} since {seen.serving.last} ({policy.changed_days} are enough)"
    if seen.psi is not None and seen.psi > policy.psi and seen.new_days >= DRIFT_DAYS:
        return f"the data have moved: PSI {seen.psi:.2f} (over {policy.psi:g}) in {seen.new_days} new days"
    if seen.new_days and (worse := _worse(seen, policy)):
        return worse
    if _is_old(seen, now, policy):
        return f"it serves for {_age_days(seen, now):.0f} days ({policy.age_days:g} are the most)"
    return ""


def _worse(seen: Evidence, policy: Policy) -> str:
    """Return in words what is worse about the answers of what serves, "" where nothing is or nothing is known."""
    if seen.score_psi is not None and seen.score_psi > policy.psi:
        return f"its scores have moved: PSI {seen.score_psi:.2f} (over {policy.psi:g}) since its first days"
    fell = seen.decline
    most = policy.fall if fell and fell.against == FIRST_DAYS else policy.fall_of_offline
    if fell and fell.clear and fell.fall > most:
        became = f"its online {fell.metric} became {fell.fall:.0%} worse than its {fell.against}"
        return f"{became}: {fell.then:.3f}, now {fell.now:.3f} ({most:.0%} is too much)"
    return ""


def _state(seen: Evidence, now: datetime, policy: Policy) -> str:
    if seen.days < policy.fewest_days:
        return f"{seen.days} days are there and {policy.fewest_days} are needed"
    psi = "drift not measured" if seen.psi is None else f"PSI {seen.psi:.2f} of {policy.psi:g}"
    age = f"{_age_days(seen, now):.1f} of {policy.age_days:g} days old"
    online = f", online {seen.decline.metric} {seen.decline.now:.3f}" if seen.decline else ""
    return f"{_news(seen)} of {policy.changed_days}, {psi}{online}, {age}"


def _news(seen: Evidence) -> str:
    return f"{seen.new_days} new and {seen.changed_days} changed days"


def _is_old(seen: Evidence, now: datetime, policy: Policy) -> bool:
    return seen.serving is not None and _age_days(seen, now) >= policy.age_days


def _age_days(seen: Evidence, now: datetime) -> float:
    return (now.timestamp() - seen.serving.since) / 86_400 if seen.serving else 0.0


def _version(seen: Evidence) -> str:
    return seen.serving.version if seen.serving else ""


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


@dataclass(frozen=True)
class Memory:
    """The sensor's cursor: per model, what was asked for last."""

    asked: Mapping[str, Asked] = field(default_factory=dict)

    @classmethod
    def from_cursor(cls, cursor: str | None) -> "Memory":
        """Read a cursor; one that is none counts as nothing asked."""
        try:
            return cls({model: Asked(**told) for model, told in json.loads(cursor or "{}").items()})
        except (ValueError, TypeError, AttributeError):
            return cls()

    def cursor(self) -> str:
        return json.dumps({model: asdict(asked) for model, asked in self.asked.items()}, separators=(",", ":"))

    def of(self, model: str) -> Asked:
        return self.asked.get(model, Asked())

    def asking(self, model: str, seen: Evidence, now: datetime) -> "Memory":
        """Return the memory after asking for ``model`` now."""
        today, before = now.date().isoformat(), self.of(model)
        times = before.times + 1 if before.day == today else 1
        return Memory({**self.asked, model: Asked(now.timestamp(), seen.newest_record, _version(seen), today, times)})


def session_days(instance: dg.DagsterInstance) -> Mapping[str, int]:
    """Return the days whose sessions are made, each with the record of when: the larger, the later."""
    storage = instance.event_log_storage
    return storage.get_latest_storage_id_by_partition(SESSIONS, dg.DagsterEventType.ASSET_MATERIALIZATION)


def gather(instance: dg.DagsterInstance, model: str, made: Mapping[str, int]) -> Evidence:
    """Return what is known of a model: days of sessions (``made``), what serves, drift, and how its answers were."""
    serving, record = _serving(instance, model)
    if serving is None:
        return Evidence(None, len(made), len(made), 0, max(made.values(), default=0))
    new = [day for day in made if day > serving.last]
    changed = [day for day, storage_id in made.items() if day <= serving.last and storage_id > record]
    psi = _psi(instance, serving, max(made, default=""))
    scores = _last_said(instance, LOG, SCORE_PSI).get(serving.version)
    told = _last_said(instance, METRICS, DECLINES).get(serving.version)
    counts = len(made), len(new), len(changed), max(made.values(), default=0)
    return Evidence(serving, *counts, psi, scores, Decline(**told) if told else None)


def _last_said(instance: dg.DagsterInstance, asset: dg.AssetKey, name: str) -> Mapping[str, Any]:
    """Return what an asset's last day (not the one made last) says by version."""
    storage = instance.event_log_storage
    made = storage.get_latest_storage_id_by_partition(asset, dg.DagsterEventType.ASSET_MATERIALIZATION)
    if not made:
        return {}
    newest = dg.AssetRecordsFilter(asset, storage_ids=[made[max(made)]])
    [record] = instance.fetch_materializations(newest, limit=1).records
    metadata = record.asset_materialization.metadata
    return metadata[name].value if name in metadata else {}  # type: ignore[return-value]


def _serving(instance: dg.DagsterInstance, model: str) -> tuple[Serving | None, int]:
    """Return what serves, and the record of the data set behind it: days with later records are not in it."""
    event = serving_event(instance, model)
    if event is None or WINDOW not in event.metadata:
        return None, 0
    window = event.metadata[WINDOW].value
    data = dg.AssetRecordsFilter(dg.AssetKey(f"{model}_dataset"), before_storage_id=event.deployed_as)
    read = instance.fetch_materializations(data, limit=1).records
    serving = Serving(event.version, window["first"], window["last"], event.deployed_at)
    return serving, read[0].storage_id if read else event.deployed_as


def _psi(instance: dg.DagsterInstance, serving: Serving, newest_day: str) -> float | None:
    event = instance.get_latest_materialization_event(DRIFT)
    metadata = event.asset_materialization.metadata if event else {}
    if PSI_BY_WINDOW not in metadata or metadata[MEASURED_TO].value != newest_day:
        return None
    return metadata[PSI_BY_WINDOW].value.get(serving.last)


def drift_is_asked_for(seen: Sequence[Evidence]) -> bool:
    """Whether drift has to be measured before anything is decided: enough new days, and no report that holds them."""
    return any(e.serving and e.psi is None and e.new_days >= DRIFT_DAYS for e in seen)


@dg.sensor(
    name="retraining_sensor",
    asset_selection=dg.AssetSelection.groups(*GROUPS, "monitoring"),
    minimum_interval_seconds=interval_s(60),
    default_status=DEFAULT_STATUS,
    description="Trains a model again when enough days came or changed, when data or scores moved, when answers became "
    "worse, or when it is old. The gate decides whether the new one serves.",
)
def retraining_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    """Each tick says why, per model; the cursor holds what was asked for last."""
    instance, now, memory = context.instance, clock.utc_now(), Memory.from_cursor(context.cursor)
    graph = context.repository_def.asset_graph
    select_assets(get_settings().retrain, graph)  # one that cannot be read is told now, not when something is due
    if going := unfinished_runs(instance, get_settings().data_dir):
        return _skip(context, memory, f"Waits for {going[0]}.")
    made = session_days(instance)
    evidence = {model: gather(instance, model, made) for model in ENDPOINTS}
    if drift_is_asked_for(list(evidence.values())):
        newest = max(seen.newest_record for seen in evidence.values())
        request = dg.RunRequest(run_key=f"drift-{newest}", asset_selection=[DRIFT], tags=DRIFT_TAGS)
        if not _was_asked(instance, request.run_key):
            context.log.info("Measures drift first.")
            return dg.SensorResult(run_requests=[request], cursor=memory.cursor())
    verdicts = {model: decide(model, seen, memory.of(model), now) for model, seen in evidence.items()}
    due = [model for model, verdict in verdicts.items() if verdict.train]
    said = " ".join(verdict.sentence for verdict in verdicts.values())
    if not due:
        return _skip(context, memory, said)
    if doubted := sorted(days_in_doubt(instance, blocking_checks(), made)):
        # the data sets would refuse them, and what was asked for once is not asked for again
        return _skip(context, memory, f"{said} But it waits: checks have not passed on {named(doubted)}.")
    assets = sorted(_assets(graph, due))
    if not assets:  # asked for nothing, Dagster would make everything
        return _skip(context, memory, f"{said} But BIGGER_BOAT_RETRAIN leaves out all of it.")
    context.log.info(said)
    for model in due:
        memory = memory.asking(model, evidence[model], now)
    key = "-".join([*due, str(max(evidence[model].newest_record for model in due)), f"{now:%Y%m%dT%H%M}"])
    reason = " ".join(verdicts[model].sentence for model in due)
    foreseen = _foreseen(context, assets, made)
    context.log.info(f"It will take {foreseen}")
    request = dg.RunRequest(
        run_key=key,
        asset_selection=assets,
        tags={REASON_TAG: reason[:250], FORESEEN_TAG: foreseen[:250], **TIMEOUT_TAG},
    )
    return dg.SensorResult(run_requests=[request], cursor=memory.cursor())


def _assets(graph, models: Sequence[str]) -> set[dg.AssetKey]:
    """Return the assets from data sets to endpoints that stand behind the endpoints of these models, and the API.

    Those that ``BIGGER_BOAT_RETRAIN`` leaves out stay as they are, such as a candidate that is not worth its time.
    """
    endpoints = dg.AssetSelection.assets(*(f"{model}_endpoint" for model in models))
    around = endpoints.upstream() | endpoints.downstream()
    return set((around & dg.AssetSelection.groups(*GROUPS)).resolve(graph)) & select_assets(
        get_settings().retrain, graph
    )


def _foreseen(context: dg.SensorEvaluationContext, assets: Sequence[dg.AssetKey], days: Iterable[str]) -> str:
    """Return in a sentence what a training will take and cost."""
    settings, graph = get_settings(), context.repository_def.asset_graph
    index = read_index(settings.landing_dir)
    foreseen = foresee_training(assets, days, graph, context.instance, index, settings.size)
    return in_a_sentence(foreseen, settings.profile == "aws" and settings.remote_steps)


def _was_asked(instance: dg.DagsterInstance, run_key: str) -> bool:
    return bool(instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: run_key}), limit=1))


def _skip(context: dg.SensorEvaluationContext, memory: Memory, sentence: str) -> dg.SensorResult:
    context.log.info(sentence)
    return dg.SensorResult(skip_reason=dg.SkipReason(sentence), cursor=memory.cursor())
