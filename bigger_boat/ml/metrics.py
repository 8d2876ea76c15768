"""Ranking metrics over arrays, and bootstrap intervals. Definitions stand in each docstring.

Lists are (N, k), best first: integer ids, where a negative id is an empty place, or SKUs, where "" is one. What belongs
elsewhere: which predictions are made (``recommender_evaluation.py``), metrics of probabilities (``intent_metrics.py``).
"""

import numpy as np

"""Bounds the memory of the bootstrap (int64: 32 MB)."""


def _present(values: np.ndarray) -> np.ndarray:
    return values >= 0 if np.issubdtype(values.dtype, np.integer) else values != ""


def target_ranks(ranked: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the 1-based place of each target (N,) in its list (N, k), 0 where it is not in it.

    If a list names a product twice, the first place counts. An absent target (negative id or "") is in no list.
    """
    if ranked.shape[1] == 0:
        return np.zeros(len(ranked), dtype=np.int64)
    matches = (ranked == targets[:, None]) & _present(targets)[:, None]
    return np.where(matches.any(axis=1), matches.argmax(axis=1) + 1, 0)


def hits(ranks: np.ndarray) -> np.ndarray:
    """HR@k per prediction: 1 where the target is in the list."""
    return (ranks > 0).astype(np.float64)


def reciprocal_ranks(ranks: np.ndarray) -> np.ndarray:
    """MRR@k per prediction: 1 / rank, 0 where the target is not in the list."""
    return np.where(ranks > 0, 1.0 / np.maximum(ranks, 1), 0.0)


def ndcg(ranks: np.ndarray) -> np.ndarray:
    """NDCG@k per prediction with one relevant item: 1 / log2(rank + 1), whose ideal value is 1."""
    return np.where(ranks > 0, 1.0 / np.log2(np.maximum(ranks, 1) + 1.0), 0.0)


def f1_at_k(ranked: np.ndarray, truth_items: np.ndarray, truth_owners: np.ndarray, k: int) -> np.ndarray:
    """F1@k per prediction (N,), the challenge's "subsequent items".

    ``truth_items`` and ``truth_owners`` (M,) name the items still to come and the prediction each belongs to. As in
    the challenge's evaluation script both sides are sets (a repeated item counts once), precision is hits / k however
    short the list, recall is hits / distinct truths, and an empty truth scores 0.
    """
    items, codes = np.unique(truth_items, return_inverse=True)
    pairs = np.unique(truth_owners.astype(np.int64) * max(len(items), 1) + codes)
    owners, truths = pairs // max(len(items), 1), items[pairs % max(len(items), 1)] if len(pairs) else truth_items
    found = ((ranked[owners, :k] == truths[:, None]) & _present(truths)[:, None]).any(axis=1)
    hit_count = np.bincount(owners, weights=found, minlength=len(ranked))
    truth_count = np.bincount(owners, minlength=len(ranked))
    precision, recall = hit_count / k, hit_count / np.maximum(truth_count, 1)
    return 2 * precision * recall / np.where(hit_count > 0, precision + recall, 1.0)


def coverage(ranked: np.ndarray, catalogue_size: int) -> float:
    """Share of the catalogue that appears in at least one list."""
    return len(np.unique(ranked[_present(ranked)])) / catalogue_size


def popularity_percentiles(counts: np.ndarray) -> np.ndarray:
    """Percentile of each product by training count (V,), in (0, 1]: the share of products at most as popular.

    Products of equal counts share the mean of their places.
    """
    _, groups, sizes = np.unique(counts, return_inverse=True, return_counts=True)
    mean_places = np.cumsum(sizes) - (sizes - 1) / 2
    return mean_places[groups] / len(counts)


def popularity_bias(ranked: np.ndarray, percentiles: np.ndarray) -> float:
    """Mean popularity percentile of what is recommended (row ids); .5 is no bias, 1 only the most popular."""
    shown = ranked[_present(ranked)]
    return float(percentiles[shown].mean()) if len(shown) else float("nan")
