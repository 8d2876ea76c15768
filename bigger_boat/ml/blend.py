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
    each choice, ``chosen`` (N,) the place in M of what was chosen, ``context`` float (N, C)."""

    parts: np.ndarray
    starts: np.ndarray
    chosen: np.ndarray
    context: np.ndarray


def fit_blend(choices: Choices, penalty: float, free: np.ndarray) -> np.ndarray:
    """Return the weights (C, F) that make what was chosen most likely, mean log loss plus ``penalty`` * sum of squares.

    The penalty is on weights of parts of standard deviation 1. ``free`` bool (C, F): the others stay 0.
    """
    from scipy.optimize import minimize

    scale = choices.parts.std(axis=0) + 1e-6
    parts = choices.parts / scale
    sizes = np.diff(np.append(choices.starts, len(parts)))
    owners = np.repeat(np.arange(len(sizes)), sizes)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = np.where(free, flat.reshape(free.shape), 0.0)
        scores = np.einsum("mf,mf->m", parts, (choices.context @ weights)[owners])
        highest = np.maximum.reduceat(scores, choices.starts)
        exponentials = np.exp(scores - highest[owners])
        totals = np.add.reduceat(exponentials, choices.starts)
        value = (highest + np.log(totals) - scores[choices.chosen]).mean() + penalty * (weights**2).sum()
        error = exponentials / totals[owners]
        error[choices.chosen] -= 1
        by_choice = np.add.reduceat(parts * error[:, None], choices.starts, axis=0)
        gradient = choices.context.T @ by_choice / len(sizes) + 2 * penalty * weights
        return value, np.where(free, gradient, 0.0).ravel()

    found = minimize(loss, np.zeros(free.size), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    return np.where(free, found.x.reshape(free.shape), 0.0) / scale
