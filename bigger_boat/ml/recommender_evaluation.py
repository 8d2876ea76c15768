"""How good a recommender is: every next item of every session (session-rec's protocol), in bounded memory.

What belongs elsewhere: the definitions of metrics (``metrics.py``), the verdict on them (``gate.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bigger_boat.ml import metrics
from bigger_boat.ml.intervals import Interval, mean_interval, paired_interval
from bigger_boat.ml.item_sequences import ItemSequences
from bigger_boat.ml.ranking import Ranker

METRICS = ("hit_rate", "mrr", "ndcg", "f1", "coverage", "popularity_bias")


@dataclass(frozen=True)
class RecommenderEvaluation:
    """Metrics of one recommender, and what is needed to compare it with another on the same predictions.

    ``reciprocal_ranks`` and ``hits`` are float64 (N,), ``sessions`` the session (its place in the input) of each
    prediction, int64 (N,).
    """

    name: str
    k: int
    metrics: dict[str, float]
    reciprocal_ranks: np.ndarray
    hits: np.ndarray
    sessions: np.ndarray

    def mrr_above(self, other: "RecommenderEvaluation", seed: int = 0) -> Interval:
        """Paired bootstrap interval of the MRR difference to ``other``, evaluated on the same sessions."""
        return paired_interval(self.reciprocal_ranks, other.reciprocal_ranks, self.sessions, seed=seed)


def evaluate(
    ranker: Ranker, sessions: Sequence[Sequence[str]], k: int = 20, exclude_seen: bool = False
) -> RecommenderEvaluation:
    """Predict each item of each session but the first, from all items before it.

    Times count where ``sessions`` hold them (``TimedSequences``). A target that training has not seen counts as a miss;
    a history of unknown items gets the fallback. With ``exclude_seen``, predictions whose target was seen earlier in
    the session are left out. ``metrics`` holds ``METRICS`` and ``predictions``; without predictions the means are NaN.
    """
    encoded = ranker.vocabulary.encode(sessions)
    histories, positions = encoded.prefixes()
    chosen = ~_repeats(encoded)[positions] if exclude_seen else np.ones(len(positions), dtype=bool)
    ranks, f1 = np.zeros(len(positions), dtype=np.int64), np.zeros(len(positions))
    last_places = _last_places(encoded)
    shown = np.zeros(len(ranker.vocabulary), dtype=np.int64)
    for batch in histories.batches(ranker.batch_size()):
        batch = batch[chosen[batch]]
        if not len(batch):
            continue
        recent, times_ms = histories.recent_first(batch), histories.recent_times(batch)
        ranked, _ = ranker.rank_rows(recent, k, exclude_seen, times_ms)
        ranks[batch] = metrics.target_ranks(ranked, encoded.rows[positions[batch]])
        f1[batch] = metrics.f1_at_k(ranked, *_remaining(encoded, positions[batch], last_places), k)
        shown += np.bincount(ranked[ranked >= 0], minlength=len(shown))
    return _summary(ranker, k, ranks[chosen], f1[chosen], shown, encoded.owners[positions[chosen]])


def _summary(ranker: Ranker, k: int, ranks, f1, shown, sessions) -> RecommenderEvaluation:
    reciprocal, hit = metrics.reciprocal_ranks(ranks), metrics.hits(ranks)
    percentiles = metrics.popularity_percentiles(ranker.vocabulary.counts)

    def mean(values: np.ndarray) -> float:
        return float(values.mean()) if len(values) else float("nan")

    values = {
        "hit_rate": mean(hit),
        "mrr": mean(reciprocal),
        "ndcg": mean(metrics.ndcg(ranks)),
        "f1": mean(f1),
        "coverage": float((shown > 0).mean()),
        "popularity_bias": float(shown @ percentiles / shown.sum()) if shown.any() else float("nan"),
        "predictions": float(len(ranks)),
    }
    return RecommenderEvaluation(ranker.name, k, values, reciprocal, hit, sessions)


def _order_by_item(encoded: ItemSequences) -> tuple[np.ndarray, np.ndarray]:
    """Return flat positions sorted by (session, item, position), and where the next one is the same item again."""
    order = np.lexsort((encoded.rows, encoded.owners))
    owners, rows = encoded.owners[order], encoded.rows[order]
    return order, (owners[1:] == owners[:-1]) & (rows[1:] == rows[:-1])


def _repeats(encoded: ItemSequences) -> np.ndarray:
    """Where the item was seen earlier in the same session, bool (total,)."""
    order, again = _order_by_item(encoded)
    repeats = np.zeros(len(encoded.rows), dtype=bool)
    repeats[order[1:][again]] = True
    return repeats


def _last_places(encoded: ItemSequences) -> np.ndarray:
    """Where the item does not come again in the same session, bool (total,)."""
    order, again = _order_by_item(encoded)
    last = np.ones(len(encoded.rows), dtype=bool)
    last[order[:-1][again]] = False
    return last


def _remaining(encoded: ItemSequences, positions: np.ndarray, last_places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct items from each position to its session's end, and the prediction each belongs to."""
    counts = encoded.offsets[1:][encoded.owners[positions]] - positions
    owners = np.repeat(np.arange(len(positions)), counts)
    places = positions[owners] + np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    distinct = last_places[places]
    return encoded.rows[places[distinct]], owners[distinct]


def leaderboard(evaluations: Sequence[RecommenderEvaluation], seed: int = 0) -> list[dict]:
    """Return a row per recommender, best MRR first: metrics, and bootstrap bounds of MRR and hit rate."""
    rows = []
    for evaluation in sorted(evaluations, key=lambda one: (-one.metrics["mrr"], one.name)):
        row: dict = {"recommender": evaluation.name, "k": evaluation.k, **evaluation.metrics}
        for metric, values in (("mrr", evaluation.reciprocal_ranks), ("hit_rate", evaluation.hits)):
            interval = mean_interval(values, evaluation.sessions, seed=seed)
            row |= {f"{metric}_low": interval.low, f"{metric}_high": interval.high}
        rows.append(row)
    return rows
