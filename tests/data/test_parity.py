"""Comparing tables: hand-made pairs with one difference each, and pairs that are the same in another dress."""

from datetime import date, datetime

import polars as pl
import pytest

from bigger_boat.data.parity import MAX_SHOWN, compare_tables

DAY = date(2026, 10, 1)


def sessions(*rows: tuple, schema: dict | None = None) -> pl.DataFrame:
    columns = ["session_id", "started_at", "events", "seconds", "actions"]
    return pl.DataFrame(rows, schema=schema or columns, orient="row")


A = ("a", datetime(2026, 10, 1, 12, 0, 0, 1000), 2, 0.5, ["view", "add"])
B = ("b", None, 1, None, [])


def differences(left: pl.DataFrame, right: pl.DataFrame) -> list[tuple[str, str, str, str]]:
    found = compare_tables(left, right, ["session_id"])
    assert found.count == len(found.shown)
    assert found.same == (not found.shown)
    return [(each.key, each.column, each.left, each.right) for each in found.shown]


def test_order_of_rows_and_columns_and_widths_of_types_do_not_count():
    right = sessions(B, A).select("actions", "seconds", "events", "started_at", "session_id")
    right = right.cast({"events": pl.Int16, "started_at": pl.Datetime("ns"), "seconds": pl.Float32})
    assert differences(sessions(A, B), right) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"events": 3}, ("a", "events", "2", "3")),
        ({"events": None}, ("a", "events", "2", "null")),
        ({"started_at": None}, ("a", "started_at", "2026-10-01 12:00:00.001000", "null")),
        ({"seconds": 0.25}, ("a", "seconds", "0.5", "0.25")),
        ({"actions": ["view", "remove"]}, ("a", "actions", '["view","add"]', '["view","remove"]')),
        ({"actions": ["add", "view"]}, ("a", "actions", '["view","add"]', '["add","view"]')),
        ({"actions": ["view", None]}, ("a", "actions", '["view","add"]', '["view",null]')),
        ({"actions": ["view"]}, ("a", "actions", '["view","add"]', '["view"]')),
        ({"actions": []}, ("a", "actions", '["view","add"]', "[]")),
        ({"actions": None}, ("a", "actions", '["view","add"]', "null")),
    ],
)  # fmt: skip
def test_one_changed_value_is_one_difference(changed, expected):
    names = ["session_id", "started_at", "events", "seconds", "actions"]
    other = tuple({**dict(zip(names, A, strict=True)), **changed}.values())
    left = sessions(A, B)
    right = pl.DataFrame([other, B], schema=left.schema, orient="row")
    assert differences(left, right) == [expected]
    key, column, was, now = expected
    assert differences(right, left) == [(key, column, now, was)]


def test_an_empty_list_no_list_and_a_list_of_nothing_are_three_things():
    schema = {"id": pl.String, "list": pl.List(pl.String)}
    tables = [pl.DataFrame([("x", value)], schema, orient="row") for value in (None, [], [None], ["null"])]
    for one in tables:
        for other in tables:
            assert compare_tables(one, other, ["id"]).same == (one is other)


def test_a_row_on_one_side_only_is_said_for_that_side():
    assert differences(sessions(A, B), sessions(A, schema=sessions(A, B).schema)) == [("b", "", "a row", "no such row")]
    assert differences(sessions(A, schema=sessions(A, B).schema), sessions(A, B)) == [("b", "", "no such row", "a row")]


def test_a_row_that_comes_twice_is_not_the_row_that_comes_once():
    found = differences(sessions(A, A), sessions(A))
    assert found == [("a", "", "a row", "no such row")]
    assert differences(sessions(A, A), sessions(A, A)) == []


def test_a_key_may_be_null():
    keyless = (None, *A[1:])
    assert differences(sessions(keyless), sessions(keyless)) == []
    [found] = differences(sessions(keyless, A), sessions(A, schema=sessions(A).schema))
    assert found == ("null", "", "a row", "no such row")


def test_a_column_on_one_side_only_is_one_difference():
    assert differences(sessions(A, B).drop("events"), sessions(A, B)) == [("", "events", "no such column", "a column")]


def test_all_are_counted_and_few_are_shown_as_a_markdown_table():
    left = pl.DataFrame({"id": [f"{number:03}" for number in range(100)], "value": range(100)})
    right = left.with_columns(pl.col("value") + 1)
    found = compare_tables(left, right, ["id"])
    assert (found.left_rows, found.right_rows, found.count, len(found.shown)) == (100, 100, 100, MAX_SHOWN)
    lines = found.markdown("Snowflake", "DuckDB").splitlines()
    assert lines[0] == "| row | column | Snowflake | DuckDB |"
    assert lines[2] == "| 000 | value | 0 | 1 |"
    assert lines[-1] == "... and 80 more differences."
    assert compare_tables(left, left, ["id"]).markdown("a", "b") == "100 rows, no difference."


def test_a_cell_cannot_break_the_table():
    left, right = (pl.DataFrame({"id": ["a|b"], "url": [text]}) for text in ("x\ny", "z" * 100))
    line = compare_tables(left, right, ["id"]).markdown("l", "r").splitlines()[2]
    assert line == f"| a\\|b | url | x y | {'z' * 57}... |"


def test_empty_tables_are_the_same():
    empty = sessions(schema=sessions(A, B).schema)
    assert differences(empty, empty) == []
    assert differences(empty, sessions(A)) == [("a", "", "no such row", "a row")]
