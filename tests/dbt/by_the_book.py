"""The warehouse's tables as ``session_oracle.py`` says they should be."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta

import session_oracle as oracle
from session_oracle import Event

COUNTED = ("view", "detail", "add", "remove", "purchase", "search", "click")


def assert_follows_the_book(tables: dict[str, list[dict]], history: list[Event]) -> None:
    """``tables`` holds all rows of each table by day, sessions and statistics in the order of their first columns."""
    rows, dropped = expected_rows(history)
    assert tables["sessions"] == rows
    carts = {(row["session_id"], row["session_date"]): row for row in rows if row["add_count"]}
    found = {(row["session_id"], row["session_date"]): row for row in tables["cart_sessions"]}
    assert found.keys() == carts.keys()
    assert len(tables["cart_sessions"]) == len(carts)
    for key, row in found.items():
        first_add = carts[key]["actions"].index("add")
        assert row["first_add_index"] == first_add
        assert row["bought"] == ("purchase" in carts[key]["actions"][first_add:])
    stats = tables["session_stats"]
    assert sum(row["dropped_next_day_count"] for row in stats) == dropped
    assert sum(row["event_count"] for row in stats) == sum(row["event_count"] for row in rows) + dropped
    assert sum(row["starts_session"] for row in stats) == len(rows)
    kept = oracle.distinct(history)
    browsed = [event for event in history if event.action not in ("search", "click") and event in kept]
    copies = [row["copies"] for row in tables["distinct_events"] if row["action"] not in ("search", "click")]
    assert sum(copies) == len(browsed)


def expected_rows(history: list[Event]) -> tuple[list[dict], int]:
    """Return the rows of ``sessions`` and how many events belong to none."""
    found, dropped = oracle.sessions(history)
    rows = []
    for (session, day), events in found.items():
        counts = Counter(event.action for event in events)
        rows.append(
            {
                "session_id": session,
                "session_date": date(1970, 1, 1) + timedelta(days=day),
                "started_at": at(events[0].ms),
                "ended_at": at(events[-1].ms),
                "duration_s": (events[-1].ms - events[0].ms) / 1000,
                "actions": [event.action for event in events],
                "skus": [event.sku for event in events],
                "timestamps_ms": [event.ms for event in events],
                "event_count": len(events),
                **{f"{name}_count": counts[name] for name in COUNTED},
            }
        )
    return sorted(rows, key=lambda row: (row["session_id"], row["session_date"])), dropped


def at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC).replace(tzinfo=None, microsecond=ms % 1000 * 1000)
