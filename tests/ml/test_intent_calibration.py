"""Calibration against a truth that is known, and its caution with little evidence."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from bigger_boat.ml.intent_calibration import KNOTS, LEAST_SLOPE, Calibration, fit_calibration


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
    truth = 1 / (1 + np.exp(-(0.6 * addends[:, 0] + 0.4)))
    assert np.abs(1 / (1 + np.exp(-found.logits(addends))) - truth).mean() < 0.01


def test_little_evidence_changes_little():
    addends, labels = drawn(6)
    found = fit_calibration(addends, labels, sessions=2)
    assert (found.linear, found.deep, found.shift) == pytest.approx((1, 1, 0), abs=0.15)
    assert found.curve == pytest.approx(KNOTS, abs=0.15)


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


def test_a_curve_of_the_sum_is_found_where_there_is_one():
    """Buyers are never surer than 0.6, and half as many as the network believes where it is sure."""
    generator = np.random.default_rng(3)
    addends = generator.normal(-0.5, 1.5, (60_000, 2))
    believed = 1 / (1 + np.exp(-addends.sum(axis=1)))
    truth = np.minimum(believed, 0.6)
    found = fit_calibration(addends, generator.random(60_000) < truth, sessions=60_000)
    calibrated = 1 / (1 + np.exp(-found.logits(addends)))
    assert np.abs(believed - truth).mean() > 0.04
    assert np.abs(calibrated - truth).mean() < 0.015


def test_what_comes_first_stays_first():
    """Even where the surest buy less."""
    generator = np.random.default_rng(4)
    addends = generator.normal(0, 1.5, (20_000, 2))
    sums = addends.sum(axis=1)
    labels = generator.random(20_000) < np.select([sums < -1, sums < 1], [0.1, 0.7], 0.5)
    found = fit_calibration(addends, labels, sessions=20_000)
    assert (np.diff(found.curve) / np.diff(KNOTS)).min() == pytest.approx(LEAST_SLOPE)
    sums = np.linspace(-8, 8, 200)
    assert (np.diff(found.logits(np.column_stack([sums, sums]))) > 0).all()


def test_the_curve_is_straight_between_its_knots_and_runs_on_outside():
    bent = Calibration(curve=(-3.0, -2.5, -2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 1.0))
    sums = np.array([-5.0, -3.5, -0.25, 0.75, 1.5, 4.0])
    expected = [-4.0, -2.75, -0.25, 0.375, 0.75, 3.0]
    assert bent.logits(np.column_stack([sums, np.zeros(6)])) == pytest.approx(expected)


def test_it_survives_json_and_earlier_versions_had_no_curve():
    bent = Calibration(0.9, 1.2, -0.1, tuple(value / 2 for value in KNOTS))
    assert Calibration.from_dict(json.loads(json.dumps(asdict(bent)))) == bent
    assert Calibration.from_dict({"linear": 0.9, "deep": 1.2, "shift": -0.1}) == Calibration(0.9, 1.2, -0.1)
