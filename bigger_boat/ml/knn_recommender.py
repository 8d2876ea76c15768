"""The prod2vec nearest-neighbour recommender: products near to what was looked at last, seen ones by their own rule.

score(j) = cos(q, v_j) + popularity_weight * p_j + sum of revisit bonuses of the places where j was seen, with
q = sum over history of decay^age * v_item, age 0 = last item, v of length 1, and p_j in [0, 1] growing with log count.
What belongs elsewhere: training vectors (``prod2vec.py``), the graph that serves this (``recommender_export.py``).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from bigger_boat.ml.item_sequences import Histories
from bigger_boat.ml.prod2vec import ProductEmbeddings, unit
from bigger_boat.ml.ranking import SCORES_PER_BATCH, Ranker


@dataclass(frozen=True)
class KnnConfig:
    """What ``fit_knn`` chooses on validation; the defaults serve where there is none.

    A product seen at age a >= 1 gets ``revisit_bonus * revisit_decay^(a - 1)`` for each time, the last one
    ``last_bonus`` (its own cosine is highest anyway).
    """

    decay: float = 0.3
    popularity_weight: float = 0.2
    last_bonus: float = 0.0
    revisit_bonus: float = 0.2
    revisit_decay: float = 0.8

    def as_dict(self) -> dict[str, float]:
        """Plain numbers for the bundle; ``KnnConfig(**d)`` reads them."""
        return asdict(self)


GRID: dict[str, tuple[float, ...]] = {
    "last_bonus": (-2.0, -0.6, -0.4, -0.2, -0.1, 0.0),
    "revisit_bonus": (-2.0, -0.1, 0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0),
    "decay": (0.0, 0.15, 0.3, 0.5, 0.7, 0.85),
    "popularity_weight": (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0),
    "revisit_decay": (0.5, 0.8, 1.0),
}
"""Searched one coordinate after the other, twice."""

TUNING_PREDICTIONS = 4_000
TUNING_CUTOFF = 20


class KnnModel(Ranker):
    """Vectors and popularity of the training products, with a configuration."""

    name = "knn_recommender"

    def __init__(self, embeddings: ProductEmbeddings, config: KnnConfig):
        self.embeddings = embeddings
        self.config = config
        self.vocabulary = embeddings.vocabulary
        self.unit_vectors = embeddings.unit_vectors
        logs = np.log1p(embeddings.counts.astype(np.float64))
        self.log_popularity = (logs / logs.max()).astype(np.float32)

    def scores(self, recent: np.ndarray) -> np.ndarray:
        scores = self.query(recent, self.config.decay) @ self.unit_vectors.T
        scores += np.float32(self.config.popularity_weight) * self.log_popularity
        owner, age = np.nonzero(recent >= 0)
        np.add.at(scores, (owner, recent[owner, age]), self.revisit_bonuses(recent.shape[1])[age])
        return scores

    def query(self, recent: np.ndarray, decay: float) -> np.ndarray:
        """Return the unit query vectors float32 (B, D) of histories (B, T), most recent first."""
        from scipy import sparse

        weights = np.power(decay, np.arange(recent.shape[1]), dtype=np.float32)
        owner, age = np.nonzero(recent >= 0)
        shape = (len(recent), len(self.vocabulary))
        by_item = sparse.csr_matrix((weights[age], (owner, recent[owner, age])), shape=shape)
        return unit(by_item @ self.unit_vectors)

    def revisit_bonuses(self, ages: int) -> np.ndarray:
        """Return the bonus of being seen at each age, float32 (ages,)."""
        return _revisit_bonuses(self.config, ages)


def _revisit_bonuses(config: KnnConfig, ages: int) -> np.ndarray:
    earlier = config.revisit_bonus * np.power(config.revisit_decay, np.arange(ages - 1, dtype=np.float64))
    return np.concatenate([[config.last_bonus], earlier]).astype(np.float32)


def fit_knn(
    embeddings: ProductEmbeddings,
    config: KnnConfig | None = None,
    validation: Sequence[Sequence[str]] | None = None,
    seed: int = 0,
) -> KnnModel:
    """Return the model with ``config``, or with one chosen for MRR@20 of every next item of ``validation`` sessions.

    ``validation`` must come after the days the embeddings were trained on; a sample of at most
    ``TUNING_PREDICTIONS`` predictions by ``seed`` is looked at. Without validation (refit on all days) ``config`` is
    taken as it is.
    """
    model = KnnModel(embeddings, config or KnnConfig())
    if validation is None:
        return model
    encoded = model.vocabulary.encode(validation)
    histories, positions = encoded.prefixes()
    targets = encoded.rows[positions]
    usable = np.flatnonzero((targets >= 0) & (histories.lengths > 0))
    limit = max(200, min(TUNING_PREDICTIONS, 40_000_000 // len(model.vocabulary)))
    if len(usable) > limit:
        usable = np.sort(np.random.default_rng(seed).choice(usable, size=limit, replace=False))
    if not len(usable):
        return model
    return KnnModel(embeddings, _Search(model, histories, usable, targets).best())


class _Search:
    """Coordinate search over ``GRID``; cosines are computed once per decay, the rest is added where it applies."""

    def __init__(self, model: KnnModel, histories: Histories, usable: np.ndarray, targets: np.ndarray):
        self.model = model
        size = max(1, SCORES_PER_BATCH // len(model.vocabulary))
        self.batches = [usable[first : first + size] for first in range(0, len(usable), size)]
        self.recent = [histories.recent_first(batch) for batch in self.batches]
        self.targets = [targets[batch] for batch in self.batches]
        self.total = len(usable)

    def best(self) -> KnnConfig:
        """Return the best configuration found; ties keep the earlier one."""
        config, best = self.model.config, self.mean_reciprocal_rank(self.model.config)
        for _ in range(2):
            for name, values in GRID.items():
                for value in values:
                    candidate = replace(config, **{name: value})
                    score = self.mean_reciprocal_rank(candidate) if candidate != config else best
                    if score > best:
                        config, best = candidate, score
        return config

    def mean_reciprocal_rank(self, config: KnnConfig) -> float:
        model, total = KnnModel(self.model.embeddings, config), 0.0
        for recent, targets in zip(self.recent, self.targets, strict=True):
            scores = model.scores(recent)
            wanted = np.take_along_axis(scores, targets[:, None], axis=1)
            ranks = 1 + (scores > wanted).sum(axis=1)
            total += float((1.0 / ranks)[ranks <= TUNING_CUTOFF].sum())
        return total / self.total
