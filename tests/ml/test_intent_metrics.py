"""Intent metrics against numbers worked out by hand, and against scikit-learn as an independent method."""

import math

import numpy as np
import pytest

from bigger_boat.ml.intent_metrics import (
    CUT_WEIGHTS,
    auc,
    calibration_error,
    intent_report,
    log_loss,
    pr_auc,
    weighted_micro_f1,
)


def test_auc_by_hand():
    # Buyers .8 and .4, others .6 and .2: of four pairs (.8 > .6, .8 > .2, .4 < .6, .4 > .2) three are in order.
    assert auc([1, 0, 1, 0], [0.8, 0.6, 0.4, 0.2]) == pytest.approx(3 / 4)


def test_auc_counts_a_tie_as_one_half():
    assert auc([1, 0], [0.5, 0.5]) == pytest.approx(0.5)
    assert auc([1, 1, 0], [0.5, 0.9, 0.5]) == pytest.approx((0.5 + 1) / 2)


def test_pr_auc_by_hand():
    # Found at ranks 1 and 3: (1/1 + 2/3) / 2.
    assert pr_auc([1, 0, 1, 0], [0.8, 0.6, 0.4, 0.2]) == pytest.approx((1 + 2 / 3) / 2)


def test_pr_auc_of_a_constant_is_the_base_rate():
    assert pr_auc([1, 0, 0, 0], [0.3] * 4) == pytest.approx(0.25)


def test_pr_auc_takes_tied_scores_together():
    # First threshold admits one buyer of one row, the second both tied rows: precision 1, then 2/3.
    assert pr_auc([1, 1, 0], [0.9, 0.5, 0.5]) == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_one_class_only_is_undefined_and_no_error(labels):
    assert math.isnan(auc(labels, [0.5] * len(labels)))
    assert math.isnan(pr_auc(labels, [0.5] * len(labels))) == (1 not in labels)


def test_log_loss_by_hand_and_at_the_edges():
    assert log_loss([1, 0], [0.5, 0.75]) == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert log_loss([1], [0.0]) == pytest.approx(-math.log(1e-7))
    assert math.isnan(log_loss([], []))


def test_calibration_error_by_hand():
    # Bin .1-.2 holds .12 and .18 (mean .15, one buyer in two: off by .35); bin .9-1 holds 1.0 (a buyer: off by 0).
    assert calibration_error([1, 0, 1], [0.12, 0.18, 1.0]) == pytest.approx(0.35 * 2 / 3)
    assert calibration_error([0, 0, 0, 1], [0.25] * 4) == pytest.approx(0.0)
    assert math.isnan(calibration_error([], []))


@pytest.mark.parametrize(
    ("labels", "predicted", "cuts", "expected"),
    [
        ([0] * 6, [0] * 6, [0, 2, 4, 6, 8, 10], 4.5),
        ([1, 0, 1, 0], [0, 0, 1, 1], [0, 0, 10, 10], 1.0 * 1 / 2 + 0.5 * 1 / 2),
        ([1, 1, 0], [1, 0, 0], [2, 2, 2], 0.9 * 2 / 3),
        ([1], [0], [4], 0.0),
        ([], [], [], 0.0),
        ([0, 0, 0, 0, 1] * 6, [0] * 30, np.repeat([0, 2, 4, 6, 8, 10], 5), 4.5 * 0.8),
    ],
)
def test_weighted_micro_f1_by_hand(labels, predicted, cuts, expected):
    assert weighted_micro_f1(np.array(labels), np.array(predicted), np.array(cuts)) == pytest.approx(expected)


def test_cut_weights_sum_to_the_challenge_maximum():
    assert sum(CUT_WEIGHTS.values()) == pytest.approx(4.5)


def test_report_holds_each_cut_and_an_empty_one():
    report = intent_report([1, 0, 0, 1], [0.9, 0.2, 0.4, 0.6], [0, 0, 2, 2])
    assert [scores.examples for scores in report.cuts] == [2, 2, 0, 0, 0, 0]
    assert report.pooled.base_rate == 0.5
    assert report.cuts[0].pr_auc == 1.0
    assert math.isnan(report.cuts[2].auc)
    assert report.weighted_micro_f1 == pytest.approx(1.0 + 0.9)
    assert report.majority_micro_f1 == pytest.approx(0.5 * 1.9)


def test_agrees_with_scikit_learn_on_ties_and_weights():
    from sklearn import metrics

    generator = np.random.default_rng(3)
    labels = generator.random(300) < 0.3
    scores = np.round(generator.random(300) * 0.8 + labels * 0.1, 1)
    weights = generator.integers(0, 4, 300).astype(float)
    assert auc(labels, scores, weights) == pytest.approx(metrics.roc_auc_score(labels, scores, sample_weight=weights))
    expected = metrics.average_precision_score(labels, scores, sample_weight=weights)
    assert pr_auc(labels, scores, weights) == pytest.approx(expected)
    expected = metrics.log_loss(labels, np.clip(scores, 0.05, 0.95), sample_weight=weights)
    assert log_loss(labels, np.clip(scores, 0.05, 0.95), weights) == pytest.approx(expected)
