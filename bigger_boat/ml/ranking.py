"""From scores to ranked lists: the interface of every recommender, with exclusion, fallback and total order.

What belongs elsewhere: the scores themselves (one model per file), metrics (``metrics.py``), the same rules inside a
TensorFlow graph (``recommender_export.py``).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bigger_boat.data.vocabulary import MISSING_TIMESTAMP_MS
from bigger_boat.ml.item_sequences import ItemVocabulary, TimedSequences, item_places

EXCLUDED = np.float32(np.finfo(np.float32).min)
"""The score of an item that may not be recommended; never leaves this module."""

SCORES_PER_BATCH = 4_000_000
"""Bounds the memory of one dense block of scores (float32: 16 MB)."""


class EventSession(NamedTuple):
    """One session of raw events as aligned lists; "" where an event has no SKU, -1 where it has no time."""

    actions: Sequence[str]
    skus: Sequence[str]
    timestamps_ms: Sequence[int] = ()


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the columns of the ``min(k, V)`` highest of ``scores`` (B, V), best first, ties by lower column.

    The order equals ``tf.math.top_k``'s, so that offline and served lists agree also where scores are equal.
    """
    count = min(k, scores.shape[1])
    if count == 0:
        return np.zeros((len(scores), 0), dtype=np.int64)
    if count == scores.shape[1]:
        return np.argsort(-scores, axis=1, kind="stable")
    chosen = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    threshold = np.take_along_axis(scores, chosen, axis=1).min(axis=1, keepdims=True)
    ambiguous = np.flatnonzero((scores >= threshold).sum(axis=1) > count)
    if len(ambiguous):
        chosen[ambiguous] = _lowest_columns(scores[ambiguous], threshold[ambiguous], count)
    chosen.sort(axis=1)
    order = np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)


def _lowest_columns(scores: np.ndarray, threshold: np.ndarray, count: int) -> np.ndarray:
    above, equal = scores > threshold, scores == threshold
    room = count - above.sum(axis=1, keepdims=True)
    keep = above | (equal & (np.cumsum(equal, axis=1) <= room))
    return np.nonzero(keep)[1].reshape(len(scores), count)


def _timed(sessions: Sequence[EventSession]) -> TimedSequences:
    """Return the items of raw events with their times, -1 for all of a session that comes without."""
    items, times_ms = [], []
    for session in sessions:
        places = item_places(session[0], session[1])
        items.append([session[1][place] for place in places])
        timed = session[2] if len(session) > 2 and len(session[2]) else [MISSING_TIMESTAMP_MS] * len(session[0])
        times_ms += [timed[place] for place in places]
    return TimedSequences(items, np.array(times_ms, dtype=np.int64))


class Ranker(ABC):
    """What every recommender offers. A subclass sets ``name`` and ``vocabulary`` and implements ``scores``."""

    name: str
    vocabulary: ItemVocabulary
    opening: np.ndarray | None = None
    """The scores float32 (V,) of a session that has shown no known product; popularity unless it is set."""

    @property
    def fallback(self) -> np.ndarray:
        """What a session without a known product gets, float32 (V,)."""
        return self.vocabulary.popularity if self.opening is None else self.opening

    @abstractmethod
    def scores(self, recent: np.ndarray) -> np.ndarray:
        """Return float32 (B, V) for histories ``recent`` (B, T), most recent first, -1 padded, none empty."""

    def scores_in_time(self, recent: np.ndarray, times_ms: np.ndarray) -> np.ndarray:  # noqa: ARG002
        """Return ``scores`` where the times of ``recent`` are given, int64 (B, T), -1 where one is not known.

        For models to which it matters when something was looked at; to all others it does not.
        """
        return self.scores(recent)

    def batch_size(self) -> int:
        """How many histories to score at once within bounded memory."""
        return max(1, min(4096, SCORES_PER_BATCH // len(self.vocabulary)))

    def rank_rows(
        self, recent: np.ndarray, k: int = 20, exclude_seen: bool = False, times_ms: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return rows int32 and scores float32, both (B, min(k, V)), best first, ties by lower row.

        ``recent`` is (B, T), most recent first, -1 padded, ``times_ms`` its times, if known. A history without items
        gets ``fallback``. Where ``exclude_seen`` leaves fewer items than asked for, the rest is row -1 with
        score 0.
        """
        scores = np.empty((len(recent), len(self.vocabulary)), dtype=np.float32)
        known = recent[:, 0] >= 0
        scores[~known] = self.fallback
        if known.any() and times_ms is None:
            scores[known] = self.scores(recent[known])
        elif known.any():
            scores[known] = self.scores_in_time(recent[known], times_ms[known])
        if exclude_seen:
            owner, age = np.nonzero(recent >= 0)
            scores[owner, recent[owner, age]] = EXCLUDED
        rows = top_k(scores, k)
        ranked = np.take_along_axis(scores, rows, axis=1)
        allowed = ranked > EXCLUDED
        return np.where(allowed, rows, -1).astype(np.int32), np.where(allowed, ranked, np.float32(0))

    def rank(
        self, histories: Sequence[Sequence[str]], k: int = 20, exclude_seen: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return SKUs (object) and scores (float32), both (N, min(k, V)), for lists of items, oldest first.

        Items outside the vocabulary are dropped; "" with score 0 fills what exclusion leaves open.
        """
        encoded = self.vocabulary.encode(histories).whole()
        width = min(k, len(self.vocabulary))
        rows = np.full((len(histories), width), -1, dtype=np.int32)
        scores = np.zeros((len(histories), width), dtype=np.float32)
        for batch in encoded.batches(self.batch_size()):
            recent, times_ms = encoded.recent_first(batch), encoded.recent_times(batch)
            rows[batch], scores[batch] = self.rank_rows(recent, k, exclude_seen, times_ms)
        return self.vocabulary.sku_array[rows], scores

    def offline_predictions(
        self, sessions: Sequence[EventSession], k: int = 20, exclude_seen: bool = False
    ) -> list[dict]:
        """Return the endpoint contract's predictions for raw event sessions, computed without any exported graph.

        Each is ``{"skus", "scores", "fallback", "unknown_skus"}``; ``unknown_skus`` names each SKU outside the
        vocabulary once, in order of appearance, whatever its action.
        """
        histories = _timed(sessions)
        skus, scores = self.rank(histories, k, exclude_seen)
        known = self.vocabulary.rows
        return [
            {
                "skus": [sku for sku in ranked if sku],
                "scores": [float(score) for sku, score in zip(ranked, values, strict=True) if sku],
                "fallback": not any(item in known for item in items),
                "unknown_skus": list(dict.fromkeys(sku for sku in session[1] if sku and sku not in known)),
            }
            for ranked, values, items, session in zip(skus, scores, histories, sessions, strict=True)
        ]
