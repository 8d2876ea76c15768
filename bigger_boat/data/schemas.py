"""The Pandera schemas of what passes from SQL to Python, and what is wrong with a frame in plain words.

A schema is used twice: by the code that writes or reads the table, and as the blocking asset check on it. What belongs
elsewhere: checks across rows, files and splits (``dataset_checks.py``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from bigger_boat.data.vocabulary import ACTIONS, INTENT_CUTS, ITEM_ACTIONS

if TYPE_CHECKING:
    import pandera.polars as pa

MAX_EXAMPLES = 5

PRODUCT_ACTIONS = ("detail", "click", "add", "remove", "purchase")
"""The actions that name a product."""


def sessions_schema() -> "pa.DataFrameSchema":
    """Return the schema of the warehouse's ``sessions``: a row per session and day. Other columns may be there, too."""
    import pandera.polars as pa

    times = {name: pa.Column(pl.Datetime("us"), coerce=True) for name in ("started_at", "ended_at")}
    counts = {name: _whole_number() for name in ("event_count", *_count_columns())}
    return pa.DataFrameSchema(
        {
            "session_id": _session_id(),
            "session_date": pa.Column(pl.Date),
            **times,
            "duration_s": pa.Column(pl.Float64, [_worded(pa.Check.ge(0), "duration_s is not negative")]),
            **_event_columns(),
            **counts,
        },
        checks=[
            *_event_checks(),
            _fact("no session comes twice on a day", lambda _: pl.struct("session_id", "session_date").is_unique()),
            _fact("event_count is the number of events", lambda _: pl.col("event_count") == _len("actions")),
            *(_count_check(action) for action in ACTIONS),
            _fact("ended_at is the time of the last event", lambda _: _epoch_ms("ended_at") == _last("timestamps_ms")),
            _fact("duration_s is the time from the first event to the last", lambda _: _duration_is_right()),
        ],
        name="sessions",
    )


def intent_schema() -> "pa.DataFrameSchema":
    """Return the schema of ``intent_dataset``: a row per session and cut, exactly these columns in this order."""
    import pandera.polars as pa

    cuts = _worded(pa.Check.isin(INTENT_CUTS), f"cut is one of {', '.join(map(str, INTENT_CUTS))}")
    return pa.DataFrameSchema(
        {
            "session_id": _session_id(),
            "session_date": pa.Column(pl.Date),
            "started_at": pa.Column(pl.Datetime("us")),
            "cut": pa.Column(pl.Int8, [cuts]),
            **_event_columns(),
            "label": pa.Column(pl.Boolean),
        },
        checks=_event_checks(),
        strict=True,
        ordered=True,
        name="intent_dataset",
    )


def recommendation_schema() -> "pa.DataFrameSchema":
    """Return the schema of ``recommendation_dataset``: a row per session, exactly these columns in this order."""
    import pandera.polars as pa

    first_item = pl.col("item_timestamps_ms").list.first()
    return pa.DataFrameSchema(
        {
            "session_id": _session_id(),
            "session_date": pa.Column(pl.Date),
            "started_at": pa.Column(pl.Datetime("us")),
            "items": _list_column(pl.String, _all_of("items", "every item is named", pl.element() != "")),
            "item_timestamps_ms": _list_column(pl.Int64, _rising("item_timestamps_ms")),
            "item_actions": _list_column(
                pl.String,
                _all_of("item_actions", "every item is a detail or a click", pl.element().is_in(ITEM_ACTIONS)),
            ),
        },
        checks=[
            _aligned("items", "item_timestamps_ms", "item_actions"),
            _fact("session_date is the day of started_at", lambda _: _day_is_right()),
            _fact("no item is earlier than started_at", lambda _: first_item >= _epoch_ms("started_at")),
        ],
        strict=True,
        ordered=True,
        name="recommendation_dataset",
    )


@dataclass(frozen=True)
class SchemaFailures:
    """What a frame breaks: how many failures, and at most five examples in plain words."""

    count: int
    examples: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.count > 0


