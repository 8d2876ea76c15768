"""S-KNN, V-SKNN and VSTAN against scores worked out by hand, and against the published loops on random sessions."""

from collections import Counter, defaultdict
from dataclasses import replace
from math import exp, log, log10, sqrt

import numpy as np
import pytest

from bigger_boat.ml import session_neighbours
from bigger_boat.ml.session_neighbours import (
    SKNN,
    SKNN_CONFIG,
    VSKNN,
    VSKNN_CONFIG,
    VSTAN,
    VSTAN_CONFIG,
    NeighbourConfig,
    match_weights,
    position_weights,
)

TRAINING = [["a", "b"], ["a", "c", "d"], ["b", "c"]]


def scores_of(ranker, history):
    skus, scores = ranker.rank([history], k=100)
    return dict(zip(skus[0].tolist(), scores[0].tolist(), strict=True))


def test_sknn_sums_the_cosines_of_sessions_with_the_item():
    expected = {"a": 1 / sqrt(2) + 1 / sqrt(3), "b": 1 / sqrt(2), "c": 1 / sqrt(3), "d": 1 / sqrt(3)}
    assert scores_of(SKNN.fit(TRAINING), ["a"]) == pytest.approx(expected)


def test_sknn_counts_shared_items_once_and_whatever_their_order():
    ranker = SKNN.fit(TRAINING)
    expected = {"a": 2 / sqrt(2) + 1 / sqrt(3), "b": 3 / sqrt(2), "c": 1 / sqrt(3) + 1 / sqrt(2), "d": 1 / sqrt(3)}
    assert scores_of(ranker, ["a", "b"]) == pytest.approx(expected)
    assert scores_of(ranker, ["b", "b", "x", "a", "b"]) == pytest.approx(expected)


def test_only_the_most_recent_sessions_are_looked_at():
    ranker = SKNN.fit(TRAINING, replace(SKNN_CONFIG, sample_size=1))
    assert scores_of(ranker, ["a"]) == pytest.approx({"a": 1 / sqrt(3), "c": 1 / sqrt(3), "d": 1 / sqrt(3), "b": 0})
    # of the sessions with a or b the last is the third, which is not among those with a
    assert scores_of(ranker, ["b", "a"]) == pytest.approx({"b": 1 / sqrt(2), "c": 1 / sqrt(2), "a": 0, "d": 0})


def test_only_the_most_similar_are_neighbours_and_of_equals_the_most_recent():
    ranker = SKNN.fit(TRAINING, replace(SKNN_CONFIG, neighbours=1))
    assert scores_of(ranker, ["a"]) == pytest.approx({"a": 1 / sqrt(2), "b": 1 / sqrt(2), "c": 0, "d": 0})
    assert scores_of(ranker, ["b"]) == pytest.approx({"b": 1 / sqrt(2), "c": 1 / sqrt(2), "a": 0, "d": 0})


def test_vsknn_weighs_positions_matches_and_rare_items():
    # a is one before the last of two: (1/2)^2 = .25 in the similarity, and a neighbour by it alone counts 1 / 2^2
    first, second, third = 1.25 / sqrt(2), 0.25 / sqrt(3) / 4, 1 / sqrt(2)
    common, rare = 1 + 5 * log(3 / 2), 1 + 5 * log(3 / 1)
    expected = {
        "a": (first + second) * common,
        "b": (first + third) * common,
        "c": (second + third) * common,
        "d": second * rare,
    }
    assert scores_of(VSKNN.fit(TRAINING), ["a", "b"]) == pytest.approx(expected)


def test_vstan_weighs_time_and_the_distance_in_the_neighbour():
    ranker = VSTAN.fit(TRAINING, ended_s=[0.0, 5 * 86_400.0, 10 * 86_400.0])
    # history a: the first session ended five days before the second, the newest that shares it
    first, second = exp(-1) / sqrt(2), 1 / sqrt(3)
    common, rare = 1 + 5 * log(3 / 2), 1 + 5 * log(3 / 1)
    expected = {
        "a": (first + second) * common,
        "b": first * exp(-1 / 2.05) * common,
        "c": second * exp(-1 / 2.05) * common,
        "d": second * exp(-2 / 2.05) * rare,
    }
    assert scores_of(ranker, ["a"]) == pytest.approx(expected)


def test_vstan_without_times_leaves_them_out():
    training = [["a", "b"], ["a", "c"]]
    assert scores_of(VSTAN.fit(training), ["a"]) == pytest.approx(
        scores_of(VSTAN.fit(training, ended_s=[7.0, 7.0]), ["a"])
    )


