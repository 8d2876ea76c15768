"""What a run has to do, as a truth table on a small graph with a real instance."""

import time
from dataclasses import dataclass, field

import dagster as dg
import pytest
from dagster import DagsterEventType
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.events import StepMaterializationData

from bigger_boat.automation.plan import Plan, make_plan
from bigger_boat.data.fingerprint import FINGERPRINT, catalog_fingerprint, landed_content, source_fingerprint
from bigger_boat.data.landing_index import DayEntry, LandingIndex

DAYS = ("2026-10-01", "2026-10-02", "2026-10-03", "2026-10-04")
DAILY = dg.DailyPartitionsDefinition(DAYS[0])
RAW, SEARCH, CATALOG = (dg.AssetKey(["raw", name]) for name in ("browsing_train", "search_train", "sku_to_content"))


def entry(browsing: str, search: str = "s") -> DayEntry:
    return DayEntry(1, browsing + search, {"browsing": 1}, {"browsing": browsing, "search": search})


def index_of(changed: dict[str, str] | None = None, catalog: str = "c1") -> LandingIndex:
    days = {day: entry((changed or {}).get(day, "b")) for day in DAYS}
    return LandingIndex(days=days, catalog=DayEntry(1, catalog, {"catalog": 1}, {"catalog": catalog}))


def graph_of(code_version: str = "1", raw_code: str | None = None):
    """raw/browsing_train [day] -> sessions [day] -> data -> model -> endpoint; raw/sku_to_content -> data."""

    @dg.asset(key=RAW, partitions_def=DAILY, deps=["landing_browsing"], code_version=raw_code)
    def browsing_train(): ...

    @dg.asset(partitions_def=DAILY, deps=[RAW])
    def sessions(): ...

    @dg.asset(key=CATALOG)
    def sku_to_content(): ...

    @dg.asset(deps=["sessions", CATALOG], check_specs=[dg.AssetCheckSpec("holds", asset="data", blocking=True)])
    def data(): ...

    @dg.asset(deps=["data"], code_version=code_version)
    def model(): ...

    @dg.asset(deps=["model"])
    def endpoint(): ...

    landing = dg.AssetSpec("landing_browsing", partitions_def=DAILY)
    assets = [landing, browsing_train, sessions, sku_to_content, data, model, endpoint]
    return dg.Definitions(assets=assets).resolve_asset_graph()


ALL = {"raw/browsing_train", "sessions", "raw/sku_to_content", "data", "model", "endpoint"}


@dataclass
class World:
    """A graph whose every asset was made from ``index`` at size quick."""

    index: LandingIndex = field(default_factory=index_of)
    instance: dg.DagsterInstance = field(default_factory=dg.DagsterInstance.ephemeral)

    def make(self, *names: str, days=DAYS, size="quick") -> None:
        """Record that these assets were made now, from what is landed now."""
        for name in names:
            key = dg.AssetKey.from_user_string(name)
            if name in ("raw/browsing_train", "sessions"):
                for day in days:
                    value = source_fingerprint(landed_content(self.index), key.path[-1], day)
                    self._report(key, {FINGERPRINT: value}, day)
            else:
                known = {
                    "raw/sku_to_content": {FINGERPRINT: catalog_fingerprint(self.index)},
                    "model": {"size": size},
                }
                self._report(key, known.get(name, {}))

    def _report(self, key, metadata, day=None) -> None:
        tags = {"dagster/code_version": "1"} if key.path == ["model"] else {}
        event = dg.AssetMaterialization(key, metadata=metadata, partition=day, tags=tags)
        self.instance.report_runless_asset_event(event)

    def check(self, passed: bool, blocking=True) -> None:
        severity = dg.AssetCheckSeverity.ERROR
        evaluation = dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("data"), check_name="holds", passed=passed, severity=severity, blocking=blocking
        )
        self.instance.report_runless_asset_event(evaluation)

    def plan_check(self) -> str:
        """Plan the check in a run that is killed then; return the run's id."""
        run_id = dg.DagsterRun(job_name="killed").run_id
        self._report_in(
            run_id,
            DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
            AssetCheckEvaluationPlanned(asset_key=dg.AssetKey("data"), check_name="holds"),
        )
        return run_id

    def report_made_in(self, run_id: str, name: str) -> None:
        made = StepMaterializationData(dg.AssetMaterialization(name))
        self._report_in(run_id, DagsterEventType.ASSET_MATERIALIZATION, made)

    def _report_in(self, run_id: str, kind: DagsterEventType, data) -> None:
        event = dg.DagsterEvent(kind.value, "killed", event_specific_data=data)
        self.instance.report_dagster_event(event, run_id)

    def plan(self, selected=ALL, size="quick", code_version="1", raw_code=None, **options) -> Plan:
        keys = {dg.AssetKey.from_user_string(name) for name in selected}
        return make_plan(graph_of(code_version, raw_code), self.instance, keys, self.index, size, **options)


