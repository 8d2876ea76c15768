"""Calibration against a truth that is known, and its caution with little evidence."""

import numpy as np
import pytest

from bigger_boat.ml.intent_calibration import Calibration, fit_calibration


def drawn(rows: int, seed: int = 0):
    """Labels of logit 0.6 x linear + 0.4: the linear part is overconfident, the LSTM part is noise."""
    generator = np.random.default_rng(seed)
    linear, deep = generator.normal(0, 2, rows), generator.normal(0, 1, rows)
    labels = generator.random(rows) < 1 / (1 + np.exp(-(0.6 * linear + 0.4)))
    return np.column_stack([linear, deep + 0.3, deep - 0.3]), labels


def test_much_evidence_finds_the_truth():
    addends, labels = drawn(60_000)
    found = fit_calibration(addends, labels, sessions=60_000)
    assert (found.linear, found.deep, found.shift) == pytest.approx((0.6, 0.0, 0.4), abs=0.03)


def test_little_evidence_changes_little():
    addends, labels = drawn(6)
    found = fit_calibration(addends, labels, sessions=2)
    assert (found.linear, found.deep, found.shift) == pytest.approx((1, 1, 0), abs=0.15)


def test_copies_of_a_row_are_no_evidence():
    addends, labels = drawn(300)
    once = fit_calibration(addends, labels, sessions=300)
    copied = fit_calibration(np.repeat(addends, 4, axis=0), np.repeat(labels, 4), sessions=300)
    assert (copied.linear, copied.deep, copied.shift) == pytest.approx((once.linear, once.deep, once.shift))


def test_a_part_is_ignored_but_never_turned_round():
    generator = np.random.default_rng(1)
    addends = generator.normal(0, 2, (20_000, 2))
    labels = generator.random(20_000) < 1 / (1 + np.exp(addends[:, 1] - addends[:, 0]))
    assert fit_calibration(addends, labels, sessions=20_000).deep == 0.0


def test_logits_average_the_members():
    assert Calibration(2.0, 3.0, 1.0).logits(np.array([[1.0, 2.0, 4.0]])) == pytest.approx([2 + 9 + 1])
