"""Watching what is live, by day: the log of answers as a table, and whether the answers were right.

Made by the sensor of ``automation/watching.py`` once a day is over. What belongs elsewhere: the log itself
(``serving/prediction_log.py``), joining and judging (``ml/online_*.py``, ``data/live_checks.py``).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from bigger_boat.assets.common import DATA_OWNERS, SUMMARY, plot, readable_failures, specs_of, table
from bigger_boat.assets.verdicts import DayVerdict, check_result
from bigger_boat.data.drift import Drift
from bigger_boat.data.live_checks import ANSWER_CHECKS, CALIBRATED, NEAR_OFFLINE, ONLINE_CHECKS, Judged
from bigger_boat.data.prediction_files import LOG_TABLES
from bigger_boat.data.vocabulary import ENDPOINTS
from bigger_boat.errors import DatasetError
from bigger_boat.partitions import daily_partitions
from bigger_boat.resources.endpoint_host import EndpointHost
from bigger_boat.resources.prediction_logs import PredictionLogs
from bigger_boat.resources.storage import Storage
from bigger_boat.resources.warehouse import WAREHOUSE_POOL, Warehouse

if TYPE_CHECKING:
    import polars as pl

    from bigger_boat.ml.online_metrics import OnlineMetric

METRIC_TABLES = "monitoring/online_metrics"
SCORE_PSI, DECLINES = "score_psi", "declines"
"""Metadata keys that the retraining sensor reads: by version, drift of scores, and decline of the main metric."""
MAIN_METRICS = {"recommendation": ("mrr", "mrr@20", False), "intent": ("log_loss", None, True)}
"""By endpoint: the metric whose decline counts, the one with a comparable offline number, whether lower is better."""


@dg.asset(
    group_name="monitoring",
    owners=DATA_OWNERS,
    kinds={"python", "polars", "parquet"},
    partitions_def=daily_partitions,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=specs_of("prediction_log", ANSWER_CHECKS),
    code_version="1",
)
def prediction_log(
    context: dg.AssetExecutionContext, prediction_logs: PredictionLogs, storage: Storage
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """Every answer that the endpoints gave on a day, as one table: a row per prediction."""
    from bigger_boat.data.live_checks import judge_answers
    from bigger_boat.data.prediction_summary import summarize
    from bigger_boat.data.prediction_table import build_day, day_table

    judged: dict[str, dict[str, Judged]] = {}
    for day in sorted(context.partition_keys):
        with readable_failures():
            path = day_table(storage.folder(LOG_TABLES), day)
            made = build_day(path, prediction_logs.files(day), prediction_logs.read)
            answers = _read(path)
            rows, drifts = summarize(answers), _score_drift(storage, day)
            judged[day] = judge_answers(rows, made.dropped)
        metadata = {
            SUMMARY: f"{made.answers:,} answers" if made.answers else "no answers",
            "dagster/partition_row_count": made.answers,
            "log_files": made.files,
            "rows_of_swept_files": made.kept,
            "not_logged": made.dropped,
            "log_holds": prediction_logs.holds,
            SCORE_PSI: dg.MetadataValue.json({version: one.psi for version, one in drifts.items()}),
            "versions": table([asdict(row) for row in rows]),
            **_named({check: one.value for check, one in judged[day].items()}),
            **({"plot": _plot_answers(answers)} if made.answers else {}),
        }
        context.add_asset_metadata(metadata, asset_key=context.asset_key, partition_key=day)
    yield dg.MaterializeResult()
    yield from _verdicts(judged)


@dg.asset(
    group_name="monitoring",
    owners=DATA_OWNERS,
    kinds={"python", "polars", "parquet"},
    deps=[prediction_log, "distinct_events"],
    partitions_def=daily_partitions,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool=WAREHOUSE_POOL,
    check_specs=specs_of("online_metrics", ONLINE_CHECKS),
    code_version="1",
)
def online_metrics(
    context: dg.AssetExecutionContext, warehouse: Warehouse, storage: Storage, endpoint_host: EndpointHost
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """Were the day's answers right? By version: what their sessions did next, beside the offline numbers."""
    from bigger_boat.data.live_checks import judge_beside_offline, judge_calibration
    from bigger_boat.ml import online_metrics as online

    judged: dict[str, dict[str, Judged]] = {}
    history = _history(storage, max(context.partition_keys))
    for day in sorted(context.partition_keys):
        with readable_failures():
            answers, events = _logged(storage, day), _events(warehouse, day)
            offline = {endpoint: _offline(endpoint_host, endpoint, answers) for endpoint in ENDPOINTS}
            ranked = online.recommendation_outcomes(answers, events)
            bought = online.intent_outcomes(answers, events)
            metrics = [
                *online.recommendation_metrics(ranked, offline["recommendation"]),
                *online.intent_metrics(bought, offline["intent"]),
            ]
            _write_metrics(storage, day, metrics)
            history[day] = metrics
            declines = _declines({made: told for made, told in sorted(history.items()) if made <= day})
            judged[day] = {
                NEAR_OFFLINE.name: judge_beside_offline(metrics),
                CALIBRATED.name: judge_calibration(metrics),
            }
        joined = len(ranked) + len(bought)
        metadata = {
            SUMMARY: f"{joined:,} of {len(answers):,} answers joined with their sessions",
            "joined_share": joined / max(1, len(answers)),
            DECLINES: dg.MetadataValue.json(declines),
            "metrics": table([{**asdict(one), "says": "" if one.enough else "too few sessions"} for one in metrics]),
            "calibration": table(online.calibration_bins(bought)),
            **_named({f"{one.metric} {one.version}": one.value for one in metrics if one.enough}),
            **_pictures(metrics, bought),
        }
        context.add_asset_metadata(metadata, asset_key=context.asset_key, partition_key=day)
    yield dg.MaterializeResult()
    yield from _verdicts(judged)


