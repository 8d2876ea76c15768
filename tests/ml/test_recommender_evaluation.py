"""The protocol, against a plain loop over sessions."""

import math

import numpy as np
import pytest

from bigger_boat.ml.baselines import Markov, Popularity, SessionPopularity
from bigger_boat.ml.prod2vec import Prod2VecConfig, train_prod2vec
from bigger_boat.ml.ranking import Ranker
from bigger_boat.ml.recommendation_plots import plot_leaderboard, plot_product_map
from bigger_boat.ml.recommender_evaluation import METRICS, evaluate, leaderboard

TRAINING = [["a", "b", "c"], ["a", "b"], ["a", "d"]]  # a 3, b 2, c 1, d 1


def test_every_next_item_of_every_session_is_predicted():
    result = evaluate(Popularity.fit(TRAINING), [["b", "a", "d"], ["c"], [], ["x", "b"]], k=2)
    assert result.sessions.tolist() == [0, 0, 3]
    assert result.reciprocal_ranks.tolist() == [1, 0, 0.5]  # lists are always a, b
    assert result.hits.tolist() == [1, 0, 1]
    assert result.metrics["mrr"] == 0.5
    assert result.metrics["hit_rate"] == pytest.approx(2 / 3)
    assert result.metrics["ndcg"] == pytest.approx((1 + 1 / math.log2(3)) / 3)
    # remaining {a, d}, {d}, {b}; one hit, none, one hit among two places
    assert result.metrics["f1"] == pytest.approx((1 / 2 + 0 + 2 * 0.5 * 1 / 1.5) / 3)
    assert result.metrics["coverage"] == 0.5
    assert result.metrics["popularity_bias"] == pytest.approx((1 + 0.75) / 2)
    assert result.metrics["predictions"] == 3


def test_a_target_that_training_never_saw_is_a_miss():
    result = evaluate(Popularity.fit(TRAINING), [["a", "x", "a"]])
    assert result.reciprocal_ranks.tolist() == [0, 1]


def test_without_seen_items_only_new_targets_count():
    sessions = [["a", "b", "a", "c", "c"]]
    result = evaluate(SessionPopularity.fit(TRAINING), sessions, k=1, exclude_seen=True)
    assert result.metrics["predictions"] == 2  # b after a, c after a b a
    assert result.reciprocal_ranks.tolist() == [1, 1]


def test_no_prediction_gives_nan_and_no_error():
    result = evaluate(Popularity.fit(TRAINING), [["a"], []])
    assert result.metrics["predictions"] == 0
    assert all(math.isnan(result.metrics[name]) for name in ("mrr", "hit_rate", "ndcg", "f1", "popularity_bias"))


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_batches_equal_a_plain_loop(monkeypatch, exclude_seen):
    generator = np.random.default_rng(4)
    sessions = [[f"p{i}" for i in generator.zipf(1.4, size=generator.integers(0, 15)) if i < 40] for _ in range(120)]
    ranker = Markov.fit(sessions[:80])
    monkeypatch.setattr(Ranker, "batch_size", lambda self: 7)
    result = evaluate(ranker, sessions[80:], k=5, exclude_seen=exclude_seen)

    reciprocal, f1, shown = [], [], set()
    for items in sessions[80:]:
        for place in range(1, len(items)):
            if exclude_seen and items[place] in items[:place]:
                continue
            listed = [sku for sku in ranker.rank([items[:place]], 5, exclude_seen)[0][0] if sku]
            reciprocal.append(1 / (listed.index(items[place]) + 1) if items[place] in listed else 0)
            truth = set(items[place:])
            f1.append(2 * len(truth & set(listed)) / (5 + len(truth)))
            shown |= set(listed)
    assert result.reciprocal_ranks == pytest.approx(reciprocal)
    assert result.metrics["f1"] == pytest.approx(np.mean(f1))
    assert result.metrics["coverage"] == pytest.approx(len(shown) / len(ranker.vocabulary))


def test_the_leaderboard_is_best_first_with_intervals_and_a_picture():
    sessions = [["a", "b"], ["a", "b", "a"], ["b", "c"]] * 5
    results = [evaluate(one.fit(TRAINING), sessions) for one in (Popularity, Markov)]
    rows = leaderboard(results)
    assert [row["recommender"] for row in rows] == ["markov", "popularity"]
    for row in rows:
        assert set(METRICS) <= set(row)
        assert row["mrr_low"] <= row["mrr"] <= row["mrr_high"]
    assert plot_leaderboard(rows).startswith(b"\x89PNG")
    difference = results[1].mrr_above(results[0])
    assert difference.value == pytest.approx(rows[0]["mrr"] - rows[1]["mrr"])


def test_the_product_map_is_a_picture_with_and_without_categories():
    embeddings = train_prod2vec([["a", "b", "c"]] * 5, Prod2VecConfig(dim=4, epochs=1))
    assert plot_product_map(embeddings).startswith(b"\x89PNG")
    assert plot_product_map(embeddings, {"a": "shoes", "b": "hats"}).startswith(b"\x89PNG")
