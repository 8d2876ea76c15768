"""The index against scores worked out by hand, and against plain loops over all past sessions."""

from collections import defaultdict
from math import exp

import numpy as np
import pytest

from bigger_boat.ml.item_sequences import ItemVocabulary
from bigger_boat.ml.session_index import IndexConfig, SessionIndex, first_places

PAST = [["a", "b"], ["c"], ["a", "c", "d"], ["b", "c", "b"]]
CONFIG = IndexConfig(position_decay=2.0, match_decay=4.0, distance=3.0, before=0.5, rules_decay=0.25)


def parts_of(past, history, config=CONFIG):
    vocabulary = ItemVocabulary.of(past)
    index = SessionIndex.of(past, vocabulary, config)
    recent = vocabulary.encode([history]).whole().recent_first(np.array([0]))
    return {
        name: dict(zip(vocabulary.skus, shares[0].tolist(), strict=True))
        for name, shares in index.parts(recent).items()
    }


def shares(scores):
    return {sku: pytest.approx(score / sum(scores.values()), rel=1e-5) for sku, score in scores.items()}


def test_neighbours_and_rules_by_hand():
    parts = parts_of(PAST, ["b", "a"])
    # a, the last item, is in sessions 1 and 3; b, one older, in 1 and 4 (whose distinct items are c, b)
    first = (1 + exp(-1 / 2)) ** 2 / 2
    third, fourth = 1 / 3, exp(-1 / 2) ** 2 / 2 * exp(-1 / 4)
    assert parts["beside"] == shares({"a": first + third, "b": first + fourth, "c": third + fourth, "d": third})
    # behind a come b (session 1), c and d (session 3); before b comes c (session 4); the shared item itself: 0 steps
    behind = {
        "a": 0.5 * (first + third),
        "b": first + 0.5 * fourth,
        "c": third + 0.5 * fourth,
        "d": third * exp(-1 / 3),
    }
    assert parts["behind"] == shares(behind)
    # from a: b, c by 1 and d by 1/2; from b, at a quarter: c by 1 and b, two steps on, by 1/2
    assert parts["rules"] == shares({"a": 0, "b": 1 + 0.125, "c": 1 + 0.25, "d": 0.5})


def test_a_repeated_item_counts_once_at_its_last_place():
    assert parts_of(PAST, ["a", "b", "a"])["beside"] == parts_of(PAST, ["b", "a"])["beside"]
    assert first_places(np.array([[3, 5, 3, -1], [2, 2, 2, 2]])).tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]


def test_of_an_item_only_the_most_recent_sessions_count():
    one = IndexConfig(sessions_per_item=1)
    assert parts_of(PAST, ["a"], one)["beside"] == shares({"a": 1, "b": 0, "c": 1, "d": 1})
    last = IndexConfig(sessions=1)
    assert parts_of(PAST, ["a"], last)["beside"] == {"a": 0, "b": 0, "c": 0, "d": 0}


def test_only_the_last_items_of_a_history_and_of_a_session_are_looked_at():
    assert parts_of(PAST, ["d", "b"], IndexConfig(longest=1)) == parts_of(PAST, ["b"], IndexConfig(longest=1))
    short = parts_of([["a", "b", "c"]], ["c"], IndexConfig(items_per_session=2))
    assert short["beside"] == shares({"a": 0, "b": 1, "c": 1})


def test_a_shop_of_single_items_has_neither_neighbours_nor_rules():
    assert parts_of([["a"], ["b"]], ["a"]) == {name: {"a": 0, "b": 0} for name in ("beside", "behind", "rules")}


def test_plain_loops_over_all_sessions_give_the_same():
    generator = np.random.default_rng(4)
    past = [[f"p{i}" for i in generator.integers(0, 12, generator.integers(1, 7))] for _ in range(60)]
    for history in past[:8]:
        parts = parts_of(past, history)
        beside, behind = loops(past, history)
        for name, expected in (("beside", beside), ("behind", behind)):
            total = sum(expected.values())
            for sku, share in parts[name].items():
                assert share == pytest.approx(expected[sku] / total, abs=1e-6), (name, sku)


def loops(past, history):
    """Return what ``IndexConfig`` says of neighbours, by loops over sessions and items."""
    ages = {}
    for age, item in enumerate(reversed(history[-CONFIG.longest :])):
        ages.setdefault(item, age)
    beside, behind = defaultdict(float), defaultdict(float)
    for session in past:
        distinct = [item for place, item in enumerate(session) if item not in session[place + 1 :]]
        shared = [item for item in distinct if item in ages]
        if len(distinct) < 2 or not shared:
            continue
        nearest = min(shared, key=ages.__getitem__)
        similarity = sum(exp(-ages[item] / CONFIG.position_decay) for item in shared) ** 2 / len(distinct)
        similarity *= exp(-ages[nearest] / CONFIG.match_decay)
        for place, item in enumerate(distinct):
            steps = place - distinct.index(nearest)
            way = 1.0 if steps > 0 else CONFIG.before
            beside[item] += similarity
            behind[item] += similarity * way * exp(-max(abs(steps) - 1, 0) / CONFIG.distance)
    return beside, behind