def _read(path: Path) -> "pl.DataFrame":
    import polars as pl

    return pl.read_parquet(path)


def _logged(storage: Storage, day: str) -> "pl.DataFrame":
    from bigger_boat.data.prediction_table import day_table

    path = day_table(storage.folder(LOG_TABLES), day)
    if not path.exists():
        raise DatasetError(f"There is no prediction_log of {day}.", "Materialize that day of prediction_log first.")
    return _read(path)


def _score_drift(storage: Storage, day: str) -> dict[str, Drift]:
    from bigger_boat.data.prediction_summary import score_drift
    from bigger_boat.data.prediction_table import read_bins

    return score_drift({made: read_bins(path) for made, path in _tables_until(storage, LOG_TABLES, day)})


def _tables_until(storage: Storage, name: str, day: str) -> list[tuple[str, Path]]:
    """Return the tables of the days up to this one, in order."""
    found = {path.stem.removeprefix("date="): path for path in storage.folder(name).glob("date=*.parquet")}
    return [(made, path) for made, path in sorted(found.items()) if made <= day]


def _events(warehouse: Warehouse, day: str) -> "pl.DataFrame":
    """Return what may follow from a day's answers: products looked at and bought on that day and the next."""
    import polars as pl

    until = date.fromisoformat(day) + timedelta(days=1)
    days = f"between date '{day}' and date '{until}'"
    columns = "session_id, timestamp_ms, action, sku"
    queries = (
        f"select {columns}, cast(null as varchar) as request_id from distinct_events"
        f" where event_date {days} and action in ('detail', 'click', 'purchase')",
        f"select {columns}, request_id from stg_browsing where event_date {days} and request_id is not null",
    )
    parts = []
    for sql in queries:
        with warehouse.read(sql) as reader:
            parts.append(pl.DataFrame(pl.from_arrow(reader.read_all())).rename(str.lower))
    return pl.concat(parts, how="vertical_relaxed").cast({"timestamp_ms": pl.Int64, "request_id": pl.String})


