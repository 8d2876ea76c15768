from datetime import date, datetime, timedelta

import polars as pl
import pytest

from bigger_boat.data.schemas import schema_failures, sessions_schema
from bigger_boat.data.vocabulary import ACTIONS


@pytest.fixture
def sessions(make_session):
    """Rows of ``sessions`` as the warehouse makes them."""

    def row(name, day, story, second):
        made = make_session(name, day, story, second)
        counts = {f"{action}_count": made["actions"].count(action) for action in ACTIONS}
        duration_s = (made["timestamps_ms"][-1] - made["timestamps_ms"][0]) / 1000
        return made | counts | {"event_count": len(made["actions"]), "duration_s": duration_s}

    rows = [
        row("a", 0, "view detail:A add:A@40 purchase:A@90", 10),
        row("b", 0, "search click:B", 20),
        row("b", 1, "view", 86399),
    ]
    narrow = {name: pl.Int32 for name in rows[0] if name.endswith("_count")}
    return pl.DataFrame(rows, schema_overrides=narrow)


def test_sessions_as_they_should_be(sessions):
    assert not schema_failures(sessions_schema(), sessions)
    assert not schema_failures(sessions_schema(), sessions.head(0))


MIDNIGHT_MS = 1767225600000

BREAKS = {
    "every action is known": {"actions": ["view", "detail", "pageview", "purchase"]},
    "no value in a list is missing": {"skus": ["", "A", None, "A"]},
    "actions, skus, timestamps_ms have the same length, at least one": {"skus": ["", "A", "A"]},
    "timestamps_ms never go back, and are after 1970": {
        "timestamps_ms": [MIDNIGHT_MS + second * 1000 for second in (10, 60, 50, 100)]
    },
    "detail, click, add, remove, purchase events name their product": {"skus": ["", "", "A", "A"]},
    "started_at is the time of the first event": {"started_at": datetime(2026, 1, 1, 0, 0, 9)},
    "ended_at is the time of the last event": {"ended_at": datetime(2026, 1, 1, 0, 5)},
    "session_date is the day of started_at": {"session_date": date(2026, 1, 2)},
    "duration_s is the time from the first event to the last": {"duration_s": 91.0},
    "duration_s is not negative": {"duration_s": -90.0},
    "event_count is the number of events": {"event_count": 5},
    "purchase_count is the number of purchase events": {"purchase_count": 0},
    "session_id is not empty": {"session_id": ""},
}


@pytest.mark.parametrize("rule", BREAKS)
def test_each_rule_finds_the_row_that_breaks_it(sessions, rule):
    name, value = next(iter(BREAKS[rule].items()))
    values = [value, *sessions[name].to_list()[1:]]
    broken = sessions.with_columns(pl.Series(name, values, dtype=sessions.schema[name]))
    failures = schema_failures(sessions_schema(), broken)
    session, day = broken.row(0, named=True)["session_id"], broken.row(0, named=True)["session_date"]
    assert f"session {session} of {day} breaks the rule: {rule}" in failures.examples


def test_a_session_twice_on_a_day_is_found(sessions):
    failures = schema_failures(sessions_schema(), pl.concat([sessions, sessions.head(1)]))
    assert failures.count == 2
    assert "session a of 2026-01-01 breaks the rule: no session comes twice on a day" in failures.examples


def test_a_missing_column_and_a_wrong_type_are_said_once(sessions):
    failures = schema_failures(
        sessions_schema(), sessions.drop("skus").with_columns(session_date=pl.col("session_date").cast(pl.String))
    )
    assert failures.count == 2
    assert failures.examples == ("column skus is missing", "column session_date should be Date, and is String")


def test_missing_values_are_counted(sessions):
    broken = sessions.with_columns(session_id=pl.lit(None, pl.String))
    assert "column session_id has 3 missing values" in schema_failures(sessions_schema(), broken).examples


def test_at_most_five_examples_one_of_each_rule_first(sessions):
    many = pl.concat([sessions.head(1)] * 10).with_columns(
        session_id=pl.int_range(10).cast(pl.String), ended_at=pl.col("ended_at") + timedelta(seconds=1), event_count=9
    )
    failures = schema_failures(sessions_schema(), many)
    assert failures.count == 20
    assert [example.split("breaks the rule: ")[1] for example in failures.examples] == [
        "event_count is the number of events",
        "ended_at is the time of the last event",
    ] * 2 + ["event_count is the number of events"]
