"""How good a purchase probability is: ranking, calibration, and the challenge's own score, per cut and pooled.

What belongs here: numbers from labels and probabilities, in numpy alone, and the interval of a difference.
What does not: models, data sets, plots.

All functions take one-dimensional arrays of equal length and optional weights (a weight of 2 counts a row twice; the
bootstrap rests on it). A metric that is undefined, such as the AUC of a single class, is NaN and never an error.
"""

from dataclasses import asdict, dataclass

import numpy as np

from bigger_boat.data.vocabulary import INTENT_CUTS

CUT_WEIGHTS = {0: 1.0, 2: 0.9, 4: 0.8, 6: 0.7, 8: 0.6, 10: 0.5}
"""The challenge's weight of each cut: an early right answer is worth more. They sum to 4.5."""

CALIBRATION_BINS = 10
_SMALLEST_PROBABILITY = 1e-7


@dataclass(frozen=True)
class IntentScores:
    """One row of the report. ``cut`` is None for all cuts pooled; ``pr_auc`` of a guess equals ``base_rate``."""

    cut: int | None
    examples: int
    base_rate: float
    auc: float
    pr_auc: float
    log_loss: float
    calibration_error: float
    accuracy: float
    majority_accuracy: float


@dataclass(frozen=True)
class IntentReport:
    """All scores of one model on one split. ``majority_micro_f1`` predicts the pooled majority class for all."""

    pooled: IntentScores
    cuts: tuple[IntentScores, ...]
    weighted_micro_f1: float
    majority_micro_f1: float

    def as_dict(self) -> dict:
        """Plain numbers for JSON and metadata."""
        return asdict(self)


def auc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Probability that a buyer scores above a non-buyer; a tie counts one half. NaN with one class only."""
    positive, negative = _mass_by_falling_score(labels, scores, weights)
    if positive.sum() == 0 or negative.sum() == 0:
        return float("nan")
    negatives_below = negative.sum() - np.cumsum(negative)
    return float((positive * (negatives_below + negative / 2)).sum() / (positive.sum() * negative.sum()))


def pr_auc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Average precision: precision at each distinct score, weighted by the recall gained there. NaN without buyers."""
    positive, negative = _mass_by_falling_score(labels, scores, weights)
    if positive.sum() == 0:
        return float("nan")
    found, seen = np.cumsum(positive), np.cumsum(positive + negative)
    precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
    return float((precision * positive).sum() / positive.sum())


def log_loss(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean negative log likelihood in nats; probabilities are kept 1e-7 away from 0 and 1. NaN without rows."""
    weights = _weights(labels, weights)
    if weights.sum() == 0:
        return float("nan")
    return float((weights * log_losses(labels, probabilities)).sum() / weights.sum())


def log_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the negative log likelihood of each row in nats, float64 (N,), as ``log_loss`` averages it."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    likely = np.where(np.asarray(labels, dtype=bool), probabilities, 1 - probabilities)
    return -np.log(np.clip(likely, _SMALLEST_PROBABILITY, 1.0))


def calibration_curve(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None, bins: int = CALIBRATION_BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean prediction, share of buyers and weight of each non-empty bin of equal width on [0, 1]."""
    labels, weights = np.asarray(labels, dtype=float), _weights(labels, weights)
    probabilities = np.asarray(probabilities, dtype=float)
    position = np.clip((probabilities * bins).astype(int), 0, bins - 1)
    mass = np.bincount(position, weights, bins)
    used = mass > 0
    predicted = np.bincount(position, weights * probabilities, bins)[used] / mass[used]
    bought = np.bincount(position, weights * labels, bins)[used] / mass[used]
    return predicted, bought, mass[used]


def calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None, bins: int = CALIBRATION_BINS
) -> float:
    """Expected calibration error: mean over rows of |mean prediction - share of buyers| of the row's bin."""
    predicted, bought, mass = calibration_curve(labels, probabilities, weights, bins)
    return float((np.abs(predicted - bought) * mass).sum() / mass.sum()) if mass.sum() else float("nan")


def weighted_micro_f1(labels: np.ndarray, predicted: np.ndarray, cuts: np.ndarray) -> float:
    """Return the challenge's cart score: the sum over cuts of weight times micro-F1 (at most 4.5).

    ``predicted`` are classes, not probabilities. With one answer per row micro-F1 is the share of right answers.
    A cut without rows adds nothing, as in the organisers' script (SIGIR eCom 2021, ``evaluation.py``).
    """
    labels, predicted, cuts = (np.asarray(values) for values in (labels, predicted, cuts))
    right = labels.astype(bool) == predicted.astype(bool)
    return float(sum(weight * right[cuts == cut].mean() for cut, weight in CUT_WEIGHTS.items() if (cuts == cut).any()))


def intent_scores(labels: np.ndarray, probabilities: np.ndarray, cut: int | None = None) -> IntentScores:
    """Return every number of one group of rows; undefined ones are NaN."""
    labels, probabilities = np.asarray(labels, dtype=bool), np.asarray(probabilities, dtype=float)
    base_rate = float(labels.mean()) if len(labels) else float("nan")
    return IntentScores(
        cut=cut,
        examples=len(labels),
        base_rate=base_rate,
        auc=auc(labels, probabilities),
        pr_auc=pr_auc(labels, probabilities),
        log_loss=log_loss(labels, probabilities),
        calibration_error=calibration_error(labels, probabilities),
        accuracy=float((labels == (probabilities >= 0.5)).mean()) if len(labels) else float("nan"),
        majority_accuracy=max(base_rate, 1 - base_rate),
    )


def intent_report(labels: np.ndarray, probabilities: np.ndarray, cuts: np.ndarray) -> IntentReport:
    """Return the scores pooled and per cut; a cut without rows has ``examples`` 0 and NaN elsewhere."""
    labels, probabilities, cuts = (np.asarray(values) for values in (labels, probabilities, cuts))
    majority = np.full(len(labels), labels.mean() >= 0.5 if len(labels) else False)
    return IntentReport(
        pooled=intent_scores(labels, probabilities),
        cuts=tuple(intent_scores(labels[cuts == cut], probabilities[cuts == cut], cut) for cut in INTENT_CUTS),
        weighted_micro_f1=weighted_micro_f1(labels, probabilities >= 0.5, cuts),
        majority_micro_f1=weighted_micro_f1(labels, majority, cuts),
    )


def _weights(labels: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    return np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=float)


def _mass_by_falling_score(labels, scores, weights) -> tuple[np.ndarray, np.ndarray]:
    """Weight of buyers and of others at each distinct score, highest score first."""
    labels, weights = np.asarray(labels, dtype=bool), _weights(labels, weights)
    distinct, position = np.unique(-np.asarray(scores, dtype=float), return_inverse=True)
    positive = np.bincount(position, weights * labels, len(distinct))
    return positive, np.bincount(position, weights * ~labels, len(distinct))
