"""Confidence intervals by bootstrap over whole sessions: rows of one session are no independent evidence.

What belongs elsewhere: metrics (``metrics.py``, ``intent_metrics.py``), what follows from an interval (``gate.py``).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

SAMPLES = 1000
CONFIDENCE = 0.95

DRAWS_PER_CHUNK = 4_000_000
"""Bounds the memory of the draws of means that are made at once."""


class Interval(NamedTuple):
    """A value with the bounds of its interval, from ``count`` sessions."""

    value: float
    low: float
    high: float
    count: int


def mean_interval(values: np.ndarray, sessions: Sequence, *, seed: int = 0, samples: int = SAMPLES) -> Interval:
    """Return the mean of ``values`` (N,) with its interval; ``sessions`` (N,): the session of each.

    One session alone says nothing about others: its bounds are infinite. Raises ``ValueError`` if empty.
    """
    if not len(values):
        raise ValueError("a bootstrap interval needs at least one prediction")
    _, owners = np.unique(np.asarray(sessions), return_inverse=True)
    sums, sizes = np.bincount(owners, weights=values), np.bincount(owners).astype(np.float64)
    mean = float(np.mean(values))
    if len(sums) < 2:
        return Interval(mean, -np.inf, np.inf, len(sums))
    generator = np.random.default_rng(seed)
    chunk = max(1, DRAWS_PER_CHUNK // len(sums))
    means = []
    for first in range(0, samples, chunk):
        drawn = generator.integers(len(sums), size=(min(chunk, samples - first), len(sums)))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return Interval(mean, *_bounds(np.concatenate(means)), len(sums))


def paired_interval(
    candidate: np.ndarray, incumbent: np.ndarray, sessions: Sequence, *, seed: int = 0, samples: int = SAMPLES
) -> Interval:
    """Return the mean difference candidate - incumbent over the same predictions (N,), with its interval.

    Raises ``ValueError`` if the arrays are not aligned or empty.
    """
    if not len(candidate) == len(incumbent) == len(sessions):
        raise ValueError(
            f"a paired difference needs the same predictions: {len(candidate)}, {len(incumbent)}, {len(sessions)} given"
        )
    return mean_interval(np.asarray(candidate) - np.asarray(incumbent), sessions, seed=seed, samples=samples)


def statistic_interval(
    statistic: Callable[[np.ndarray], float], sessions: Sequence, *, seed: int = 0, samples: int = 500
) -> Interval:
    """Return any statistic of rows (a difference in PR-AUC, say) with its interval.

    ``statistic`` gets row indices (m,), rows of a session that is drawn twice twice. Draws where it is NaN (one class
    only) are left out; if that is more than half of them, the bounds are infinite.
    """
    _, owners = np.unique(np.asarray(sessions), return_inverse=True)
    members = np.split(np.argsort(owners, kind="stable"), np.cumsum(np.bincount(owners))[:-1])
    generator = np.random.default_rng(seed)
    draws = [
        statistic(np.concatenate([members[session] for session in generator.integers(0, len(members), len(members))]))
        for _ in range(samples)
    ]
    known = np.asarray(draws, np.float64)
    known = known[np.isfinite(known)]
    value = float(statistic(np.arange(len(owners))))
    if len(members) < 2 or len(known) < samples // 2:
        return Interval(value, -np.inf, np.inf, len(members))
    return Interval(value, *_bounds(known), len(members))


def _bounds(draws: np.ndarray) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)
