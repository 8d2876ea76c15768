"""Days that heal: random histories of landings, corrections, removals, backfills and late days, in any order.

After each history the tables are those of a build from scratch, and those of the book. Days are tiny and made for what
can go wrong: sessions over midnight, third days, heads that come or go, equal times, doubled views. A few of the
histories run in ``make test``, 40 in ``make test-slow``; more by

    pytest tests/dbt/test_days_heal.py -m slow --histories 300
"""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import pytest
from by_the_book import assert_follows_the_book
from hypothesis import HealthCheck, Phase, example, given, seed, settings
from hypothesis import strategies as st
from session_oracle import DAY_MS, Event

from bigger_boat.resources import dbt
from bigger_boat.resources.dbt_manifest import PROJECT_DIR

FIRST = 20_600  # 2026-05-27
DAYS = range(FIRST, FIRST + 6)
SHARDS = 4
MIDNIGHTS = (0, 1, DAY_MS - 1)


@dataclass(frozen=True)
class Step:
    """What happens to the days ``first`` to ``last``: new contents where ``contents`` is set, a run where ``runs`` is.

    ``adds``: the contents come on top of what is there. ``chunk_days``: how many days the run computes at a time.
    """

    first: int
    last: int
    contents: dict[int, tuple[Event, ...]] | None = None
    adds: bool = False
    runs: bool = True
    chunk_days: int = 0


TAKES_ITS_HEAD = [
    Step(
        FIRST,
        FIRST + 2,
        {
            FIRST: (Event("a", FIRST * DAY_MS + DAY_MS - 1, "detail", "p", "u"),),
            FIRST + 1: (
                Event("a", FIRST * DAY_MS + DAY_MS, "add", "p"),
                Event("b", FIRST * DAY_MS + DAY_MS + 5, "view"),
            ),
            FIRST + 2: (Event("b", FIRST * DAY_MS + 2 * DAY_MS, "detail", "q"),),
        },
        chunk_days=1,
    ),
    Step(FIRST, FIRST, {}),
]
"""A session crosses midnight, and its first day is emptied: what is left begins a day later."""


class Lives:
    """One warehouse that lives through histories, and the days as they were at the end of each."""

    def __init__(self, shop):
        self.shop = shop
        self.shop.warehouse.prepare()
        self.shop.run(views=True)
        self.ended: list[tuple[dict[int, list[Event]], dict[str, list[dict]]]] = []

    def check(self, history: list[Step], ending: int) -> None:
        """Live through a history, run the days that are behind at its end, latest first if ``ending`` is -1."""
        self.shop.clear()
        present: dict[int, list[Event]] = {day: [] for day in DAYS}
        behind: set[int] = set()
        for step in history:
            days = range(step.first, step.last + 1)
            if step.contents is not None:
                for day in days:
                    present[day] = [*(present[day] if step.adds else []), *step.contents.get(day, ())]
                self.shop.load({day: present[day] for day in days})
                behind |= set(days)
            if step.runs:
                self.shop.run(step.first, step.last, chunk_days=step.chunk_days)
                behind -= set(days)
        for first, last in ranges(behind)[::ending]:
            self.shop.run(first, last)
        tables = self.shop.tables()
        assert_follows_the_book(tables, [event for events in present.values() for event in events])
        self.ended.append((present, tables))

    def assert_as_from_scratch(self, scratch) -> None:
        """Build what there was at the end of every history at once, side by side, from nothing; compare each table."""
        side_by_side: dict[int, list[Event]] = {day: [] for day in DAYS}
        for number, (present, _) in enumerate(self.ended):
            for day, events in present.items():
                side_by_side[day] += [replace(event, session=f"{number} {event.session}") for event in events]
        scratch.load(side_by_side)
        scratch.run(views=True)
        found = scratch.tables()
        for number, (_, tables) in enumerate(self.ended):
            for name, rows in tables.items():
                mine = [row for row in found[name] if row["session_id"].startswith(f"{number} ")]
                assert [row | {"session_id": row["session_id"].split()[1]} for row in mine] == rows, (number, name)


def ranges(days: set[int]) -> list[tuple[int, int]]:
    """Return days as ranges (first, last), neighbouring days joined."""
    starts = [day for day in sorted(days) if day - 1 not in days]
    ends = [day for day in sorted(days) if day + 1 not in days]
    return list(zip(starts, ends, strict=True))


