"""When a model is trained again: a truth table on the decision, and what an instance tells as evidence."""

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from bigger_boat.automation.retraining import (
    Asked,
    Evidence,
    Memory,
    Serving,
    decide,
    drift_is_asked_for,
    gather,
    retraining_sensor,
    session_days,
)
from bigger_boat.errors import SettingsError
from bigger_boat.ml.online_decline import Decline
from bigger_boat.settings import get_settings

NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
SERVING = Serving("v1", "2026-10-01", "2026-11-12", (NOW - timedelta(days=7)).timestamp())
QUIET = Evidence(SERVING, days=45, new_days=2, changed_days=1, newest_record=100, psi=0.05)
ENOUGH = replace(QUIET, new_days=6)
FELL = Decline("mrr", 0.40, 0.32, 0.20, True, "first days", "2026-11-19")
OFFLINE = replace(FELL, against="offline number", fall=0.29)


def asked(hours_ago: float, times: int = 1, record: int = 50, version: str = "v0") -> Asked:
    at = NOW - timedelta(hours=hours_ago)
    return Asked(at.timestamp(), record, version, at.date().isoformat(), times)


TABLE = {
    "quiet": (QUIET, Asked(), False, "2 new and 1 changed days of 7, PSI 0.05 of 0.25, 7.0 of 30 days old"),
    "drift unknown": (replace(QUIET, psi=None), Asked(), False, "drift not measured"),
    "enough days": (ENOUGH, Asked(), True, "6 new and 1 changed days since 2026-11-12 (7 are enough)"),
    "healed days alone": (replace(QUIET, new_days=0, changed_days=7), Asked(), True, "0 new and 7 changed days"),
    "drift": (replace(QUIET, new_days=3, psi=0.3), Asked(), True, "PSI 0.30 (over 0.25) in 3 new days"),
    "drift of a weekend": (replace(QUIET, new_days=2, psi=0.9), Asked(), False, "PSI 0.90 of 0.25"),
    "scores moved": (replace(QUIET, score_psi=0.4), Asked(), True, "its scores have moved: PSI 0.40 (over 0.25)"),
    "scores moved a little": (replace(QUIET, score_psi=0.2), Asked(), False, "no retraining"),
    "worse than at first": (
        replace(QUIET, decline=FELL),
        Asked(),
        True,
        "its online mrr became 20% worse than its first days: 0.400, now 0.320 (15% is too much)",
    ),
    "worse, perhaps by chance": (replace(QUIET, decline=replace(FELL, clear=False)), Asked(), False, "mrr 0.320"),
    "a little worse": (replace(QUIET, decline=replace(FELL, fall=0.1)), Asked(), False, "online mrr 0.320"),
    "below offline": (replace(QUIET, decline=OFFLINE), Asked(), False, "no retraining"),
    "far below offline": (replace(QUIET, decline=replace(OFFLINE, fall=0.31)), Asked(), True, "its offline number"),
    "worse, and no new day": (replace(QUIET, new_days=0, decline=FELL), Asked(), False, "no retraining"),
    "worse, and trained on that": (
        replace(QUIET, decline=FELL),
        asked(48, record=100, version="v1"),
        False,
        "on this very data",
    ),
    "old": (replace(QUIET, serving=replace(SERVING, since=0.0)), Asked(), True, "days (30 are the most)"),
    "nothing serves": (Evidence(None, 28, 28, 0, 9), Asked(), True, "nothing serves yet and 28 days are there"),
    "too few days": (Evidence(None, 6, 6, 0, 9), Asked(), False, "6 days are there and 7 are needed"),
    "nothing landed": (Evidence(None, 0, 0, 0, 0), Asked(), False, "0 days are there and 7 are needed"),
    "cools down": (ENOUGH, asked(2), False, "asked 2.0 h ago, 6 h have to pass"),
    "has cooled down": (ENOUGH, asked(7), True, "retrains"),
    "often today": (ENOUGH, asked(8, times=2), False, "trained 2 times today, which is the most"),
    "often yesterday": (ENOUGH, asked(25, times=2), True, "retrains"),
    "same evidence": (ENOUGH, asked(48, record=100, version="v1"), False, "on this very data at 2026-11-18 09:00 UTC"),
    "one day more": (replace(ENOUGH, newest_record=101), asked(48, record=100, version="v1"), True, "retrains"),
    "other version serves": (ENOUGH, asked(48, record=100, version="v0"), True, "retrains"),
}


@pytest.mark.parametrize("case", TABLE)
def test_the_decision(case):
    seen, before, train, words = TABLE[case]
    verdict = decide("intent", seen, before, NOW)
    assert verdict.train is train, verdict.sentence
    assert words in verdict.sentence
    assert verdict.sentence.startswith("intent: ")


def test_an_old_model_is_trained_again_on_the_same_data_once_it_has_cooled_down():
    old = replace(QUIET, serving=replace(SERVING, since=0.0))
    assert not decide("intent", old, asked(2, record=100, version="v1"), NOW).train
    assert decide("intent", old, asked(30, record=100, version="v1"), NOW).train


