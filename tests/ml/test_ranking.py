"""Order, ties, exclusion and fallback, the same for every recommender."""

import numpy as np
import pytest

from bigger_boat.ml.baselines import Popularity, SessionPopularity
from bigger_boat.ml.ranking import EventSession, top_k

TRAINING = [["a", "b"], ["a", "c"], ["a", "b"], ["d"]]  # a 3, b 2, c 1, d 1


def test_top_k_prefers_lower_columns_among_equals():
    scores = np.array([[0.0, 1.0, 1.0, 0.5, 1.0], [2.0, 2.0, 2.0, 2.0, 2.0]], dtype=np.float32)
    assert top_k(scores, 2).tolist() == [[1, 2], [0, 1]]
    assert top_k(scores, 9).tolist() == [[1, 2, 4, 3, 0], [0, 1, 2, 3, 4]]
    assert top_k(scores, 0).shape == (2, 0)


def test_top_k_equals_a_stable_sort_on_many_ties():
    scores = np.random.default_rng(0).integers(0, 6, size=(200, 50)).astype(np.float32)
    for k in (1, 7, 20, 49, 50):
        assert (top_k(scores, k) == np.argsort(-scores, axis=1, kind="stable")[:, :k]).all()


def test_ranked_lists_are_best_first_and_as_long_as_the_catalogue_allows():
    skus, scores = Popularity.fit(TRAINING).rank([["a"]], k=20)
    assert skus.tolist() == [["a", "b", "c", "d"]]
    assert scores[0] == pytest.approx([3 / 7, 2 / 7, 1 / 7, 1 / 7])


def test_seen_items_are_left_out_on_request_only():
    ranker = SessionPopularity.fit(TRAINING)
    assert ranker.rank([["c", "c", "b"]], k=2)[0].tolist() == [["c", "b"]]
    skus, scores = ranker.rank([["c", "c", "b"], ["a", "b", "c", "d"]], k=3, exclude_seen=True)
    assert skus.tolist() == [["a", "d", ""], ["", "", ""]]
    assert scores[1].tolist() == [0, 0, 0]


def test_no_known_item_gets_popular_products():
    skus, scores = SessionPopularity.fit(TRAINING).rank([[], ["x"]], k=2, exclude_seen=True)
    assert skus.tolist() == [["a", "b"], ["a", "b"]]
    assert scores[0] == pytest.approx([3 / 7, 2 / 7])


def test_offline_predictions_follow_the_contract():
    sessions = [
        EventSession(["view", "click", "detail", "add"], ["", "c", "c", "ghost"]),
        EventSession(["detail", "detail"], ["ghost", "ghost"]),
        (["add"], ["a"], [-1]),
        ([], []),
    ]
    first, second, third, fourth = SessionPopularity.fit(TRAINING).offline_predictions(sessions, k=2)
    assert first["skus"] == ["c", "a"]
    assert first["scores"] == pytest.approx([1.5, 0.75])
    assert (first["fallback"], first["unknown_skus"]) == (False, ["ghost"])
    assert (second["fallback"], second["unknown_skus"], second["skus"]) == (True, ["ghost"], ["a", "b"])
    assert (third["fallback"], third["unknown_skus"]) == (True, [])  # an add is no item
    assert (fourth["fallback"], fourth["skus"]) == (True, ["a", "b"])
