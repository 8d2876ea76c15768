"""The pictures are drawn: PNG bytes of a size, also from awkward numbers."""

import struct

import numpy as np
import pytest

from bigger_boat.ml.intent_metrics import intent_report
from bigger_boat.ml.intent_plots import calibration_plot, learning_curve, pr_auc_by_cut
from bigger_boat.ml.intent_training import EpochLog

LABELS = np.array([1, 0, 0, 1, 0, 1])
GUESSES = {"lstm": np.array([0.9, 0.2, 0.1, 0.7, 0.4, 0.6]), "base rate": np.full(6, 0.5)}
REPORTS = {name: intent_report(LABELS, guess, np.array([0, 0, 0, 2, 2, 2])) for name, guess in GUESSES.items()}


def pictures():
    yield learning_curve([EpochLog(1, 0.7, 0.6), EpochLog(2, 0.5, 0.65)])
    yield learning_curve([EpochLog(1, 0.7, float("nan"))])
    yield calibration_plot(LABELS, GUESSES)
    yield pr_auc_by_cut(REPORTS)
    yield pr_auc_by_cut({name: report.as_dict() for name, report in REPORTS.items()})


@pytest.mark.filterwarnings("error")
def test_each_is_a_png_of_a_readable_size():
    for picture in pictures():
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", picture[16:24])
        assert width > 600
        assert height > 400