def test_drift_is_measured_first_when_there_is_enough_to_measure():
    unknown = replace(QUIET, new_days=3, psi=None)
    assert drift_is_asked_for([QUIET, unknown])
    assert not drift_is_asked_for([QUIET])
    assert not drift_is_asked_for([replace(unknown, new_days=2)])
    assert not drift_is_asked_for([Evidence(None, 28, 28, 0, 9)])


def test_the_memory_counts_per_day_and_comes_back_as_it_was():
    memory = Memory().asking("intent", QUIET, NOW).asking("intent", QUIET, NOW + timedelta(hours=7))
    assert memory.of("intent") == Asked((NOW + timedelta(hours=7)).timestamp(), 100, "v1", "2026-11-20", 2)
    assert memory.of("recommendation") == Asked()
    tomorrow = memory.asking("intent", QUIET, NOW + timedelta(days=1))
    assert tomorrow.of("intent").times == 1
    assert Memory.from_cursor(memory.cursor()) == memory


@pytest.mark.parametrize("cursor", [None, "", "no json", "[]", '{"intent": 1}', '{"intent": {"odd": 1}}'])
def test_a_cursor_that_is_none_counts_as_nothing_asked(cursor):
    assert Memory.from_cursor(cursor) == Memory()


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def report(instance, name, day=None, **metadata):
    instance.report_runless_asset_event(dg.AssetMaterialization(name, partition=day, metadata=metadata))


def days(first: int, last: int) -> list[str]:
    return [f"2026-11-{day:02}" for day in range(first, last + 1)]


def test_evidence_of_an_instance_where_nothing_serves(instance):
    for day in days(1, 3):
        report(instance, "sessions", day)
    seen = gather(instance, "intent", session_days(instance))
    assert (seen.serving, seen.days, seen.new_days, seen.psi) == (None, 3, 3, None)


def test_days_that_came_or_changed_after_the_data_set_was_read_count(instance):
    for day in days(1, 10):
        report(instance, "sessions", day)
    report(instance, "intent_dataset")
    report(instance, "sessions", "2026-11-04")  # made again after the data set was read, while the model was trained
    report(instance, "intent_endpoint", window={"first": "2026-11-01", "last": "2026-11-10", "count": 10}, version="v1")
    report(instance, "sessions", "2026-11-07")
    report(instance, "sessions", "2026-11-11")
    report(instance, "intent_dataset")  # of a later training that was refused
    seen = gather(instance, "intent", session_days(instance))
    assert seen.serving.version == "v1"
    assert (seen.days, seen.new_days, seen.changed_days, seen.psi) == (11, 1, 2, None)


def test_only_a_drift_report_that_holds_the_newest_day_and_this_window_counts(instance):
    for day in days(1, 10):
        report(instance, "sessions", day)
    report(instance, "intent_dataset")
    report(instance, "intent_endpoint", window={"first": "2026-11-01", "last": "2026-11-06", "count": 6}, version="v1")
    told = {"psi_by_window": {"2026-11-03": 0.5, "2026-11-06": 0.31}, "measured_to": "2026-11-10"}
    report(instance, "drift_report", **told)
    assert gather(instance, "intent", session_days(instance)).psi == 0.31
    report(instance, "sessions", "2026-11-11")
    assert gather(instance, "intent", session_days(instance)).psi is None
    report(instance, "drift_report", psi_by_window={"2026-11-02": 0.5}, measured_to="2026-11-11")
    assert gather(instance, "intent", session_days(instance)).psi is None


def test_a_version_serves_since_the_server_says_so(instance):
    report(instance, "sessions", "2026-11-01")
    window = {"first": "2026-11-01", "last": "2026-11-05", "count": 5}
    for since in ("2026-11-20T09:00:00.000+00:00", "not loaded yet: no server is up"):
        report(instance, "intent_endpoint", window=window, version="v1", since=since)
        serving = gather(instance, "intent", session_days(instance)).serving
        assert (serving.since == NOW.timestamp()) == since.startswith("2026"), since


def test_what_the_last_logged_day_says_of_the_serving_version_is_evidence(instance):
    for day in days(1, 10):
        report(instance, "sessions", day)
    report(instance, "intent_endpoint", window={"first": "2026-11-01", "last": "2026-11-06", "count": 6}, version="v1")
    assert gather(instance, "intent", session_days(instance)).decline is None
    told = {"v1": asdict(FELL), "v0": asdict(replace(FELL, fall=0.9))}
    report(instance, "online_metrics", "2026-11-10", declines=dg.MetadataValue.json(told))
    report(instance, "prediction_log", "2026-11-10", score_psi=dg.MetadataValue.json({"v1": 0.3}))
    report(instance, "online_metrics", "2026-11-09", declines=dg.MetadataValue.json({}))  # made later
    report(instance, "prediction_log", "2026-11-09", score_psi=dg.MetadataValue.json({"v1": 0.0}))
    seen = gather(instance, "intent", session_days(instance))
    assert (seen.score_psi, seen.decline) == (0.3, FELL)