@pytest.fixture
def made() -> World:
    world = World()
    world.make("raw/browsing_train", "sessions", "raw/sku_to_content", "data", "model", "endpoint")
    return world


def what(plan: Plan) -> dict[str, str]:
    return {key.to_user_string(): reason for key, reason in plan.reasons.items()}


def test_nothing_made_yet():
    plan = World().plan()
    assert plan.days == DAYS
    assert [key.to_user_string() for key in plan.partitioned] == ["raw/browsing_train", "sessions"]
    assert what(plan) == {
        "raw/browsing_train": "4 of 4 days",
        "sessions": "4 of 4 days",
        **dict.fromkeys(("raw/sku_to_content", "data", "model", "endpoint"), "not made yet"),
    }


def test_nothing_new(made):
    plan = made.plan()
    assert plan.empty
    assert (plan.days, plan.reasons, plan.blocks()) == ((), {}, [])


def test_nothing_landed():
    world = World(index=LandingIndex())
    world.make("raw/sku_to_content", "data", "model", "endpoint")
    assert world.plan().empty


def test_a_changed_day_reaches_the_days_beside_it_where_sessions_do(made):
    made.index = index_of({"2026-10-02": "corrected"})
    plan = made.plan()
    assert plan.days == DAYS[:3]
    assert what(plan) == {
        "raw/browsing_train": "1 of 4 days",
        "sessions": "3 of 4 days",
        "data": "sessions changes",
        "model": "data changes",
        "endpoint": "model changes",
    }


def test_a_new_day(made):
    made.index = LandingIndex(days={**made.index.days, "2026-10-05": entry("b")}, catalog=made.index.catalog)
    plan = made.plan(selected={"raw/browsing_train", "sessions"})
    assert plan.days == ("2026-10-04", "2026-10-05")
    assert what(plan) == {"raw/browsing_train": "1 of 5 days", "sessions": "2 of 5 days"}


def test_a_new_catalogue(made):
    made.index = index_of(catalog="c2")
    plan = made.plan()
    assert plan.days == ()
    assert what(plan) == {
        "raw/sku_to_content": "new files have landed",
        "data": "raw/sku_to_content changes",
        "model": "data changes",
        "endpoint": "model changes",
    }


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"size": "full"}, "made at size quick"), ({"code_version": "2"}, "its code changed")],
)
def test_another_size_or_code_makes_it_again_and_what_is_below(made, options, reason):
    assert what(made.plan(**options)) == {"model": reason, "endpoint": "model changes"}


def test_days_made_by_other_code_are_made_again_in_the_tables_below_too(made):
    plan = made.plan(selected={"raw/browsing_train", "sessions"}, raw_code="2")
    assert what(plan) == {"raw/browsing_train": "4 of 4 days", "sessions": "4 of 4 days"}
    assert what(made.plan(selected={"sessions"}, raw_code="2")) == {}


def test_what_was_made_by_hand_is_newer_than_what_is_below(made):
    made.make("data")
    assert what(made.plan()) == {"model": "data is newer", "endpoint": "model changes"}
    made.make("model")
    assert what(made.plan()) == {"endpoint": "model is newer"}


def test_a_day_made_by_hand_is_newer_than_the_data(made):
    made.make("sessions", days=["2026-10-03"])
    assert what(made.plan()) == {"data": "sessions is newer", "model": "data changes", "endpoint": "model changes"}


def test_a_run_that_stopped_goes_on_with_what_is_missing():
    world = World()
    world.make("raw/browsing_train", "raw/sku_to_content")
    world.make("sessions", days=DAYS[:3])
    plan = world.plan()
    assert plan.days == ("2026-10-04",)
    assert [key.to_user_string() for key in plan.partitioned] == ["sessions"]
    assert "raw/sku_to_content" not in what(plan)


