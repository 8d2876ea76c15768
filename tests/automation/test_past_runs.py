"""What past runs say, on a small graph with a real instance whose runs are made by hand."""

import dagster as dg
import pytest

from bigger_boat.assets.verdicts import RANGE_END, RANGE_START
from bigger_boat.automation import past_runs
from bigger_boat.automation.estimate import Observation
from bigger_boat.automation.past_runs import AROUND_DAYS, AROUND_OTHERS, SIZE_TAG, foresee, history
from bigger_boat.automation.plan import Plan
from bigger_boat.data.landing_index import DayEntry, LandingIndex

DAYS = ("2026-10-01", "2026-10-02", "2026-10-20")
ROWS = {"2026-10-01": 100, "2026-10-02": 300, "2026-10-20": 50}
DAILY = dg.DailyPartitionsDefinition(DAYS[0])


@dg.asset(partitions_def=DAILY, group_name="warehouse", backfill_policy=dg.BackfillPolicy.single_run())
def table() -> None: ...


@dg.asset(group_name="models", deps=[table])
def model() -> None: ...


@pytest.fixture
def world():
    definitions = dg.Definitions(assets=[table, model])
    rows = {day: DayEntry(1, "f", {"browsing": n - 10, "search": 10, "rejected": 7}) for day, n in ROWS.items()}
    with dg.DagsterInstance.ephemeral() as instance:
        yield definitions, instance, LandingIndex(rows)


def run(world, *names, tags):
    definitions, instance, _ = world
    job = definitions.resolve_implicit_global_asset_job_def()
    keys = [dg.AssetKey(name) for name in names]
    assert job.execute_in_process(instance=instance, asset_selection=keys, tags=tags).success


def seen(world, size="quick"):
    definitions, instance, index = world
    return history(definitions.resolve_asset_graph(), instance, index, size)


def test_a_run_of_days_counts_their_landed_rows(world):
    run(world, "table", tags={RANGE_START: DAYS[0], RANGE_END: DAYS[1]})
    run(world, "table", tags={"dagster/partition": DAYS[2]})
    got = seen(world)
    assert [each.rows for each in got["table"]] == [50, 400]
    assert [each.rows for each in got[AROUND_DAYS]] == [50, 400]
    assert all(each.seconds > 0 for name in ("table", AROUND_DAYS) for each in got[name])
    assert "model" not in got


def test_training_of_another_size_tells_nothing(world):
    run(world, "model", tags={SIZE_TAG: "quick"})
    assert [each.rows for each in seen(world)["model"]] == [0]
    assert len(seen(world)[AROUND_OTHERS]) == 1
    assert seen(world, "full") == {}


def test_a_failed_run_tells_nothing(world):
    _, instance, _ = world
    run(world, "model", tags={SIZE_TAG: "quick"})
    [done] = instance.get_runs()
    instance.report_run_failed(done)
    assert seen(world) == {}


def test_a_plan_is_reckoned_by_its_ranges_of_days(world, monkeypatch):
    """400 rows took 8 s and 2 s around them; the plan has 450 in two ranges (the days are over a week apart)."""
    definitions, instance, index = world
    past = {"table": [Observation(400, 8.0)], AROUND_DAYS: [Observation(400, 2.0)]}
    monkeypatch.setattr(past_runs, "history", lambda *_: past)
    plan = Plan(DAYS, (table.key,), (model.key,))
    got = foresee(plan, definitions.resolve_asset_graph(), instance, index, "quick")
    assert (got.days, got.rows, got.unknown) == (3, 450, ("model",))
    assert got.seconds == pytest.approx(8.0 + 1.0 + 2.0 + 0.25)
    assert got.warehouse_s == pytest.approx(8.0 + 1.0)