def test_after_a_rollback_the_evidence_is_of_the_version_that_serves(instance):
    for day in days(1, 10):
        report(instance, "sessions", day)
    older, newer = ({"first": "2026-11-01", "last": f"2026-11-{last:02}", "count": last} for last in (6, 9))
    report(instance, "intent_dataset")
    report(instance, "intent_endpoint", window=older, version="v1")
    before = gather(instance, "intent", session_days(instance))
    report(instance, "sessions", "2026-11-03")  # made again: v2 has seen it, v1 has not
    report(instance, "intent_dataset")
    report(instance, "intent_endpoint", window=newer, version="v2")
    assert gather(instance, "intent", session_days(instance)).serving.version == "v2"
    back = {"action": "rolled back", "window": older, "version": "v1"}
    instance.report_runless_asset_event(dg.AssetObservation("intent_endpoint", metadata=back))
    seen = gather(instance, "intent", session_days(instance))
    assert seen.serving == before.serving, "its age, too, is that of its own deployment"
    assert (seen.new_days, seen.changed_days) == (4, 1)


def test_a_training_takes_all_that_stands_behind_the_endpoint_and_nothing_else():
    from bigger_boat.automation.retraining import _assets
    from bigger_boat.definitions import defs

    graph = defs.resolve_asset_graph()
    recommendation = {key.to_user_string() for key in _assets(graph, ["recommendation"])}
    assert {
        "recommendation_dataset",
        "product_embeddings",
        "recommendation_champion",
        "prediction_api",
    } < recommendation
    assert not recommendation & {"intent_model", "intent_endpoint", "sessions", "products", "drift_report"}
    both = {key.to_user_string() for key in _assets(graph, ["intent", "recommendation"])}
    assert recommendation < both
    assert "intent_champion" in both


@pytest.fixture
def retraining(monkeypatch: pytest.MonkeyPatch):
    """Have the setting say what is trained, and days pass their checks."""

    def says(selection: str) -> None:
        set_so = get_settings().model_copy(update={"retrain": selection})
        monkeypatch.setattr("bigger_boat.automation.retraining.get_settings", lambda: set_so)
        monkeypatch.setattr("bigger_boat.automation.retraining.days_in_doubt", lambda *_: set())

    return says


def test_what_a_setting_leaves_out_is_not_trained(retraining):
    from bigger_boat.automation.retraining import _assets
    from bigger_boat.definitions import defs

    graph = defs.resolve_asset_graph()
    everything = _assets(graph, ["recommendation"])
    left_out = {dg.AssetKey("prodb_recommender"), dg.AssetKey("hybrid_recommender")}
    retraining("not (prodb_recommender or hybrid_recommender)")
    assert _assets(graph, ["recommendation"]) == everything - left_out < everything


def test_the_weekly_retraining_is_off_and_asks_for_one_run_when_it_is_on():
    from bigger_boat.definitions import defs

    schedule = defs.resolve_schedule_def("weekly_retraining")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    monday = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
    tick = schedule.evaluate_tick(dg.build_schedule_context(scheduled_execution_time=monday))
    [request] = tick.run_requests
    assert request.tags["bigger_boat/reason"] == "Monday, 03:00 UTC: the weekly retraining."


def test_a_training_waits_for_days_whose_checks_have_not_passed_and_its_evidence_is_kept(instance):
    from bigger_boat.definitions import defs

    for day in days(1, 28):
        report(instance, "sessions", day)
    with dg.build_sensor_context(instance=instance, repository_def=defs.get_repository_def()) as context:
        told = retraining_sensor(context)
    assert not told.run_requests
    assert "intent: retrains, nothing serves yet and 28 days are there" in told.skip_reason.skip_message
    waits = "But it waits: checks have not passed on 28 days (2026-11-01 to 2026-11-28)."
    assert told.skip_reason.skip_message.endswith(waits)
    assert Memory.from_cursor(told.cursor) == Memory()


def test_nothing_is_asked_for_where_the_setting_leaves_out_all_that_is_due(instance, retraining):
    """Dagster would take a request for no assets for one of all."""
    from bigger_boat.definitions import defs

    for day in days(1, 28):
        report(instance, "sessions", day)
    retraining("sessions")
    with dg.build_sensor_context(instance=instance, repository_def=defs.get_repository_def()) as context:
        told = retraining_sensor(context)
    assert not told.run_requests
    assert told.skip_reason.skip_message.endswith("But BIGGER_BOAT_RETRAIN leaves out all of it.")
    assert Memory.from_cursor(told.cursor) == Memory(), "it counts as no training"


def test_a_setting_that_cannot_be_read_is_told_before_anything_is_due(instance, retraining):
    from bigger_boat.definitions import defs

    retraining("no_such_model")
    with (
        dg.build_sensor_context(instance=instance, repository_def=defs.get_repository_def()) as context,
        pytest.raises(SettingsError, match="'no_such_model' selects no asset"),
    ):
        retraining_sensor(context)
