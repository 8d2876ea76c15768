"""The warehouse's tables against plain Python on random histories; days that heal are in ``test_days_heal.py``."""

import random
from collections import defaultdict
from collections.abc import Callable

import pytest
from by_the_book import assert_follows_the_book
from session_oracle import DAY_MS, Event

FIRST = 20_600  # 2026-05-27
DAYS = range(FIRST, FIRST + 6)


def random_history(seed: int, events: int = 220) -> list[Event]:
    """Few ids, pages, products and moments, so that ties, duplicates, doubles and midnights are common."""
    rng = random.Random(seed)
    history: list[Event] = []
    for _ in range(events):
        day = rng.choice(DAYS)
        moment = rng.choice([0, 1, 2, DAY_MS - 2, DAY_MS - 1, rng.randrange(DAY_MS)])
        session, ms = f"s{rng.randrange(14)}", day * DAY_MS + moment
        action = rng.choice(["view", "view", "detail", "add", "remove", "purchase", "search"])
        if action == "search":
            history.append(Event(session, ms, "search"))
            history += [Event(session, ms, "click", f"p{rng.randrange(2)}") for _ in range(rng.randrange(2))]
        elif action == "view":
            history.append(Event(session, ms, "view", "", rng.choice(["", "u", "v"])))
        else:
            page = rng.choice(["", "u", "v"])
            history.append(Event(session, ms, action, f"p{rng.randrange(2)}", page))
            if action == "detail":
                history.append(Event(session, ms, "view", "", page))
        if rng.random() < 0.15:
            history.append(
                rng.choice([event for event in history if event.action not in ("search", "click")] or [history[-1]])
            )
    return history


def by_day(history: list[Event]) -> dict[int, list[Event]]:
    days: dict[int, list[Event]] = {day: [] for day in DAYS}
    for event in history:
        days[event.day].append(event)
    return days


@pytest.mark.parametrize("seed", range(2))
def test_a_history_built_at_once_follows_the_book(new_shop: Callable, seed: int) -> None:
    shop = new_shop()
    histories = {number: random_history(100 * seed + number) for number in range(20)}
    # twenty histories side by side in one build: their ids differ
    history = [
        Event(f"{number}-{event.session}", event.ms, event.action, event.sku, event.url)
        for number, events in histories.items()
        for event in events
    ]
    shop.load(by_day(history))
    shop.build(chunk_days=2 + 3 * seed)
    assert_follows_the_book(shop.tables(), history)


def test_a_range_in_one_run_equals_its_days_one_by_one(new_shop: Callable) -> None:
    history = by_day(random_history(7))
    together, alone = new_shop(), new_shop()
    together.load(history)
    together.build(DAYS[0], DAYS[-1], chunk_days=4)
    alone.warehouse.prepare()
    alone.run(views=True)
    alone.load(history)
    for day in DAYS:
        alone.run(day)
    assert together.tables() == alone.tables()


def test_an_emptied_shop_is_empty_in_every_table(new_shop: Callable) -> None:
    shop = new_shop()
    shop.load(by_day(random_history(3, events=60)))
    shop.build()
    assert all(shop.tables().values())
    shop.load({day: [] for day in DAYS})
    shop.build(DAYS[0], DAYS[-1])
    assert not any(shop.tables().values())
    shop.build()
    assert not any(shop.tables().values())


def test_a_changed_column_builds_everything_again(new_shop: Callable) -> None:
    shop = new_shop()
    history = random_history(5, events=80)
    shop.load(by_day(history))
    shop.build()
    before = shop.tables()
    with shop.warehouse.connect() as connection:
        connection.execute("alter table sessions drop column click_count")
    shop.build(DAYS[2])
    assert shop.tables() == before


def test_half_a_range_or_a_range_backwards_is_refused(new_shop: Callable) -> None:
    shop = new_shop()
    shop.warehouse.prepare()
    with pytest.raises(Exception, match="first_day and last_day must both be days"):
        shop.build(DAYS[3], DAYS[1])
    with pytest.raises(Exception, match="first_day and last_day must both be days"):
        shop.build(first_day="2026-05-27")


def test_the_unit_tests_of_the_project_pass(new_shop: Callable) -> None:
    shop = new_shop()
    shop.load({FIRST: [Event("s", FIRST * DAY_MS, "view", "", "u"), Event("s", FIRST * DAY_MS, "search")]})
    shop.build()
    invocation = shop.dbt.cli(["test", "--select", "test_type:unit"])
    list(invocation.stream_raw_events())
    statuses = defaultdict(list)
    for result in invocation.results:
        statuses[str(result.status)].append(result.node.name)
    assert list(statuses) == ["pass"]
    assert len(statuses["pass"]) >= 11