def schema_failures(schema: "pa.DataFrameSchema", frame: pl.DataFrame) -> SchemaFailures:
    """Return what of ``frame`` is not as the schema says; falsy where all is.

    A failed rule on rows counts a failure per row, any other (a missing column, a wrong type) counts one.
    """
    import pandera.errors

    try:
        schema.validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as failed:
        broken_rules = [_explain(error, frame) for error in failed.schema_errors]
    else:
        return SchemaFailures(0, ())
    # A rule that cannot be computed (because a column is missing, say) is news only where nothing else is.
    rules = [rule for rule in broken_rules if rule.count] or [SchemaFailures(1, r.examples) for r in broken_rules]
    examples = [example for place in range(MAX_EXAMPLES) for rule in rules for example in rule.examples[place:][:1]]
    return SchemaFailures(sum(rule.count for rule in rules), tuple(examples[:MAX_EXAMPLES]))


def _explain(error: Any, frame: pl.DataFrame) -> SchemaFailures:
    """Return the failures of one rule; a count of 0 where the rule could not be computed."""
    from pandera.errors import SchemaErrorReason as Reason

    reason, column = error.reason_code, getattr(error.schema, "name", None)
    if reason == Reason.DATAFRAME_CHECK and error.check_output is not None:
        rows = error.check_output.to_series().fill_null(False).not_().arg_true()
        sessions = frame.select("session_id", "session_date").gather(rows.head(MAX_EXAMPLES))
        broken = f"breaks the rule: {error.check.error}"
        return SchemaFailures(
            len(rows), tuple(f"session {row[0]} of {row[1]} {broken}" for row in sessions.iter_rows())
        )
    whole_frame = {
        Reason.COLUMN_NOT_IN_DATAFRAME: lambda: f"column {error.failure_cases} is missing",
        Reason.COLUMN_NOT_IN_SCHEMA: lambda: f"column {error.failure_cases} should not be there",
        Reason.COLUMN_NOT_ORDERED: lambda: f"column {error.failure_cases} is out of place",
        Reason.WRONG_DATATYPE: lambda: f"column {column} should be {error.schema.dtype}, and is {frame.schema[column]}",
        Reason.SERIES_CONTAINS_NULLS: lambda: f"column {column} has {frame[column].null_count()} missing values",
    }
    if reason in whole_frame:
        return SchemaFailures(1, (whole_frame[reason](),))
    rule = getattr(error.check, "error", None) or error.check
    return SchemaFailures(0, (f"could not be computed: {rule} ({str(error).splitlines()[0][:200]})",))


def _count_columns() -> tuple[str, ...]:
    return tuple(f"{action}_count" for action in ACTIONS)


def _session_id() -> "pa.Column":
    import pandera.polars as pa

    return pa.Column(pl.String, [_worded(pa.Check.str_length(min_value=1), "session_id is not empty")])


def _whole_number() -> "pa.Column":
    """A count, whatever integer width the warehouse has for it."""
    import pandera.polars as pa

    return pa.Column(pl.Int64, [_worded(pa.Check.ge(0), "counts are not negative")], coerce=True)


def _event_columns() -> "dict[str, pa.Column]":
    known = _all_of("actions", "every action is known", pl.element().is_in(ACTIONS))
    return {
        "actions": _list_column(pl.String, known),
        "skus": _list_column(pl.String),
        "timestamps_ms": _list_column(pl.Int64, _rising("timestamps_ms")),
    }


def _event_checks() -> "list[pa.Check]":
    return [
        _aligned("actions", "skus", "timestamps_ms"),
        _fact(f"{', '.join(PRODUCT_ACTIONS)} events name their product", _products_are_named),
        _fact("started_at is the time of the first event", lambda _: _epoch_ms("started_at") == _first_time()),
        _fact("session_date is the day of started_at", lambda _: _day_is_right()),
    ]


