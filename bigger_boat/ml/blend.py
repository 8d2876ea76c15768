"""How much to trust each part of a recommender, and when: a conditional logit over candidates, fitted on validation.

score(j) = sum over parts f of (sum over contexts c of weight[c, f] * context_c) * part_f(j). A part that does not help
gets a weight near 0. The loss is convex: one answer, whatever the start. What belongs elsewhere: the parts
(``hybrid_recommender.py``).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Choices:
    """N choices among M candidates in all, those of one choice together: ``parts`` float32 (M, F), ``starts`` (N,) of
    each choice, ``chosen`` (N,) the place in M of what was chosen, ``context`` float (N, C). ``base`` (M,): what is
    added to the scores whatever the weights."""

    parts: np.ndarray
    starts: np.ndarray
    chosen: np.ndarray
    context: np.ndarray
    base: np.ndarray | float = 0.0


def fit_blend(choices: Choices, penalty: float, free: np.ndarray) -> np.ndarray:
    """Return the weights (C, F) that make what was chosen most likely, mean log loss plus ``penalty`` * sum of squares.

    The penalty is on weights of parts of standard deviation 1. ``free`` bool (C, F): the others stay 0.
    """
    from scipy.optimize import minimize

    scale = choices.parts.std(axis=0) + 1e-6
    logit = _Logit(choices, (choices.parts / scale).astype(np.float64), penalty, free)
    found = minimize(logit.loss, np.zeros(free.sum()), jac=True, hess=logit.curvature, method="trust-exact")
    return logit.weights(found.x) / scale


class _Logit:
    """The loss with its first two derivatives by the free weights: parts are alike, and only their curvature tells
    them apart in a few steps (300 steps of L-BFGS did not)."""

    def __init__(self, choices: Choices, parts: np.ndarray, penalty: float, free: np.ndarray):
        self.parts, self.starts, self.chosen = parts, choices.starts, choices.chosen
        self.penalty, self.free = penalty, free
        self.base = choices.base
        self.context = choices.context.astype(np.float64)
        self.owners = np.repeat(np.arange(len(self.starts)), np.diff(np.append(self.starts, len(parts))))

    def weights(self, flat: np.ndarray) -> np.ndarray:
        """Return all weights (C, F) from the free ones."""
        weights = np.zeros(self.free.shape)
        weights[self.free] = flat
        return weights

    def loss(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the loss and its gradient."""
        shares, logs = self._shares(flat)
        error = shares.copy()
        error[self.chosen] -= 1
        gradient = (self.context[self.owners] * error[:, None]).T @ self.parts / len(self.starts)
        value = self.penalty * (flat**2).sum() - logs[self.chosen].mean()
        return value, gradient[self.free] + 2 * self.penalty * flat

    def curvature(self, flat: np.ndarray) -> np.ndarray:
        """Return the matrix of second derivatives: within each choice the covariance of its candidates."""
        shares, _ = self._shares(flat)
        means = np.add.reduceat(self.parts * shares[:, None], self.starts, axis=0)
        count, (contexts, parts) = len(self.starts), self.free.shape
        matrix = np.empty((contexts, parts, contexts, parts))
        for one in range(contexts):
            for other in range(one, contexts):
                both = self.context[:, one] * self.context[:, other]
                squares = self.parts.T @ (self.parts * (shares * both[self.owners])[:, None])
                block = (squares - means.T @ (means * both[:, None])) / count
                matrix[one, :, other], matrix[other, :, one] = block, block
        chosen = self.free.ravel()
        matrix = matrix.reshape(chosen.size, chosen.size)[np.ix_(chosen, chosen)]
        return matrix + 2 * self.penalty * np.eye(len(matrix))

    def _shares(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the probability of each candidate (M,), and its logarithm."""
        scores = ((self.parts @ self.weights(flat).T) * self.context[self.owners]).sum(axis=1) + self.base
        scores -= np.maximum.reduceat(scores, self.starts)[self.owners]
        logs = scores - np.log(np.add.reduceat(np.exp(scores), self.starts))[self.owners]
        return np.exp(logs), logs
