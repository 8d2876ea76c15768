"""Random histories through landing zone, plan and Dagster runs: which days are run again, and how the tables end.

What a run computes from given days is tried in ``tests/dbt/test_days_heal.py``; here the days are the plan's.
"""

import random
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no test folder on the path
from warehouse_graph import DAILY, Graph, ms

from bigger_boat.automation.plan import Plan, make_plan

DAYS = ["2026-10-05", "2026-10-06", "2026-10-07", "2026-10-08", "2026-10-09"]
TABLES = ("raw.browsing_train", "distinct_events", "session_stats", "sessions", "cart_sessions")
MOMENTS = (0, 1, 43_200, 86_399)
Row = tuple[str, int, str, str]


def plan_of(graph: Graph) -> Plan:
    """Return what ``bigger-boat run`` would do of the tables by day."""
    assets = graph.definitions.resolve_asset_graph()
    return make_plan(assets, graph.instance, set(DAILY), graph.landing_zone.index(), "quick")


def run_planned(graph: Graph, plan: Plan) -> None:
    """Run what is planned, as ``automation/runner.py`` does."""
    for first, last in plan.blocks():
        assert graph.run(first, last, list(plan.partitioned)).success


def tables(graph: Graph) -> dict[str, list[str]]:
    """Return every row of every table as text, in an order of its own."""
    found = {}
    for name in TABLES:
        with graph.warehouse.read(f"select t::varchar as row from {name} t order by 1") as reader:
            found[name] = reader.read_all()["row"].to_pylist()
    return found


def some_events(rng: random.Random, day: str) -> list[Row]:
    """Return a day's events: few sessions, midnights, doubles. Never none: an emptied day is a step of its own."""
    rows: list[Row] = []
    for _ in range(rng.randrange(1, 9)):
        action = rng.choice(["view", "detail", "add", "purchase"])
        sku = "" if action == "view" else rng.choice("pq")
        rows += [(rng.choice("abc"), ms(day, rng.choice(MOMENTS)), action, sku)] * rng.choice((1, 1, 2))
    return rows


class History:
    """What is in force at the source, and a warehouse that follows it change by change."""

    def __init__(self, root: Path, seed: int):
        self.graph = Graph(root)
        self.rng = random.Random(seed)
        self.present: dict[str, list[Row]] = {}

    def land(self, days: list[str]) -> None:
        """Events of these days arrive, or arrive on top of what is there."""
        rows = {day: some_events(self.rng, day) for day in days}
        self.graph.land(*[row for day in days for row in rows[day]])
        for day in days:
            self.present[day] = [*self.present.get(day, []), *rows[day]]

    def replace(self, days: list[str], empty: bool) -> None:
        """These days are superseded; where ``empty``, by nothing."""
        rows = {day: [] if empty else some_events(self.rng, day) for day in days}
        # a landing needs a row: one of a day far away, always the same
        elsewhere = [("elsewhere", ms("2026-10-20"), "view", "")]
        self.graph.land(*elsewhere, *[row for day in days for row in rows[day]], replace=(days[0], days[-1]))
        self.present |= rows
        self.present["2026-10-20"] = elsewhere

    def change(self) -> set[str]:
        """Let something happen to one day or two; return the days whose content is another now."""
        before = self.graph.landing_zone.index().days
        first = self.rng.randrange(len(DAYS))
        days = DAYS[first : first + self.rng.choice((1, 1, 2))]
        kind = self.rng.choice(("land", "correct", "remove"))
        if kind == "land":
            self.land(days)
        else:
            self.replace(days, empty=kind == "remove")
        after = self.graph.landing_zone.index().days
        return {day for day in after if day not in before or before[day].fingerprints != after[day].fingerprints}


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_the_plan_runs_what_changed_with_its_neighbours_and_the_tables_end_as_from_scratch(
    tmp_path: Path, seed: int
) -> None:
    history = History(tmp_path / "healing", seed)
    history.land([DAYS[0], DAYS[1], DAYS[4]] if seed % 2 else DAYS)
    run_planned(history.graph, plan_of(history.graph))
    for _ in range(2 if seed == 1 else 4):
        changed = history.change()
        plan = plan_of(history.graph)
        landed = set(history.graph.landing_zone.index().days)
        assert set(plan.days) == {day for day in around(changed) if day in landed}
        run_planned(history.graph, plan)
        assert plan_of(history.graph).empty
    scratch = History(tmp_path / "scratch", seed)
    scratch.graph.land(*[row for rows in history.present.values() for row in rows])
    run_planned(scratch.graph, plan_of(scratch.graph))
    assert tables(history.graph) == tables(scratch.graph)


def around(days: set[str]) -> set[str]:
    """Return the days, and those on either side."""
    return {(date.fromisoformat(day) + timedelta(days=n)).isoformat() for day in days for n in (-1, 0, 1)}


def assert_healed(graph: Graph, make_scratch: Callable[[], Graph]) -> None:
    run_planned(graph, plan_of(graph))
    scratch = make_scratch()
    run_planned(scratch, plan_of(scratch))
    assert tables(graph) == tables(scratch)


@pytest.mark.slow
def test_tables_made_one_by_one_in_a_wrong_order_are_healed_by_the_plan(tmp_path: Path) -> None:
    """By hand in the web UI: sessions before the events they are made of. What was loaded alone does not tell."""
    events = [("a", ms(day, moment), "add", "p") for day in DAYS[:3] for moment in (0, 86_399)]
    graph = Graph(tmp_path / "healing")
    graph.land(*events)
    run_planned(graph, plan_of(graph))
    late = ("b", ms(DAYS[1]), "add", "q")
    graph.land(late)
    by_name = {key.to_user_string(): key for key in DAILY}
    for name in ("raw/browsing_train", "sessions", "session_stats", "distinct_events"):
        assert graph.run(DAYS[0], DAYS[2], [by_name[name]]).success
    plan = plan_of(graph)
    assert plan.days == tuple(DAYS[:3])
    assert {key.path[-1] for key in plan.partitioned} >= {"session_stats", "sessions", "cart_sessions"}

    def make_scratch() -> Graph:
        scratch = Graph(tmp_path / "scratch")
        scratch.land(*events, late)
        return scratch

    assert_healed(graph, make_scratch)