def test_a_failed_blocking_check_makes_its_asset_again(made):
    made.check(passed=False)
    assert what(made.plan()) == {
        "data": "its check holds failed",
        "model": "data changes",
        "endpoint": "model changes",
    }
    made.check(passed=True)
    assert made.plan().empty
    made.check(passed=False, blocking=False)
    assert made.plan().empty


def test_a_check_that_a_killed_run_planned_says_nothing_unless_that_run_made_the_asset(made):
    made.check(passed=True)
    killed = made.plan_check()
    assert made.plan().empty
    made.report_made_in(killed, "data")
    made.make("model", "endpoint")
    assert what(made.plan()) == {
        "data": "its check holds was not made",
        "model": "data changes",
        "endpoint": "model changes",
    }
    made.check(passed=True)
    assert made.plan().empty


def test_a_check_that_was_planned_and_never_made_hides_no_failure(made):
    made.check(passed=False)
    made.plan_check()
    assert what(made.plan())["data"] == "its check holds failed"


def test_selection_days_and_force(made):
    made.index = index_of({"2026-10-02": "corrected", "2026-10-04": "corrected"})
    assert what(made.plan(selected={"raw/browsing_train"})) == {"raw/browsing_train": "2 of 4 days"}
    assert made.plan(selected={"raw/browsing_train"}, days=["2026-10-04", "2026-10-03"]).days == ("2026-10-04",)
    assert made.plan(selected={"model"}).empty
    assert what(made.plan(selected={"model"}, force=True)) == {"model": "forced"}
    forced = made.plan(selected={"raw/browsing_train"}, days=["2026-10-01"], force=True)
    assert (forced.days, what(forced)) == (("2026-10-01",), {"raw/browsing_train": "1 of 1 days"})


def test_days_at_most_a_week_apart_share_a_run():
    days = ("2026-10-20", "2026-10-01", "2026-10-08", "2026-10-16")
    assert Plan(days, (), ()).blocks() == [("2026-10-01", "2026-10-08"), ("2026-10-16", "2026-10-20")]
    assert Plan((), (), ()).blocks() == []


def test_what_was_made_full_is_good_enough_for_quick(made):
    made.make("model", "endpoint", size="full")
    assert made.plan(size="quick").empty


def test_a_day_whose_table_above_was_made_later_is_made_again(made):
    """Its fingerprint may be right: what was loaded does not say that the table above was built from it first."""
    made.make("raw/browsing_train", days=["2026-10-03"])
    assert what(made.plan(selected={"sessions"})) == {"sessions": "1 of 4 days"}
    made.make("sessions", days=["2026-10-03"])
    assert made.plan(selected={"sessions"}).empty


def test_days_that_are_none_of_the_graph_are_left_out(made):
    """A landed day before START_DATE, or one that is not over."""
    others = dict.fromkeys(("2026-09-30", "2999-01-01"), entry("b"))
    made.index = LandingIndex(days={**made.index.days, **others}, catalog=made.index.catalog)
    assert made.plan(selected={"raw/browsing_train"}).empty
    forced = made.plan(selected={"raw/browsing_train"}, force=True)
    assert (forced.days, what(forced)) == (DAYS, {"raw/browsing_train": "4 of 4 days"})


def test_a_forced_run_that_goes_on_leaves_what_it_has_made(made):
    tables = {"raw/browsing_train", "sessions", "raw/sku_to_content"}
    since = time.time()
    time.sleep(0.01)
    made.make("raw/browsing_train")
    made.make("sessions", days=DAYS[:2])
    assert what(made.plan(selected=tables, force=True, since=since)) == {
        "sessions": "2 of 4 days",
        "raw/sku_to_content": "forced",
    }
    made.make("raw/sku_to_content")
    assert what(made.plan(selected=tables, force=True, since=since)) == {"sessions": "2 of 4 days"}
    made.index = index_of({"2026-10-04": "corrected"})
    assert what(made.plan(selected=tables, force=True, since=since)) == {
        "raw/browsing_train": "1 of 4 days",
        "sessions": "2 of 4 days",
    }
    assert what(made.plan(selected=tables, force=True)) == {
        "raw/browsing_train": "4 of 4 days",
        "sessions": "4 of 4 days",
        "raw/sku_to_content": "forced",
    }
