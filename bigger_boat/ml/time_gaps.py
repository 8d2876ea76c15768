"""Pauses between the items of a session as a few classes: how long was looked at what came before?

What belongs elsewhere: what a network makes of them (``lstm_network.py``), the same inside a TensorFlow graph
(``hybrid_export.py``).
"""

import numpy as np

GAP_EDGES_S = (2, 5, 10, 20, 40, 80, 160, 320, 640, 1280)
"""A pause of s seconds is in class 1 + (how many of these are at most s)."""

NO_GAP = 0
"""The class of the first item, and of a pause of which one end is not known."""

GAP_BUCKETS = len(GAP_EDGES_S) + 2


def gap_buckets(times_ms: np.ndarray) -> np.ndarray:
    """Return int32 (B, T), the class of the pause before each item; ``times_ms`` int64 (B, T), last item first, -1
    where a time is not known."""
    buckets = np.full(times_ms.shape, NO_GAP, dtype=np.int32)
    buckets[:, :-1] = _between(times_ms[:, 1:], times_ms[:, :-1])
    return buckets


def flat_gap_buckets(times_ms: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return int32 (N,), the same for sessions one behind the other, oldest item first, which begin at ``starts``."""
    buckets = np.full(len(times_ms), NO_GAP, dtype=np.int32)
    buckets[1:] = _between(times_ms[:-1], times_ms[1:])
    buckets[starts[starts < len(times_ms)]] = NO_GAP
    return buckets


def _between(earlier_ms: np.ndarray, later_ms: np.ndarray) -> np.ndarray:
    """Times that run backwards count as a pause of 0."""
    seconds = np.maximum(later_ms - earlier_ms, 0) // 1000
    known = (earlier_ms >= 0) & (later_ms >= 0)
    return np.where(known, 1 + np.searchsorted(GAP_EDGES_S, seconds, side="right"), NO_GAP)
