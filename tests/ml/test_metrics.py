"""Ranking metrics against numbers worked out by hand."""

import math

import numpy as np
import pytest

from bigger_boat.ml import metrics

RANKED = np.array([[4, 2, 7], [5, -1, -1], [1, 1, 3], [-1, -1, -1], [9, 8, 6]])
TARGETS = np.array([7, 5, 3, 2, -1])
RANKS = [3, 1, 3, 0, 0]


def test_ranks_are_one_based_and_zero_where_the_target_is_not_in_the_list():
    assert metrics.target_ranks(RANKED, TARGETS).tolist() == RANKS


def test_a_target_named_twice_has_its_first_place():
    assert metrics.target_ranks(np.array([[1, 1, 3]]), np.array([1])).tolist() == [1]


def test_an_absent_target_does_not_match_an_empty_place():
    assert metrics.target_ranks(np.array([[3, -1]]), np.array([-1])).tolist() == [0]
    assert metrics.target_ranks(np.array([["a", ""]]), np.array([""])).tolist() == [0]


def test_lists_of_skus_and_lists_of_no_length():
    assert metrics.target_ranks(np.array([["a", "b"], ["c", ""]]), np.array(["b", "c"])).tolist() == [2, 1]
    assert metrics.target_ranks(np.zeros((2, 0), dtype=np.int32), np.array([1, 2])).tolist() == [0, 0]


def test_hit_rate_mrr_and_ndcg():
    ranks = np.array(RANKS)
    assert metrics.hits(ranks).tolist() == [1, 1, 1, 0, 0]
    assert metrics.reciprocal_ranks(ranks) == pytest.approx([1 / 3, 1, 1 / 3, 0, 0])
    assert metrics.ndcg(ranks) == pytest.approx([1 / 2, 1, 1 / 2, 0, 0])  # log2(3 + 1) = 2
    assert metrics.ndcg(np.array([2])) == pytest.approx([1 / math.log2(3)])


@pytest.mark.parametrize(
    ("ranked", "truth", "k", "expected"),
    [
        ([1, 2, 3, 4], [1, 3], 4, 2 * 0.5 * 1.0 / 1.5),  # 2 hits: precision 2/4, recall 2/2
        ([1, 2, -1, -1], [1], 4, 2 * 0.25 * 1.0 / 1.25),  # fewer than k: precision is still over k
        ([1, 2, 3, 4], [], 4, 0.0),  # empty truth
        ([1, 1, 2, 3], [1, 1, 9], 4, 2 * 0.25 * 0.5 / 0.75),  # duplicates on both sides count once
        ([1, 2, 3, 4], [8, 9], 4, 0.0),  # no hit, no division by zero
        ([1, 2, 3, 4], [3], 2, 0.0),  # a hit behind k is none
        ([1, -1, -1, -1], [-3, 1], 4, 2 * 0.25 * 0.5 / 0.75),  # an unknown truth counts and cannot be hit
    ],
)
def test_f1_as_the_challenge_defines_it(ranked, truth, k, expected):
    owners = np.zeros(len(truth), dtype=np.int64)
    assert metrics.f1_at_k(np.array([ranked]), np.array(truth, dtype=np.int64), owners, k) == pytest.approx([expected])


def test_f1_keeps_predictions_apart():
    ranked = np.array([["a", "b"], ["a", "b"], ["a", "b"]])
    f1 = metrics.f1_at_k(ranked, np.array(["a", "z", "b", "a"]), np.array([0, 0, 2, 2]), 2)
    assert f1 == pytest.approx([0.5, 0.0, 1.0])  # row 0: 1/2 and 1/2; row 1: no truth; row 2: both


def test_f1_equals_the_challenge_scripts_arithmetic_on_random_lists():
    generator = np.random.default_rng(3)
    ranked = np.stack([generator.permutation(30)[:20] for _ in range(50)])
    truths = [generator.integers(-3, 30, size=generator.integers(0, 12)).tolist() for _ in range(50)]
    flat = np.array([item for truth in truths for item in truth])
    owners = np.repeat(np.arange(50), [len(truth) for truth in truths])
    expected = []
    for one, truth in zip(ranked.tolist(), truths, strict=True):
        both = len(set(one) & set(truth))
        expected.append(2 * both / (20 + len(set(truth))))  # harmonic mean of both/20 and both/|truth|
    assert metrics.f1_at_k(ranked, flat, owners, 20) == pytest.approx(expected)


def test_coverage_counts_each_shown_product_once():
    assert metrics.coverage(np.array([[1, 2], [2, -1]]), 8) == 0.25


def test_popularity_percentiles_share_ties_and_bias_is_their_mean():
    percentiles = metrics.popularity_percentiles(np.array([10, 5, 5, 1]))
    assert percentiles == pytest.approx([1.0, 0.625, 0.625, 0.25])
    assert metrics.popularity_bias(np.array([[0, 3], [1, -1]]), percentiles) == pytest.approx((1 + 0.25 + 0.625) / 3)
    assert math.isnan(metrics.popularity_bias(np.array([[-1]]), percentiles))
