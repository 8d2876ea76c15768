"""What the schedules ask for, on a real instance in which nothing has been made yet."""

import logging
from datetime import UTC, datetime
from types import SimpleNamespace

import dagster as dg
import pytest

from bigger_boat.assets.verdicts import RANGE_END, RANGE_START
from bigger_boat.automation.arrival import days_behind
from bigger_boat.automation.jobs import REASON_TAG
from bigger_boat.data.landing_index import DayEntry, LandingIndex
from bigger_boat.resources.landing_zone import LandingZone

NOW = datetime(2026, 10, 9, 2, 30, tzinfo=UTC)


def index_of(*days: str) -> LandingIndex:
    return LandingIndex({day: DayEntry(1, f"content of {day}", {"browsing": 1}) for day in days})


@pytest.fixture(scope="module")
def graph():
    from bigger_boat.definitions import defs

    return defs.resolve_asset_graph()


def test_all_days_that_are_behind_are_asked_for_once_a_day(graph):
    index = index_of("2026-10-01", "2026-10-02", "2026-10-05", "2026-10-09")  # the last is today: it has not ended
    with dg.DagsterInstance.ephemeral() as instance:
        requests, sentence = days_behind(graph, instance, index, NOW)
        tomorrow, _ = days_behind(graph, instance, index, NOW.replace(day=10))
        nothing, why = days_behind(graph, instance, LandingIndex(), NOW)
    by_day = [one for one in requests if RANGE_START in one.tags]
    assert [(one.tags[RANGE_START], one.tags[RANGE_END]) for one in by_day] == [
        ("2026-10-01", "2026-10-02"),
        ("2026-10-05", "2026-10-05"),
    ]
    assert all(one.tags[REASON_TAG] == sentence for one in requests)
    assert sentence.startswith("2026-10-01, 2026-10-02, 2026-10-05 and the catalogue behind: asks for 3 days in 3 runs")
    assert {one.run_key for one in requests}.isdisjoint(one.run_key for one in tomorrow)
    assert (nothing, why) == ([], "Nothing has landed yet.")


def test_what_looks_after_things_is_on_and_what_costs_is_off():
    from bigger_boat.automation.schedules import SCHEDULES

    statuses = {schedule.name: schedule.default_status.value for schedule in SCHEDULES}
    assert statuses == {"weekly_retraining": "STOPPED", "daily_healing": "RUNNING", "artefact_sweeping": "RUNNING"}


def test_a_tick_of_the_healing_says_that_there_is_nothing_to_heal(tmp_path, graph):
    from bigger_boat.automation.schedules import daily_healing

    context = SimpleNamespace(
        scheduled_execution_time=NOW,
        repository_def=SimpleNamespace(asset_graph=graph),
        instance=None,  # nothing has landed: it is not asked what was made
        log=logging.getLogger("tick"),
    )
    landing_zone = LandingZone(path=str(tmp_path))
    reason = daily_healing._execution_fn.decorated_fn(context, landing_zone=landing_zone)
    assert reason == dg.SkipReason("Nothing has landed yet.")
