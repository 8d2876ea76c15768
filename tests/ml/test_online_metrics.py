"""Predictions joined with what their sessions then did, by hand."""

import sys
from pathlib import Path

import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "data"))  # importlib mode puts no test folder on the path

from prediction_lines import NINE, frame, line

from bigger_boat.ml.online_metrics import (
    calibration_bins,
    intent_metrics,
    intent_outcomes,
    recommendation_metrics,
    recommendation_outcomes,
)

MINUTE = 60_000


def events(*rows) -> pl.DataFrame:
    """Rows of (session, minutes after nine, action, sku, request id)."""
    names = ("session_id", "timestamp_ms", "action", "sku", "request_id")
    kinds = dict.fromkeys(names, pl.String) | {"timestamp_ms": pl.Int64}
    told = [(session, NINE + int(minutes * MINUTE), *rest) for session, minutes, *rest in rows]
    return pl.DataFrame(told, schema=kinds, orient="row")


def ranks(answers: pl.DataFrame, happened: pl.DataFrame) -> dict[str, tuple[int | None, bool]]:
    rows = recommendation_outcomes(answers, happened)["request_id", "rank", "clicked"].rows()
    return {request: (rank, clicked) for request, rank, clicked in rows}


def test_the_next_product_of_the_session_counts():
    answers = frame(*(line(f"r-{n}", session_id=f"s-{n}") for n in range(1, 8)), line("nobody"))
    happened = events(
        ("s-1", -1, "detail", "a", None),  # before the answer
        ("s-1", 1, "view", "", None),
        ("s-1", 2, "add", "a", None),  # no item
        ("s-1", 3, "detail", "b", None),
        ("s-1", 4, "detail", "a", None),  # not the next one
        ("s-2", 1, "click", "a", None),
        ("s-3", 1, "detail", "z", None),
        ("s-4", 31, "detail", "a", None),  # too late to follow from the answer
        ("s-5", 0.01, "detail", "x", None),  # the page that asked
        ("s-5", 5, "detail", "a", None),
        ("s-6", 0.1, "detail", "x", None),  # seen again, seconds later
        ("s-9", 1, "detail", "a", None),
    )
    assert ranks(answers, happened) == {
        "r-1": (2, False),
        "r-2": (1, False),
        "r-3": (0, False),
        "r-4": (None, False),
        "r-5": (1, False),
        "r-6": (0, False),
        "r-7": (None, False),
    }


def test_an_event_that_names_the_request_says_whose_answer_it_was_and_whether_a_product_was_clicked():
    answers = frame(line("r-1"), line("r-2"), line("r-3", session_id="s-3"), line("r-4"), line("r-4", position=1))
    happened = events(
        ("s-1", 1, "detail", "b", "r-1"),
        ("s-2", 1, "detail", "z", "r-2"),  # another product: no click on the list
        ("s-3", 1, "detail", "a", None),  # the product of the list, but by another way
        ("s-4", 1, "detail", "a", "r-4"),  # of which of its two sessions?
    )
    assert ranks(answers, happened) == {"r-1": (2, True), "r-2": (0, False), "r-3": (1, False)}


def test_the_requests_own_time_and_events_count_before_the_servers_clock():
    own = line("r-1", session_id="s", at_ms=NINE - 60 * MINUTE)
    later = line("r-2", session_id="s", timestamps_ms=[NINE - 40 * MINUTE], at_ms=NINE - 60 * MINUTE)
    happened = events(("s", -50, "detail", "b", None), ("s", -30, "detail", "a", None))
    assert ranks(frame(own, later), happened) == {"r-1": (2, False), "r-2": (1, False)}


