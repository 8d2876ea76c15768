"""Baselines against scores worked out by hand, and sequential rules against the published loop."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from bigger_boat.ml.baselines import Markov, Popularity, Prod2VecLast, Prod2VecMean, SequentialRules, SessionPopularity
from bigger_boat.ml.prod2vec import ProductEmbeddings


def scores_of(ranker, history):
    skus, scores = ranker.rank([history], k=100)
    return dict(zip(skus[0].tolist(), scores[0].tolist(), strict=True))


def test_popularity_does_not_look_at_the_session():
    ranker = Popularity.fit([["a", "b", "a"], ["b", "a"]])
    assert scores_of(ranker, ["b"]) == scores_of(ranker, ["a", "a"]) == pytest.approx({"a": 3 / 5, "b": 2 / 5})


def test_session_popularity_counts_in_the_session_and_breaks_ties_by_popularity():
    ranker = SessionPopularity.fit([["a", "b", "a"], ["b", "a", "c"]])  # a 3, b 2, c 1
    assert scores_of(ranker, ["c", "c", "b"]) == pytest.approx({"c": 2 + 1 / 2, "b": 1 + 2 / 3, "a": 3 / 4})


def test_markov_counts_what_came_next():
    ranker = Markov.fit([["a", "b", "a", "b"], ["a", "c"]])
    assert scores_of(ranker, ["c", "a"]) == pytest.approx({"b": 2, "c": 1, "a": 0})
    assert scores_of(ranker, ["c"]) == {"a": 0, "b": 0, "c": 0}  # nothing followed: by popularity
    assert ranker.rank([["c"]])[0].tolist() == [["a", "b", "c"]]


def test_sequential_rules_weigh_by_one_over_distance():
    ranker = SequentialRules.fit([["a", "b", "c"], ["a", "c"]])
    assert scores_of(ranker, ["a"]) == pytest.approx({"c": 1 / 2 + 1, "b": 1, "a": 0})
    assert scores_of(ranker, ["x", "b"]) == pytest.approx({"c": 1, "a": 0, "b": 0})


def test_rules_do_not_cross_sessions_and_end_after_the_given_steps():
    ranker = SequentialRules.fit([["a", "b", "c"], ["d"]], steps=1)
    assert scores_of(ranker, ["a"]) == pytest.approx({"b": 1, "a": 0, "c": 0, "d": 0})
    assert scores_of(ranker, ["c"])["d"] == 0


def test_only_the_strongest_rules_are_kept():
    training = [["a", "b"], ["a", "b"], ["a", "c"], ["a", "c"], ["a", "d"]]
    assert scores_of(SequentialRules.fit(training, pruning=2), ["a"]) == pytest.approx({"b": 2, "c": 2, "a": 0, "d": 0})
    assert scores_of(SequentialRules.fit(training, pruning=1), ["a"])["c"] == 0  # a tie: the lower row stays


def test_rules_equal_the_published_double_loop():
    generator = np.random.default_rng(1)
    training = [[f"p{i}" for i in generator.integers(0, 15, size=generator.integers(1, 18))] for _ in range(200)]
    rules = defaultdict(Counter)
    for items in training:
        for place, item in enumerate(items):
            for distance in range(1, min(10, place) + 1):
                rules[items[place - distance]][item] += 1 / distance
    ranker = SequentialRules.fit(training, pruning=100)
    for antecedent, expected in rules.items():
        found = {sku: score for sku, score in scores_of(ranker, [antecedent]).items() if score}
        assert found == pytest.approx(dict(expected), rel=1e-5)


def test_plain_prod2vec_looks_at_the_mean_or_at_the_last_item():
    vectors = np.array([[1, 0], [0, 2], [3, 3]], dtype=np.float32)
    embeddings = ProductEmbeddings(["a", "b", "c"], np.array([3, 2, 1]), vectors)
    diagonal = 1 / np.sqrt(2)
    assert scores_of(Prod2VecLast(embeddings), ["b", "a"]) == pytest.approx({"a": 1, "c": diagonal, "b": 0})
    assert scores_of(Prod2VecMean(embeddings), ["b", "a"]) == pytest.approx({"c": 1, "a": diagonal, "b": diagonal})
    twice = scores_of(Prod2VecMean(embeddings), ["b", "a", "a"])  # 2a + b, repeats counted
    assert twice == pytest.approx({"a": 2 / np.sqrt(5), "c": 3 / np.sqrt(10), "b": 1 / np.sqrt(5)})