def _offline(endpoint_host: EndpointHost, endpoint: str, answers: "pl.DataFrame") -> dict[str, dict[str, float]]:
    """Return by version what its bundle says of its configuration on the validation days."""
    found = {}
    versions = answers.filter(answers["endpoint"] == endpoint)["version"].unique().sort()
    for version in versions:
        info = (endpoint_host.description(endpoint, version) or {}).get("info", {})
        scores = info.get("metrics", {}).get("validation", {}).get(info.get("configuration", {}).get("kind", ""), {})
        found[version] = scores.get("pooled", scores)
    return found


def _write_metrics(storage: Storage, day: str, metrics: Sequence["OnlineMetric"]) -> None:
    from bigger_boat.data.prediction_table import day_table
    from bigger_boat.ml.online_metrics import write_metrics

    write_metrics(day_table(storage.folder(METRIC_TABLES), day), metrics)


def _history(storage: Storage, day: str) -> dict[str, Sequence["OnlineMetric"]]:
    """Return the metrics of the days up to this one, by day."""
    from bigger_boat.ml.online_metrics import read_metrics

    return {made: read_metrics(path) for made, path in _tables_until(storage, METRIC_TABLES, day)}


def _declines(history: Mapping[str, Sequence["OnlineMetric"]]) -> dict[str, dict[str, Any]]:
    """Return by version how much worse its last days are, as far as that can be said.

    ``history``: metrics by day, in order; versions that did not answer on its last day are history themselves.
    """
    from bigger_boat.ml.online_decline import DayValue, decline

    *_, today = history.values()
    answering = {(one.endpoint, one.version) for one in today}
    by_version: dict[tuple[str, str], dict[str, list[DayValue]]] = {}
    offline: dict[tuple[str, str], float | None] = {}
    for made, told in history.items():
        for one in told:
            if (one.endpoint, one.version) not in answering:
                continue
            key = one.version, one.metric
            by_version.setdefault((one.endpoint, one.version), {}).setdefault(one.metric, []).append(
                DayValue(made, one.value, one.low, one.high, one.answers, one.sessions)
            )
            offline[key] = one.offline
    found = {}
    for (endpoint, version), days in by_version.items():
        metric, comparable, lower = MAIN_METRICS[endpoint]
        one = decline(metric, days.get(metric, []), None, lower)
        if one is None and comparable:
            one = decline(comparable, days.get(comparable, []), offline.get((version, comparable)), lower)
        if one:
            found[version] = asdict(one)
    return found


def _plot_answers(answers: "pl.DataFrame") -> dg.MarkdownMetadataValue:
    from bigger_boat.data.monitoring_plots import plot_answers

    return plot(plot_answers(answers))


def _pictures(metrics: Sequence["OnlineMetric"], bought: "pl.DataFrame") -> dict[str, dg.MarkdownMetadataValue]:
    from bigger_boat.data.monitoring_plots import plot_beside_offline
    from bigger_boat.ml.intent_plots import calibration_plot

    shown = [one for one in metrics if one.metric not in ("log_loss", "auc", "predicted")]
    pictures = {}
    if shown:
        rows = [{"label": f"{one.metric}  {one.version}  n={one.answers}", **asdict(one)} for one in shown]
        pictures["beside_offline"] = plot(plot_beside_offline(rows))
    if len(bought):
        said = {"all versions": bought["purchase_probability"].to_numpy()}
        pictures["calibration_plot"] = plot(calibration_plot(bought["purchased"].to_numpy(), said))
    return pictures


def _named(values: Mapping[str, float | None]) -> dict[str, float]:
    """Numbers that the web UI plots over the days."""
    return {name: float(value) for name, value in values.items() if value is not None}


def _verdicts(judged: Mapping[str, Mapping[str, Judged]]) -> Iterator[dg.AssetCheckResult]:
    for name in next(iter(judged.values())):
        verdicts = {
            day: DayVerdict(not checks[name].faults, checks[name].faults, value=checks[name].value)
            for day, checks in judged.items()
        }
        fact = f"{len(verdicts)} days are as they should be, or have too few answers to tell."
        yield check_result(verdicts, check_name=name, fact=fact, severity=dg.AssetCheckSeverity.WARN)
