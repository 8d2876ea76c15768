"""How far a fitted network's parts are trusted, and what their sum is worth: learned on validation.

What belongs here: the calibration and its fit, in numpy. What does not: the network, the metrics.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

TRUST_DEVIATION, SHIFT_DEVIATION = 0.25, 0.15
"""How far, a priori, a trust lies from 1 and the shift from 0: few validation sessions must not overturn training."""

KNOTS = (-4.0, -3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
"""Logits between which the curve is straight; outside it runs on with slope 1."""
BEND_DEVIATION = 0.3
"""How much more or less, a priori, the curve rises from knot to knot than the straight line."""
LEAST_SLOPE = 0.05
"""The curve always rises: it changes what a score is worth, never which of two sessions comes first."""


@dataclass(frozen=True)
class Calibration:
    """Logit = curve(``linear`` x linear part + ``deep`` x mean of the LSTMs + ``shift``). Identity until fitted.

    ``curve``: its values at ``KNOTS``.
    """

    linear: float = 1.0
    deep: float = 1.0
    shift: float = 0.0
    curve: tuple[float, ...] = KNOTS

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Calibration":
        """Inverse of ``asdict``, also after a trip through JSON, and of versions that had no curve."""
        return cls(values["linear"], values["deep"], values["shift"], tuple(values.get("curve", KNOTS)))

    def logits(self, addends: np.ndarray) -> np.ndarray:
        """Return calibrated logits (N,) of the network's addends (N, 1 + members)."""
        straight = self.linear * addends[:, 0] + self.deep * addends[:, 1:].mean(axis=1) + self.shift
        return self.curve[0] + sum(slope * np.clip(straight - at, low, high) for slope, at, low, high in self.pieces())

    def pieces(self) -> list[tuple[float, float, float, float]]:
        """Return the curve as addends ``slope * clip(x - at, low, high)`` above its value at the first knot."""
        inner = [
            (float(rise / length), knot, 0.0, float(length))
            for rise, length, knot in zip(np.diff(self.curve), np.diff(KNOTS), KNOTS[:-1], strict=True)
        ]
        return [(1.0, KNOTS[0], -np.inf, 0.0), *inner, (1.0, KNOTS[-1], 0.0, np.inf)]


def fit_calibration(addends: np.ndarray, labels: np.ndarray, sessions: int) -> Calibration:
    """Return the most likely calibration given ``addends`` (N, 1 + members) and boolean ``labels`` (N,).

    Maximum a posteriori by Newton's method, first the parts (Platt's method with normal priors around the identity),
    then the curve of their sum. The N rows come from ``sessions`` sessions and weigh as much as those, since rows of
    one session are no independent evidence. Trusts are never negative: a part may be ignored, not turned round.
    """
    weight = sessions / max(len(labels), 1)
    features = np.column_stack([addends[:, 0], addends[:, 1:].mean(axis=1), np.ones(len(labels))])
    precision = np.diag([TRUST_DEVIATION**-2, TRUST_DEVIATION**-2, SHIFT_DEVIATION**-2])
    linear, deep, shift = _most_likely(features, labels, np.array([1.0, 1.0, 0.0]), precision, weight)
    parts = Calibration(max(float(linear), 0.0), max(float(deep), 0.0), float(shift))
    return Calibration(parts.linear, parts.deep, parts.shift, _fit_curve(parts.logits(addends), labels, weight))


def _fit_curve(straight: np.ndarray, labels: np.ndarray, weight: float) -> tuple[float, ...]:
    """Return the values at the knots; a priori the straight line, its mean height and each rise apart."""
    knots = np.array(KNOTS)
    inside = np.clip(straight, knots[0], knots[-1])
    hats = np.column_stack([np.interp(inside, knots, hat) for hat in np.eye(len(knots))])
    rises, mean = np.diff(np.eye(len(knots)), axis=0), np.full(len(knots), 1 / len(knots))
    precision = rises.T @ rises / BEND_DEVIATION**2 + np.outer(mean, mean) / SHIFT_DEVIATION**2
    found = _most_likely(hats, labels, knots, precision, weight)
    rising = np.maximum(np.diff(found), LEAST_SLOPE * np.diff(knots))
    return tuple(float(value) for value in np.concatenate([found[:1], found[0] + np.cumsum(rising)]))


def _most_likely(
    features: np.ndarray, labels: np.ndarray, centre: np.ndarray, precision: np.ndarray, weight: float, steps: int = 25
) -> np.ndarray:
    """Return the weights (F,) of a logistic regression with a normal prior; each row counts ``weight`` times."""
    found = centre.copy()
    for _ in range(steps):
        probability = 1 / (1 + np.exp(-np.clip(features @ found, -30, 30)))
        gradient = weight * features.T @ (probability - labels) + precision @ (found - centre)
        curvature = weight * (features * (probability * (1 - probability))[:, None]).T @ features + precision
        found = found - np.linalg.solve(curvature, gradient)
    return found
