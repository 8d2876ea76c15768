"""What two versions' answers say about each other; the numbers are computed by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigger_boat.errors import BundleError
from bigger_boat.ml.bundle import Bundle
from bigger_boat.ml.version_diff import ABSENT, Question, configuration_rows, diff, in_words

DETAIL = {"action": "detail", "sku": "a-product-with-a-long-name", "timestamp_ms": 5}


def bundle(name: str, version: str, **info: Any) -> Bundle:
    return Bundle(Path(), 1, name, "kind", version, "", info, {}, [])


def ranking(*skus: str) -> dict[str, Any]:
    return {"skus": list(skus), "scores": [0.0] * len(skus), "fallback": False, "unknown_skus": []}


def chance(probability: float) -> dict[str, Any]:
    return {"purchase_probability": probability, "unknown_actions": []}


def test_first_products_that_changed_and_slices_won_and_lost():
    short = [Question([DETAIL], "x", ("short",)) for _ in range(40)]
    long = [Question([DETAIL] * 6, "x", ("long",)) for _ in range(40)]
    unjudged = [Question([])]
    old = [ranking("y", "x")] * 40 + [ranking("x", "y")] * 40 + [ranking()]
    new = [ranking("x", "y")] * 40 + [ranking("z", "y", "w", "x")] * 40 + [ranking()]
    found = diff(bundle("recommendation", "A"), bundle("recommendation", "B"), [*short, *long, *unjudged], old, new)
    assert (found.asked, found.changed) == (81, 80 / 81)
    assert found.summary == "recommendation: A -> B changes the first product of 98.8% of 81 sessions."
    rows = {row["slice"]: row for row in found.tables["Slices (MRR of the next product)"]}
    assert rows["short"] == {"slice": "short", "sessions": 40, "mrr_before": 0.5, "mrr_after": 1.0, "says": "won"}
    assert rows["long"] == {"slice": "long", "sessions": 40, "mrr_before": 1.0, "mrr_after": 0.25, "says": "lost"}
    assert (rows["all"]["mrr_before"], rows["all"]["mrr_after"]) == (0.75, 0.625)
    example = found.tables["First product changed, for example"][0]
    assert example == {"session": "detail a-product-", "before": "y", "after": "x"}


def test_products_whose_names_begin_alike_are_still_two():
    name = "the-same-beginning-"
    found = diff(
        bundle("recommendation", "A"), bundle("recommendation", "B"), [Question([])] * 2,
        [ranking(f"{name}1"), ranking(f"{name}1")], [ranking(f"{name}2"), ranking("another-product")],
    )  # fmt: skip
    assert found.changed == 1
    shown = [(row["before"], row["after"]) for row in found.tables["First product changed, for example"]]
    assert shown == [(f"{name}1", f"{name}2"), ("the-same-b", "another-pr")]


def test_a_difference_that_may_be_chance_is_even():
    questions = [Question([], "x", ("part",)) for _ in range(4)]
    old = [ranking("x"), ranking("x"), ranking("y"), ranking("y")]
    new = [ranking("x"), ranking("y"), ranking("x"), ranking("x")]
    found = diff(bundle("recommendation", "A"), bundle("recommendation", "B"), questions, old, new)
    assert {row["says"] for row in found.tables["Slices (MRR of the next product)"]} == {"even"}


def test_probabilities_that_moved():
    questions = [Question([DETAIL], label, ("0 events after the first add",)) for label in (True, False, True)]
    old, new = [chance(0.5), chance(0.5), chance(0.2)], [chance(0.8), chance(0.52), chance(0.2)]
    found = diff(bundle("intent", "A"), bundle("intent", "B"), questions, old, new)
    assert found.changed == 1 / 3  # 0.02 is less than MOVED
    moved = found.tables["Probability moved most"]
    assert [(row["before"], row["after"]) for row in moved] == [(0.5, 0.8), (0.5, 0.52)]
    mean, *_ = found.tables["Distribution of the probability"]
    assert mean == {"of": "mean", "before": pytest.approx(0.4), "after": pytest.approx(1.52 / 3)}
    [whole, _] = found.tables["Slices (mean log likelihood)"]
    by_hand = np.mean(np.log([0.8, 0.48, 0.2])), np.mean(np.log([0.5, 0.5, 0.2]))
    assert (whole["likelihood_after"], whole["likelihood_before"]) == pytest.approx(by_hand)


def test_only_settings_that_differ_are_named_by_their_path():
    old = {"kind": "knn", "prod2vec": {"dim": 32, "seed": 0}}
    new = {"kind": "knn", "prod2vec": {"dim": 48, "seed": 0}, "lstm": {"units": 64}}
    assert configuration_rows(old, new) == [
        {"setting": "lstm.units", "before": ABSENT, "after": 64},
        {"setting": "prod2vec.dim", "before": 32, "after": 48},
    ]
    assert configuration_rows(old, old) == []


def test_days_and_data_versions_stand_side_by_side():
    old = bundle(
        "intent", "A", refit={"first": "2026-10-01", "last": "2026-10-28"}, data_versions={"intent_dataset": "1"}
    )
    new = bundle("intent", "B", training_window={"first": "2026-10-01", "last": "2026-11-05"}, data_versions={})
    assert diff(old, new, [], [], [], [{"what": "more", "before": 1, "after": 2}]).tables["Data"] == [
        {"what": "first day", "before": "2026-10-01", "after": "2026-10-01"},
        {"what": "last day", "before": "2026-10-28", "after": "2026-11-05"},
        {"what": "intent_dataset", "before": "1", "after": ABSENT},
        {"what": "more", "before": 1, "after": 2},
    ]


def test_versions_of_different_endpoints_are_not_compared():
    with pytest.raises(BundleError, match="Version A is of the intent endpoint, B of recommendation"):
        diff(bundle("intent", "A"), bundle("recommendation", "B"), [], [], [])


def test_versions_that_were_not_asked_the_same_are_not_compared():
    with pytest.raises(BundleError, match="not asked the same"):
        diff(bundle("intent", "A"), bundle("intent", "B"), [Question([])], [chance(0.5)], [])


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([], "(nothing yet)"),
        (["0123456789abc"], "detail 0123456789"),
        ([{"action": "view"}, {"action": "add", "sku": "s"}], "view, add s"),
        ([{"action": "view"}] * 6, "..., view, view, view, view"),
    ],
)
def test_a_session_in_words(events, words):
    assert in_words(events) == words
