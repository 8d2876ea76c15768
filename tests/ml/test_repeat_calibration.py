"""Returns calibrated on validation: the arithmetic by hand, and numbers that are found again."""

import json

import numpy as np
import pytest

from bigger_boat.ml.repeat_calibration import RepeatCalibration, fit_repeats
from bigger_boat.ml.repeats import REPEAT_CLASSES

SLOPE = np.linspace(0.1, 0.8, REPEAT_CLASSES).astype(np.float32)
OFFSET = np.linspace(-2, 1.5, REPEAT_CLASSES).astype(np.float32)


def test_what_was_seen_is_measured_against_all_that_was_not():
    """What was not seen has logits log 2 and log 6: together log 8."""
    logits = np.log(np.array([[5.0, 7.0, 2.0, 6.0]], np.float32))
    recent = np.array([[1, 0, 1, -1]], np.int32)  # 1 was last, 0 before it; 1 counts once, by its last place
    found = RepeatCalibration(OFFSET, SLOPE).applied(logits, recent)
    total = np.log(8)
    assert found[0, 1] == pytest.approx(total + OFFSET[0] + SLOPE[0] * (np.log(7) - total), abs=1e-6)
    assert found[0, 0] == pytest.approx(total + OFFSET[1] + SLOPE[1] * (np.log(5) - total), abs=1e-6)
    assert (found[0, 2:] == logits[0, 2:]).all()


def test_none_changes_nothing_nor_does_any_where_everything_was_seen():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(3, 4)).astype(np.float32)
    recent = np.array([[3, 1, 2, 0], [2, -1, -1, -1], [-1, -1, -1, -1]], np.int32)
    assert RepeatCalibration.none().applied(logits, recent) == pytest.approx(logits, abs=1e-6)
    found = RepeatCalibration(OFFSET, SLOPE).applied(logits, recent)
    assert (found[0] == logits[0]).all()
    assert (found[2] == logits[2]).all()


def test_it_survives_json():
    again = RepeatCalibration.from_dict(json.loads(json.dumps(RepeatCalibration(OFFSET, SLOPE).as_dict())))
    assert (again.offset == OFFSET).all()
    assert (again.slope == SLOPE).all()


def test_the_calibration_behind_choices_is_found_again():
    """What comes next is drawn from calibrated logits; the uncalibrated ones are what is given."""
    generator, truth, batches = np.random.default_rng(1), RepeatCalibration(OFFSET, SLOPE), []
    for _ in range(4):
        logits = generator.normal(size=(5_000, 30), scale=1.5).astype(np.float32)
        recent = np.stack([generator.permutation(30)[:REPEAT_CLASSES] for _ in logits]).astype(np.int32)
        noisy = truth.applied(logits, recent) + generator.gumbel(size=logits.shape)
        batches.append((logits, recent, noisy.argmax(axis=1)))
    found = fit_repeats(batches)
    assert found.offset == pytest.approx(OFFSET, abs=0.15)
    assert found.slope == pytest.approx(SLOPE, abs=0.1)


def test_classes_that_were_never_seen_stay_as_they_were():
    generator = np.random.default_rng(2)
    logits, recent = generator.normal(size=(300, 6)).astype(np.float32), np.zeros((300, 1), np.int32)
    found = fit_repeats([(logits, recent, generator.integers(0, 6, 300))])
    assert found.slope[1:] == pytest.approx(np.ones(REPEAT_CLASSES - 1))
    assert found.offset[1:] == pytest.approx(np.zeros(REPEAT_CLASSES - 1))
    assert fit_repeats([]).slope == pytest.approx(np.ones(REPEAT_CLASSES))
