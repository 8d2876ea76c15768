"""What the schedules ask for, on a real instance in which nothing has been made yet."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from bigger_boat.assets.verdicts import RANGE_END, RANGE_START
from bigger_boat.automation.arrival import days_behind
from bigger_boat.automation.jobs import REASON_TAG
from bigger_boat.data.landing import land
from bigger_boat.data.landing_index import DayEntry, LandingIndex
from bigger_boat.data.simulator import simulate
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


def test_a_tick_of_the_healing_asks_for_what_is_behind_unless_it_is_being_made(tmp_path):
    from bigger_boat.automation.schedules import daily_healing
    from bigger_boat.definitions import defs

    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:

        def tick() -> list[dg.RunRequest] | dg.SkipReason:
            with dg.build_schedule_context(  # closed: one that is left behind hands its instance to later tests
                instance=instance,
                scheduled_execution_time=NOW,
                repository_def=defs.get_repository_def(),
                resources={"landing_zone": LandingZone(path=str(tmp_path / "landing"))},
            ) as context:
                return daily_healing(context)

        assert tick() == dg.SkipReason("Nothing has landed yet.")
        simulate(tmp_path / "shop", sessions=50, days=2, products=20, seed=1, end_date=(NOW - timedelta(days=1)).date())
        land(tmp_path / "shop", tmp_path / "landing", now=NOW)
        catalogue, days = tick()
        assert RANGE_START not in catalogue.tags
        assert (days.tags[RANGE_START], days.tags[RANGE_END]) == ("2026-10-07", "2026-10-08")
        run = instance.create_run_for_job(defs.resolve_job_def("heal_days_job"), status=dg.DagsterRunStatus.STARTED)
        assert tick().skip_message.startswith(f"run {run.run_id} is going on")