@st.composite
def contents_of(draw, day: int, most: int) -> tuple[Event, ...]:
    """Return the events of a day: few ids, pages, products and moments, so that all of them meet."""
    events: list[Event] = []
    for _ in range(draw(st.integers(0, most))):
        session = draw(st.sampled_from("abcd"))
        ms = day * DAY_MS + draw(st.sampled_from((*MIDNIGHTS, 43_200_000)))
        action = draw(st.sampled_from(("view", "view", "detail", "add", "remove", "purchase", "search")))
        sku, url = draw(st.sampled_from("pq")), draw(st.sampled_from(("", "u", "v")))
        if action == "search":
            events += [Event(session, ms, "search"), *[Event(session, ms, "click", sku)] * draw(st.integers(0, 2))]
        elif action == "view":
            events += [Event(session, ms, "view", "", url)] * draw(st.integers(1, 2))
        else:
            events.append(Event(session, ms, action, sku, url))
            if action == "detail":
                events.append(Event(session, ms, "view", "", url))
    return tuple(events)


@st.composite
def histories(draw) -> list[Step]:
    """Return a first landing of all or some days, then corrections, removals, backfills, late days and runs again."""
    missing = draw(st.sets(st.sampled_from(DAYS), max_size=3))
    all_days = {day: draw(contents_of(day, 9)) for day in DAYS if day not in missing}
    history = [Step(DAYS[0], DAYS[-1], all_days, runs=draw(st.booleans()), chunk_days=draw(st.integers(1, 6)))]
    for _ in range(draw(st.integers(2, 3))):
        first = draw(st.sampled_from(DAYS))
        last = min(DAYS[-1], first + draw(st.sampled_from((0, 0, 0, 1, 3))))
        kind = draw(st.sampled_from(("correct", "correct", "remove", "late", "backfill", "load only")))
        chunk_days = draw(st.integers(1, 3))
        if kind == "backfill":
            history.append(Step(first, last, chunk_days=chunk_days))
            continue
        chosen = sorted(missing) or [first]
        if kind == "late":
            first = last = draw(st.sampled_from(chosen))
        days = range(first, last + 1)
        contents = {} if kind == "remove" else {day: draw(contents_of(day, 9)) for day in days}
        adds = kind == "late" or (kind != "remove" and draw(st.booleans()))
        history.append(Step(first, last, contents, adds, kind != "load only", chunk_days))
    return history


@pytest.fixture(scope="module", autouse=True)
def _parse_once() -> Iterator[None]:
    """dbt's manifest is read once per project, not once per run: a tenth of a second each."""
    original = dbt.load_manifest
    read = lru_cache(original)
    dbt.load_manifest = lambda project_dir, target, _: read(project_dir, target)
    yield
    dbt.load_manifest = original


RANDOM = tuple(phase for phase in Phase if phase != Phase.explicit)


def live_through(lives: Lives, examples: int, number: int, phases: tuple[Phase, ...] = RANDOM) -> None:
    """Check so many random histories, the same ones for the same ``number``; one that fails is made small."""

    @example(TAKES_ITS_HEAD, 1)
    @seed(number)
    @settings(
        max_examples=examples, deadline=None, database=None, phases=phases, suppress_health_check=list(HealthCheck)
    )
    @given(histories(), st.sampled_from((1, -1)))
    def check(history: list[Step], ending: int) -> None:
        lives.check(history, ending)

    check()


def test_random_histories_end_as_built_from_scratch(new_shop: Callable) -> None:
    lives = Lives(new_shop())
    live_through(lives, 4, number=SHARDS, phases=tuple(Phase))
    lives.assert_as_from_scratch(new_shop())


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS))
def test_many_random_histories_end_as_built_from_scratch(
    new_shop: Callable, shard: int, request: pytest.FixtureRequest
) -> None:
    count = request.config.getoption("--histories")
    lives = Lives(new_shop())
    live_through(lives, count // SHARDS + (shard < count % SHARDS), number=shard)
    lives.assert_as_from_scratch(new_shop())


MUTANTS = {
    "no overlap": ("models/marts/*.sql", r"'neighbours': 1", "'neighbours': 0"),
    "a session ends at midnight": ("models/marts/sessions.sql", r"chunk_last_day\(plus_days=1\)", "chunk_last_day()"),
    "nothing is deleted": ("macros/dialect.sql", r"delete from \{\{ relation \}\} where [^;]*;", ""),
    "the last day of a chunk is not deleted": (
        "macros/replace_range.sql",
        r"~ last ~ \"'\"\s*-%\}",
        r"""~ shift_day(last, -1) ~ "'" -%}""",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutated_project_fails(new_shop: Callable, tmp_path: Path, name: str) -> None:
    """Not only some random history finds the fault: the one does that is in every run."""
    pattern, before, after = MUTANTS[name]
    project = Path(shutil.copytree(PROJECT_DIR, tmp_path / "project", ignore=shutil.ignore_patterns("target")))
    changed = 0
    for file in project.glob(pattern):
        text, found = re.subn(before, after, file.read_text())
        file.write_text(text)
        changed += found
    assert changed
    lives = Lives(new_shop(project_dir=project))
    with pytest.raises(AssertionError):
        live_through(lives, 1, number=0, phases=(Phase.explicit,))
