"""What sessions begin with, of late: the answer to a session that has shown no product yet.

Of what reaches a request before the first product (views, searches, their times) only the hour could tell products
apart, and it did not: on both simulated shops and on real clicks, counts by hour were no better than without
(docs/recommenders.md). First products instead of all, and the last days more than the others, were.
What belongs elsewhere: when it is asked (``ranking.py``, ``recommender_export.py``).
"""

from collections.abc import Sequence

import numpy as np

from bigger_boat.ml import metrics
from bigger_boat.ml.item_sequences import ItemVocabulary, TimedSequences

FADE_MS = 4 * 24 * 3600 * 1000
"""A first product counts exp(-age / this)."""

OF_ALL = 0.05
"""The share of the popularity of all items in it: a product that no session began with has its place, too."""


def openings(sequences: Sequence[Sequence[str]], vocabulary: ItemVocabulary) -> np.ndarray:
    """Return the share of each product among the first of sessions, float32 (V,), by age where times are known."""
    rows = vocabulary.rows
    begun = [place for place, items in enumerate(sequences) if len(items) and items[0] in rows]
    if not begun:
        return vocabulary.popularity
    first = np.array([rows[sequences[place][0]] for place in begun])
    weights = np.ones(len(first))
    if isinstance(sequences, TimedSequences):
        times_ms = sequences.times_ms[sequences.offsets[begun]]
        known = times_ms >= 0
        ages_ms = np.where(known, times_ms.max() - times_ms, 0)
        weights = np.exp(-ages_ms / FADE_MS)
    shares = np.bincount(first, weights, minlength=len(vocabulary)) / weights.sum()
    return ((1 - OF_ALL) * shares + OF_ALL * vocabulary.popularity).astype(np.float32)


def judge_openings(
    prior: np.ndarray, vocabulary: ItemVocabulary, sessions: Sequence[Sequence[str]], k: int = 20
) -> dict:
    """Return how often and where the first product of each session stands among the ``k`` first of ``prior`` (V,)."""
    rows = vocabulary.rows
    targets = np.array([rows.get(items[0], -1) for items in sessions if len(items)], dtype=np.int64)
    best = np.argsort(-prior, kind="stable")[:k]
    ranks = metrics.target_ranks(np.tile(best, (len(targets), 1)), targets)
    found = {"hit_rate": metrics.hits(ranks), "mrr": metrics.reciprocal_ranks(ranks)}
    means = {name: float(values.mean()) if len(values) else float("nan") for name, values in found.items()}
    return {"predictions": len(targets), **means}
