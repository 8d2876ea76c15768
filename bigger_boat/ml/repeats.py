"""Coming back to what was seen in the session: where each item stood last, and how far back, as classes.

A third of real clicks are of products seen before, and item vectors alone cannot say so. As in RepeatNet (Ren et al.
2019) a network learns what a return is worth; here a logit per distance, which costs nothing to serve.
What belongs elsewhere: learning it (``item_network.py``), the scores (``lstm_recommender.py``).
"""

import numpy as np

REPEAT_CLASSES = 8
"""Distances 0 (the item just seen), 1, ...; the last class holds all that are further back."""

NOT_SEEN = -1


def distance_classes(distances: np.ndarray) -> np.ndarray:
    """Return the class of each distance, at least 0."""
    return np.minimum(distances, REPEAT_CLASSES - 1)


def seen_classes(rows: np.ndarray) -> np.ndarray:
    """Return int32 (B, T, T): asked after item t, how far back item s stood, as a class; ``rows`` (B, T) oldest first.

    ``NOT_SEEN`` where s comes after t, is no item, or where the same product came again by then: each counts once.
    """
    width = rows.shape[1]
    earlier = np.tril(np.ones((width, width), dtype=bool))  # [t, s]: s is not after t
    again = (rows[:, :, None] == rows[:, None, :]) & ~earlier[None]  # [s, later place of the same product]
    next_place = np.where(again.any(axis=2), again.argmax(axis=2), width)
    places = np.arange(width)
    counts = earlier[None] & (next_place[:, None, :] > places[None, :, None]) & (rows >= 0)[:, None, :]
    classes = distance_classes(np.maximum(places[:, None] - places[None, :], 0))
    return np.where(counts, classes[None], NOT_SEEN).astype(np.int32)


def first_places(recent: np.ndarray) -> np.ndarray:
    """Return where an item of ``recent`` (B, T) stands for the first time, bool (B, T): repeats count once.

    Where the last item comes first that is where each product was seen last.
    """
    earlier = np.tril(np.ones((recent.shape[1],) * 2, dtype=bool), -1)
    repeated = ((recent[:, :, None] == recent[:, None, :]) & earlier).any(axis=2)
    return (recent >= 0) & ~repeated
