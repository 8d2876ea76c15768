"""When the days of what is live are made: a truth table on the decision."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "data"))  # importlib mode puts no test folder on the path

from prediction_lines import line, write_log

from bigger_boat import clock
from bigger_boat.assets.verdicts import RANGE_END, RANGE_START
from bigger_boat.automation.watching import Made, Watch, decide, watching_sensor
from bigger_boat.partitions import daily_partitions
from bigger_boat.resources.prediction_logs import LocalPredictionLogs

DAYS = [f"2026-11-{day:02}" for day in range(1, 7)]
LOGGED = DAYS[2:]
"""The first two days of the graph had no answers yet."""
LOG = {day: 100 + n for n, day in enumerate(LOGGED)}
EVENTS = {day: 10 + n for n, day in enumerate(DAYS)}
METRICS = {day: 200 + n for n, day in enumerate(LOGGED)}
ALL = Made(LOG, METRICS, EVENTS)


def without(records: dict[str, int], *days: str) -> dict[str, int]:
    return {day: record for day, record in records.items() if day not in days}


def ask(made: Made = ALL, logged: Sequence[str] = LOGGED, running: Sequence[str] = ()) -> Watch:
    return decide(logged, DAYS, made, lambda day: f"files of {day}", running)


def asked(watch: Watch) -> list[tuple[str, str, str]]:
    first, last = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
    return [(one.asset_selection[0].to_user_string(), one.tags[first], one.tags[last]) for one in watch.requests]


TABLE = {
    "nothing new": (ask(), [], "Nothing new: 4 days (2026-11-03 to 2026-11-06) are made."),
    "no answers at all": (ask(logged=()), [], "No day with answers is over yet."),
    "answers of today only": (ask(logged=["2026-11-07"]), [], "No day with answers is over yet."),
    "first look": (
        ask(Made({}, {}, EVENTS)),
        [("prediction_log", "2026-11-03", "2026-11-06")],
        "Asks for the log of 4 days (2026-11-03 to 2026-11-06).",
    ),
    "a day is over": (
        ask(Made(without(LOG, DAYS[5]), without(METRICS, DAYS[5]), without(EVENTS, DAYS[5]))),
        [("prediction_log", "2026-11-06", "2026-11-06")],
        "Asks for the log of 2026-11-06.",
    ),
    "its events have not come": (
        ask(Made(LOG, without(METRICS, DAYS[5]), without(EVENTS, DAYS[5]))),
        [],
        "Nothing new: 4 days (2026-11-03 to 2026-11-06) are made. Events of 2026-11-06 have not been made yet.",
    ),
    "its events have come": (
        ask(replace(ALL, metrics=without(METRICS, DAYS[5]))),
        [("online_metrics", "2026-11-06", "2026-11-06")],
        "Asks for online metrics of 2026-11-06.",
    ),
    "a late day changes it and the day before": (
        ask(replace(ALL, events={**EVENTS, DAYS[4]: 300})),
        [("online_metrics", "2026-11-04", "2026-11-05")],
        "Asks for online metrics of 2 days (2026-11-04 to 2026-11-05).",
    ),
    "its log was made again": (
        ask(replace(ALL, log={**LOG, DAYS[3]: 300})),
        [("online_metrics", "2026-11-04", "2026-11-04")],
        "Asks for online metrics of 2026-11-04.",
    ),
    "two gaps are two runs": (
        ask(replace(ALL, log=without(LOG, DAYS[2], DAYS[4]))),
        [("prediction_log", "2026-11-03", "2026-11-03"), ("prediction_log", "2026-11-05", "2026-11-05")],
        "Asks for the log of 2 days (2026-11-03 to 2026-11-05).",
    ),
    "a day that cannot be made stops no other": (
        ask(Made(without(LOG, DAYS[3], DAYS[4]), without(METRICS, *DAYS[3:]), EVENTS)),
        [(name, day, day) for name, day in (("prediction_log", DAYS[3]), ("prediction_log", DAYS[4]))]
        + [("online_metrics", DAYS[5], DAYS[5])],
        "Asks for the log of 2 days (2026-11-04 to 2026-11-05) and online metrics of 2026-11-06.",
    ),
    "a run is going on": (ask(Made({}, {}, EVENTS), running=["run 1"]), [], "Waits for run 1."),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_decision(case):
    watch, requests, sentence = TABLE[case]
    assert asked(watch) == requests
    assert watch.sentence == sentence


def test_asked_twice_is_run_once_and_other_content_is_another_run():
    missing = Made({}, {}, EVENTS)
    [first], [again] = ask(missing).requests, ask(missing).requests
    assert first.run_key == again.run_key
    [other] = decide(LOGGED, DAYS, missing, lambda day: f"more files of {day}").requests
    assert other.run_key != first.run_key
    healed = [ask(replace(ALL, events={**EVENTS, DAYS[5]: record})).requests[0].run_key for record in (300, 301)]
    assert healed[0] != healed[1]


def test_a_long_log_is_begun_with_its_last_days():
    ended = [f"2026-{month:02}-{day:02}" for month in range(1, 7) for day in range(1, 29)]
    [request, *_] = decide(ended, ended, Made({}, {}, {}), str).requests
    assert request.tags["dagster/asset_partition_range_start"] == ended[-90]


def test_a_log_that_is_late_is_waited_for(tmp_path, monkeypatch):
    class Late(LocalPredictionLogs):
        @property
        def delay(self) -> timedelta:
            return timedelta(minutes=30)

    write_log(tmp_path, "2026-11-20", line("r-1"))
    asked = {}
    for minute in (29, 31):
        now = datetime(2026, 11, 21, 0, minute, tzinfo=UTC)
        monkeypatch.setattr(clock, "utc_now", lambda now=now: now)
        with dg.DagsterInstance.ephemeral() as instance:
            resources = {"prediction_logs": Late(path=str(tmp_path))}
            asked[minute] = watching_sensor(dg.build_sensor_context(instance=instance, resources=resources))
    assert asked[29].skip_reason.skip_message == "No day with answers is over yet."
    assert asked[31].run_requests[0].tags[RANGE_END] == "2026-11-20"


def test_the_sensor_reads_log_and_history(tmp_path):
    logs = LocalPredictionLogs(path=str(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:

        def tick() -> dg.SensorResult:
            return watching_sensor(dg.build_sensor_context(instance=instance, resources={"prediction_logs": logs}))

        assert tick().skip_reason.skip_message == "No day with answers is over yet."
        day = daily_partitions.get_last_partition_key()
        write_log(tmp_path, day, line("r-1"))
        [request] = tick().run_requests
        assert (request.asset_selection, request.tags[RANGE_START]) == ([dg.AssetKey("prediction_log")], day)
        instance.report_runless_asset_event(dg.AssetMaterialization("prediction_log", partition=day))
        assert tick().skip_reason.skip_message.startswith("Nothing new: ")
        instance.report_runless_asset_event(dg.AssetMaterialization("distinct_events", partition=day))
        [request] = tick().run_requests
        assert (request.asset_selection, request.tags[RANGE_END]) == ([dg.AssetKey("online_metrics")], day)
