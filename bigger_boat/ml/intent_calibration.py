"""How far a fitted network's parts are trusted: three numbers learned on validation.

What belongs here: the calibration and its fit, in numpy. What does not: the network, the metrics.
"""

from dataclasses import dataclass

import numpy as np

TRUST_DEVIATION, SHIFT_DEVIATION = 0.25, 0.15
"""How far, a priori, a trust lies from 1 and the shift from 0: few validation sessions must not overturn training."""


@dataclass(frozen=True)
class Calibration:
    """Logit = ``linear`` x linear part + ``deep`` x mean of the LSTMs + ``shift``. Identity until fitted."""

    linear: float = 1.0
    deep: float = 1.0
    shift: float = 0.0

    def logits(self, addends: np.ndarray) -> np.ndarray:
        """Return calibrated logits (N,) of the network's addends (N, 1 + members)."""
        return self.linear * addends[:, 0] + self.deep * addends[:, 1:].mean(axis=1) + self.shift


def fit_calibration(addends: np.ndarray, labels: np.ndarray, sessions: int, steps: int = 25) -> Calibration:
    """Return the most likely calibration given ``addends`` (N, 1 + members) and boolean ``labels`` (N,).

    Maximum a posteriori by Newton's method: Platt's method with normal priors around the identity. The N rows come from
    ``sessions`` sessions and weigh as much as those, since rows of one session are no independent evidence. Trusts are
    never negative: a part may be ignored, not turned round.
    """
    features = np.column_stack([addends[:, 0], addends[:, 1:].mean(axis=1), np.ones(len(labels))])
    centre = np.array([1.0, 1.0, 0.0])
    precision = np.diag([TRUST_DEVIATION**-2, TRUST_DEVIATION**-2, SHIFT_DEVIATION**-2])
    weight = sessions / max(len(labels), 1)
    found = centre.copy()
    for _ in range(steps):
        probability = 1 / (1 + np.exp(-np.clip(features @ found, -30, 30)))
        gradient = weight * features.T @ (probability - labels) + precision @ (found - centre)
        curvature = weight * (features * (probability * (1 - probability))[:, None]).T @ features + precision
        found = found - np.linalg.solve(curvature, gradient)
    return Calibration(max(float(found[0]), 0.0), max(float(found[1]), 0.0), float(found[2]))
