"""When the arrival sensor asks for which days: a truth table on decisions, then the sensor on a real landing zone."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from bigger_boat.assets.verdicts import RANGE_END, RANGE_START
from bigger_boat.automation.arrival import LONGEST_WAIT_S, SETTLE_S, Arrival, Seen, decide
from bigger_boat.automation.plan import Plan
from bigger_boat.data.landing_index import DayEntry, LandingIndex

NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=5)
RAW, SESSIONS, CATALOGUE = (dg.AssetKey(name) for name in ("browsing_train", "sessions", "sku_to_content"))


def day(number: int) -> str:
    return (date(2026, 10, 1) + timedelta(days=number)).isoformat()


def index_of(
    *contents: str, landed: datetime = LONG_AGO, catalogue: str = "", late: dict | None = None
) -> LandingIndex:
    """Days from 2026-10-01 on with these contents; ``late`` gives days (by number) another time of landing."""
    times = {number: (late or {}).get(number, landed).isoformat() for number in range(len(contents))}
    days = {
        day(number): DayEntry(1, content, {"browsing": 5}, time=times[number])
        for number, content in enumerate(contents)
        if content
    }
    catalog = DayEntry(1, catalogue, {"catalog": 5}, time=landed.isoformat()) if catalogue else None
    return LandingIndex(days, catalog)


class Made:
    """What has been made of the days, by content; plans as ``make_plan`` would, a day and its neighbours."""

    def __init__(self, index: LandingIndex | None = None):
        self.content = {name: entry.fingerprint for name, entry in index.parts.items()} if index else {}
        self.asked: list[list[str]] = []

    def plan_of(self, index: LandingIndex):
        def plan(days) -> Plan:
            self.asked.append(list(days))
            other = [name for name in index.days if self.content.get(name) != index.days[name].fingerprint]
            behind = [name for name in days if any(_beside(name, one) for one in other)]
            catalogue = index.catalog is not None and self.content.get("catalog") != index.catalog.fingerprint
            independent = (CATALOGUE,) if catalogue else ()
            return Plan(tuple(behind), (RAW, SESSIONS) if behind else (), independent, independent)

        return plan

    def decide(self, index: LandingIndex, seen: Seen | None = None, now: datetime = NOW, **options) -> Arrival:
        return decide(index, seen or Seen(), now, self.plan_of(index), **options)


def _beside(one: str, other: str) -> bool:
    return abs((date.fromisoformat(one) - date.fromisoformat(other)).days) <= 1


def ranges(arrival: Arrival) -> list[tuple[str, str]]:
    return [(r.tags[RANGE_START], r.tags[RANGE_END]) for r in arrival.requests if RANGE_START in r.tags]


def test_nothing_has_landed():
    arrival = Made().decide(LandingIndex())
    assert (arrival.requests, arrival.sentence) == ((), "Nothing new: 0 days as before.")


def test_the_first_days_are_one_run():
    index = index_of("a", "b", "c", catalogue="k")
    arrival = Made().decide(index)
    assert ranges(arrival) == [(day(0), day(2))]
    assert [request.asset_selection for request in arrival.requests] == [[CATALOGUE], [RAW, SESSIONS]]
    assert (
        arrival.sentence == "2026-10-01, 2026-10-02, 2026-10-03 and the catalogue changed: asks for 3 days in 2 runs."
    )
    assert arrival.seen == Seen({day(0): "a", day(1): "b", day(2): "c", "catalog": "k"})


def test_nothing_new():
    index = index_of("a", "b")
    first = Made().decide(index)
    again = Made().decide(index, first.seen)
    assert (again.requests, again.seen) == ((), first.seen)
    assert again.sentence == "Nothing new: 2 days as before."


def test_the_same_files_again_change_nothing():
    """A landing of the same rows leaves every fingerprint; its manifests may be newer."""
    seen = Made().decide(index_of("a", "b")).seen
    assert not Made().decide(index_of("a", "b", landed=NOW), seen).requests


def test_a_late_file_asks_for_its_day_and_the_days_beside_it():
    index = index_of("a", "b", "c", "d", "e")
    seen = Made().decide(index).seen
    late = index_of("a", "b", "late", "d", "e")
    arrival = Made(index).decide(late, seen)
    assert ranges(arrival) == [(day(1), day(3))]
    assert arrival.sentence == f"{day(2)} changed: asks for 3 days in 1 run."


def test_days_apart_are_runs_apart_and_no_day_between_is_made():
    index = index_of(*"abcdefghij")
    changed = index_of("A", *"bcdefghi", "J")
    arrival = Made(index).decide(changed, Made().decide(index).seen)
    assert ranges(arrival) == [(day(0), day(1)), (day(8), day(9))]


def test_a_day_that_somebody_made_by_hand_is_not_made_twice():
    index = index_of("a", "b")
    arrival = Made(index).decide(index)
    assert (arrival.requests, arrival.sentence) == ((), f"{day(0)}, {day(1)} changed: made already.")
    assert arrival.seen.content == {day(0): "a", day(1): "b"}


def test_an_emptied_day_is_made_too():
    index = index_of("a", "b", "c")
    arrival = Made(index).decide(index_of("a", "empty", "c"), Made().decide(index).seen)
    assert ranges(arrival) == [(day(0), day(2))]


def test_a_burst_waits_until_it_settles_and_is_one_request():
    seen, made = Seen(), Made()
    for second in (0, 10, 20):  # a file each ten seconds
        now = NOW + timedelta(seconds=second)
        index = index_of(*"abc"[: 1 + second // 10], late={second // 10: now - timedelta(seconds=1)})
        arrival = made.decide(index, seen, now)
        assert not arrival.requests
        seen = arrival.seen
    assert seen.waiting_since == NOW.timestamp()
    assert "waits until nothing has changed for 30 s" in arrival.sentence
    assert made.asked == []  # while it waits, nothing is looked up
    settled = made.decide(index, seen, now + timedelta(seconds=SETTLE_S))
    assert ranges(settled) == [(day(0), day(2))]
    assert settled.seen.waiting_since is None


def test_what_never_settles_is_taken_in_the_end():
    def trickle(now):
        return index_of("x" * int(now.timestamp() % 97 + 1), landed=now - timedelta(seconds=1))

    seen, taken = Seen(), []
    for second in range(0, int(2 * LONGEST_WAIT_S), 20):
        now = NOW + timedelta(seconds=second)
        arrival = Made().decide(trickle(now), seen, now)
        taken += [second] * bool(arrival.requests)
        seen = arrival.seen
    assert taken == [600]  # then the waiting begins again


def test_a_run_that_makes_tables_is_waited_for():
    index = index_of("a")
    arrival = Made().decide(index, running=["run 4711"])
    assert (arrival.requests, arrival.seen.content) == ((), {})
    assert arrival.sentence == f"{day(0)} changed; waits for run 4711."
    assert ranges(Made().decide(index, arrival.seen)) == [(day(0), day(0))]


def test_a_restart_before_the_cursor_was_kept_asks_for_the_same_run():
    index = index_of("a", "b")
    first, again = Made().decide(index), Made().decide(index)
    assert [r.run_key for r in first.requests] == [r.run_key for r in again.requests]
    other = Made().decide(index_of("a", "B"))
    assert other.requests[0].run_key != first.requests[0].run_key


def test_content_that_comes_back_is_asked_for_again_although_its_run_key_was_used():
    """A day corrected, and corrected back: what was made of it is the middle version."""
    old, new = index_of("a", "b"), index_of("a", "B")
    seen = Made(old).decide(new, Made().decide(old).seen).seen
    back = replace(old.days[day(1)], version=3)
    arrival = Made(new).decide(LandingIndex({**old.days, day(1): back}), seen)
    first = Made().decide(old)
    assert ranges(arrival) == [(day(0), day(1))]
    assert arrival.requests[0].run_key != first.requests[0].run_key


def test_today_waits_until_it_has_ended():
    index = index_of("a", "b")
    arrival = Made().decide(index, is_day=lambda name: name < day(1))
    assert ranges(arrival) == [(day(0), day(0))]
    assert day(1) not in arrival.seen.content
    tomorrow = Made(index_of("a")).decide(index, arrival.seen)
    assert ranges(tomorrow) == [(day(0), day(1))]


def test_a_thousand_days_at_once_are_one_run_and_then_nothing():
    index = index_of(*(f"c{number}" for number in range(1_000)))
    arrival = Made().decide(index)
    assert ranges(arrival) == [(day(0), day(999))]
    assert "1000 days (2026-10-01 to" in arrival.sentence
    again = Made()
    assert not again.decide(index, Seen.from_cursor(arrival.seen.cursor())).requests
    assert again.asked == []


@pytest.mark.parametrize("cursor", [None, "", "no json", "[]", '{"content": 1}', '{"content": {}}'])
def test_a_cursor_that_is_none_costs_a_look_and_loses_nothing(cursor):
    index = index_of("a")
    assert ranges(Made().decide(index, Seen.from_cursor(cursor))) == [(day(0), day(0))]


def test_the_cursor_comes_back_as_it_was():
    seen = Seen({day(0): "a", "catalog": "k"}, 17.5)
    assert Seen.from_cursor(seen.cursor()) == seen