def _list_column(inner: type[pl.DataType], *checks: "pa.Check") -> "pa.Column":
    import pandera.polars as pa

    def nothing_missing(data: Any) -> pl.LazyFrame:
        if _flat(data.lazyframe, data.key):
            return data.lazyframe.select(pl.repeat(True, pl.len()))
        lists = pl.col(data.key).list
        return data.lazyframe.select(lists.drop_nulls().list.len() == lists.len())

    missing = pa.Check(nothing_missing, error="no value in a list is missing", n_failure_cases=MAX_EXAMPLES)
    return pa.Column(pl.List(inner), [missing, *checks])


def _fact(sentence: str, condition: Callable[[pl.LazyFrame], pl.Expr]) -> "pa.Check":
    """A rule on rows; ``condition`` gets the frame and returns a boolean expression on it."""
    import pandera.polars as pa

    return pa.Check(
        lambda data: data.lazyframe.select(condition(data.lazyframe).fill_null(False).alias("passed")),
        error=sentence,
        n_failure_cases=MAX_EXAMPLES,
    )


def _worded(check: "pa.Check", sentence: str) -> "pa.Check":
    check.error = sentence
    check.n_failure_cases = MAX_EXAMPLES
    return check


def _all_of(column: str, sentence: str, condition: pl.Expr) -> "pa.Check":
    return _fact(sentence, lambda _: pl.col(column).list.eval(condition).list.all())


def _rising(column: str) -> "pa.Check":
    is_late = pl.col(column).list.first() > 0
    return _fact(f"{column} never go back, and are after 1970", lambda frame: _never_falls(frame, column) & is_late)


def _never_falls(frame: pl.LazyFrame, column: str) -> pl.Expr:
    flat = _flat(frame, column)
    if flat is None:
        return pl.col(column).list.diff(null_behavior="drop").list.min().fill_null(0) >= 0
    values, ends = flat[0].to_numpy(), flat[1].cum_sum().to_numpy()
    falls = np.flatnonzero(values[1:] < values[:-1]) + 1
    rows = np.searchsorted(ends, falls, side="right")
    within = rows[falls != np.concatenate([[0], ends])[rows]]
    return ~pl.int_range(pl.len()).is_in(np.unique(within).tolist())


def _flat(frame: pl.LazyFrame, column: str) -> tuple[pl.Series, pl.Series] | None:
    """Return all values of a list column behind one another and the lists' lengths: asking all at once is several times
    cheaper than asking each list. None if a list or a value is missing or a list is empty: then each is asked.
    """
    lists = frame.select(column).collect().to_series()
    lengths = lists.list.len()
    if lengths.null_count() or not (lengths > 0).all():
        return None
    values = lists.explode()
    return None if values.null_count() else (values, lengths)


def _aligned(*columns: str) -> "pa.Check":
    first, *others = columns
    same = pl.all_horizontal(_len(first) == _len(other) for other in others)
    return _fact(f"{', '.join(columns)} have the same length, at least one", lambda _: same & (_len(first) > 0))


def _count_check(action: str) -> "pa.Check":
    column = f"{action}_count"
    return _fact(
        f"{column} is the number of {action} events",
        lambda _: pl.col("actions").list.count_matches(action) == pl.col(column),
    )


def _products_are_named(frame: pl.LazyFrame) -> pl.Expr:
    events = frame.select("actions", "skus").with_row_index().explode("actions", "skus")
    nameless = events.filter(pl.col("actions").is_in(PRODUCT_ACTIONS) & (pl.col("skus") == "")).select("index")
    return ~pl.int_range(pl.len()).is_in(nameless.collect()["index"].unique().to_list())


def _len(column: str) -> pl.Expr:
    return pl.col(column).list.len()


def _last(column: str) -> pl.Expr:
    return pl.col(column).list.last()


def _first_time() -> pl.Expr:
    return pl.col("timestamps_ms").list.first()


def _epoch_ms(column: str) -> pl.Expr:
    return pl.col(column).dt.epoch("ms")


def _day_is_right() -> pl.Expr:
    return pl.col("started_at").dt.date() == pl.col("session_date")


def _duration_is_right() -> pl.Expr:
    elapsed_s = (_last("timestamps_ms") - _first_time()) / 1000
    return (pl.col("duration_s") - elapsed_s).abs() < 0.001