def test_sessions_of_one_item_are_no_neighbours_and_without_any_popularity_decides():
    ranker = SKNN.fit([["a"], ["b", "c"], ["b", "c"], ["a"], ["b"]])
    assert ranker.rank([["a"], ["x"], []])[0].tolist() == [["b", "a", "c"]] * 3
    assert scores_of(ranker, ["a"]) == {"a": 0, "b": 0, "c": 0}
    alone = SKNN.fit([["a"]])
    assert alone.rank([["a"]])[0].tolist() == [["a"]]


def test_weights_are_the_published_ones():
    ages, lengths = np.array([0, 1, 3]), np.array([4, 4, 4])
    for kind, expected in {
        "same": [1, 1, 1],
        "linear": [1, 0.9, 0.7],
        "div": [1, 3 / 4, 1 / 4],
        "quadratic": [1, 9 / 16, 1 / 16],
        "exponential": [1, exp(-1 / 2), exp(-3 / 2)],
    }.items():
        assert position_weights(kind, ages, lengths, decay=2.0) == pytest.approx(expected)
    for kind, expected in {
        "same": [1, 1, 1],
        "linear": [0.9, 0.8, 0.6],
        "div": [1, 1 / 2, 1 / 4],
        "quadratic": [1, 1 / 4, 1 / 16],
        "log": [1 / log10(2.7), 1 / log10(3.7), 1 / log10(5.7)],
        "exponential": [1, exp(-1 / 2), exp(-3 / 2)],
    }.items():
        assert match_weights(kind, ages, decay=2.0) == pytest.approx(expected)


def published(training, ended_s, history, config: NeighbourConfig) -> dict[str, float]:
    """session-rec's loops over candidate sessions, with ties by recency."""
    position = {
        "same": lambda i, n: 1,
        "quadratic": lambda i, n: (i / n) ** 2,
        "exponential": lambda i, n: exp((i - n) / 1.02),
    }
    match = {"same": lambda i: 1, "quadratic": lambda i: 1 / i**2, "exponential": lambda i: exp(-(i - 1) / 1.02)}
    weights = {item: position[config.position](i, len(history)) for i, item in enumerate(history, start=1)}
    counts = Counter(item for items in training for item in items)
    sharing = [s for s in range(len(training) - 1, -1, -1) if set(training[s]) & set(history)][: config.sample_size]
    similar = []
    for s in sharing:
        similarity = sum(weights[item] for item in sorted(set(training[s]) & set(history)))
        similarity /= sqrt(len(set(training[s])))
        if config.time_days:
            similarity *= exp((ended_s[s] - ended_s[sharing[0]]) / (config.time_days * 86_400))
        similar.append((s, similarity))
    scores = defaultdict(float)
    for s, similarity in sorted(similar, key=lambda pair: -pair[1])[: config.neighbours]:
        items = training[s]
        step = next(step for step, item in enumerate(reversed(history), start=1) if item in items)
        last_shared = max(place for place, item in enumerate(items) if item in history)
        for item in set(items):
            score = similarity * match[config.match](step)
            if config.distance:
                place = len(items) - 1 - items[::-1].index(item)
                score *= exp(-abs(place - last_shared) / config.distance)
            scores[item] += score * (1 + config.idf * max(0.0, log(len(training) / counts[item])))
    return dict(scores)


@pytest.mark.parametrize("published_config", [SKNN_CONFIG, VSKNN_CONFIG, VSTAN_CONFIG])
def test_scores_equal_the_published_loops(published_config, monkeypatch):
    generator = np.random.default_rng(3)
    draws = [generator.zipf(1.5, size=generator.integers(2, 9)) % 40 for _ in range(250)]
    training = [[f"p{item}" for item in items] for items in draws]
    ended_s = np.cumsum(generator.integers(1, 9_000, size=len(training))).tolist()
    config = replace(published_config, neighbours=20, sample_size=60)
    ranker = session_neighbours.SessionNeighbours.fit(training, config, ended_s)
    histories = [[f"p{item}" for item in generator.integers(0, 40, size=size)] for size in (1, 1, 2, 3, 5, 8, 12)]
    known = [[item for item in history if item in ranker.vocabulary.rows] for history in histories]
    monkeypatch.setattr(session_neighbours, "PAIRS_PER_CHUNK", 100)
    for history in known:
        found = {item: score for item, score in scores_of(ranker, history).items() if score}
        assert found == pytest.approx(published(training, ended_s, history, config), rel=1e-5)


def test_chunks_do_not_change_scores(monkeypatch):
    generator = np.random.default_rng(4)
    training = [generator.integers(0, 30, size=5).astype(str).tolist() for _ in range(100)]
    histories = training[:40]
    ranker = VSTAN.fit(training, ended_s=range(100))
    at_once = ranker.rank(histories)
    monkeypatch.setattr(session_neighbours, "PAIRS_PER_CHUNK", 1)
    one_by_one = ranker.rank(histories)
    assert np.array_equal(at_once[0], one_by_one[0])
    assert np.array_equal(at_once[1], one_by_one[1])