def test_metrics_of_a_version_beside_its_offline_numbers():
    answers = frame(
        line("r-1", session_id="s-1"),
        line("r-2", session_id="s-2", k=5),
        line("r-3", session_id="s-3", exclude_seen=True),
        line("r-4", session_id="s-4"),
        line("r-5", session_id="s-5", version="v2"),
    )
    happened = events(
        ("s-1", 1, "detail", "b", "r-1"),
        ("s-2", 1, "detail", "a", None),
        ("s-3", 1, "detail", "z", None),
        ("s-5", 1, "detail", "a", None),
    )
    outcomes = recommendation_outcomes(answers, happened)
    told = {(m.version, m.metric): m for m in recommendation_metrics(outcomes, {"v1": {"hit_rate": 0.7, "mrr": 0.4}})}
    first = {metric: (m.value, m.answers, m.offline) for (version, metric), m in told.items() if version == "v1"}
    assert first == {
        "hit_rate": (pytest.approx(2 / 3), 3, None),
        "mrr": (pytest.approx(0.5), 3, None),  # ranks 2, 1 and none
        "hit_rate@20": (1.0, 1, 0.7),  # only r-1 was asked as offline: 20 products, seen ones among them
        "mrr@20": (0.5, 1, 0.4),
        "click_through": (0.25, 4, None),
    }
    assert told["v2", "hit_rate@20"].offline is None
    assert not told["v1", "hit_rate"].enough
    assert recommendation_metrics(recommendation_outcomes(frame(), happened), {}) == []


def test_intervals_are_over_sessions_and_thirty_of_them_are_enough():
    answers = frame(*(line(f"r-{n}", session_id=f"s-{n % 40}") for n in range(80)))
    happened = events(*((f"s-{n}", 1, "detail", "a" if n < 20 else "z", None) for n in range(40)))
    metric = recommendation_metrics(recommendation_outcomes(answers, happened), {})[0]
    assert (metric.metric, metric.value, metric.answers, metric.sessions) == ("hit_rate", 0.5, 80, 40)
    assert metric.enough
    assert 0.3 < metric.low < 0.4 < 0.6 < metric.high < 0.7  # 1.96 * sqrt(0.25 / 40) = 0.155, not that of 80 rows


def test_purchases_after_the_answer():
    answers = frame(
        line("r-1", session_id="s-1", purchase_probability=0.9),
        line("r-2", session_id="s-2", purchase_probability=0.3),
        line("r-3", session_id="s-3", purchase_probability=0.25),
        line("r-4", session_id="s-4", purchase_probability=0.2, version="v2"),
        line("r-5", purchase_probability=0.2),
    )
    happened = events(("s-1", 60, "purchase", "a", None), ("s-2", -1, "purchase", "a", None))
    outcomes = intent_outcomes(answers, happened)
    assert outcomes["request_id", "purchased"].rows() == [
        ("r-1", True), ("r-2", False), ("r-3", False), ("r-4", False),
    ]  # fmt: skip
    told = {(m.version, m.metric): m for m in intent_metrics(outcomes, {"v1": {"log_loss": 0.5, "auc": 0.6}})}
    assert told["v1", "purchased"].value == pytest.approx(1 / 3)
    assert told["v1", "predicted"].value == pytest.approx((0.9 + 0.3 + 0.25) / 3)
    # -(ln 0.9 + ln 0.7 + ln 0.75) / 3 = (0.10536 + 0.35667 + 0.28768) / 3
    assert told["v1", "log_loss"].value == pytest.approx(0.24991, abs=1e-4)
    assert (told["v1", "log_loss"].offline, told["v1", "auc"].value) == (0.5, 1.0)
    assert ("v2", "auc") not in told, "one class alone has no AUC"


def test_calibration_by_bins():
    answers = frame(
        *(line(f"r-{n}", session_id=f"s-{n}", purchase_probability=p) for n, p in enumerate([0.1, 0.14, 1.0]))
    )
    bins = calibration_bins(intent_outcomes(answers, events(("s-1", 1, "purchase", "a", None))))
    assert [(one["bin"], one["answers"], one["purchased"]) for one in bins] == [
        ("0.1 to 0.2", 2, 0.5),
        ("0.9 to 1.0", 1, 0.0),
    ]
    assert bins[0]["predicted"] == pytest.approx(0.12)
    assert (bins[1]["low"], bins[1]["high"]) == (0.0, 1.0), "one session says nothing of others"


def test_nothing_of_forty_is_not_surely_nothing():
    answers = frame(*(line(f"r-{n}", session_id=f"s-{n}", purchase_probability=0.05) for n in range(40)))
    told = {m.metric: m for m in intent_metrics(intent_outcomes(answers, events()), {})}
    assert (told["purchased"].value, told["purchased"].low) == (0.0, 0.0)
    assert told["purchased"].high == pytest.approx(3.8416 / 43.8416, abs=1e-4)  # z^2 / (n + z^2), Wilson
    [bin_] = calibration_bins(intent_outcomes(answers, events()))
    assert bin_["high"] == told["purchased"].high
