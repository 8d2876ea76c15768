"""The recommender that wins: session neighbours, rules, revisits, popularity and an LSTM, weighed by what is known.

score(j) = sum over parts of weight(session) * part_j, where the parts are neighbours and rules (log of their shares),
the LSTM's logit, nearness of item vectors, the places where j was seen in the session, and popularity, overall and of
late; and a weight is linear in 1 / items seen and in the log count of the last item. Weights are fitted on validation
(``blend.py``) and may be 0. What belongs elsewhere: the parts (``session_index.py``, ``lstm_recommender.py``), the
graph that serves (``hybrid_export.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bigger_boat.ml.blend import Choices, fit_blend
from bigger_boat.ml.item_sequences import ItemVocabulary
from bigger_boat.ml.lstm_recommender import LstmModel
from bigger_boat.ml.network_fitting import Judge
from bigger_boat.ml.prod2vec import unit
from bigger_boat.ml.ranking import SCORES_PER_BATCH, Ranker, top_k
from bigger_boat.ml.repeats import first_places
from bigger_boat.ml.session_index import IndexConfig, SessionIndex

SHARES = ("beside", "behind", "rules")
VECTORS = ("lstm", "near")
SEEN = ("seen_last", "seen_second", "seen_third", "seen_earlier", "seen_again")
PRIORS = ("popularity", "popularity_of_late")
PARTS = (*SHARES, *VECTORS, *SEEN, *PRIORS)
CONTEXTS = 3
"""1; 1 / items seen; log count of the last item, as a share of the highest."""

SMALLEST_SHARE = 1e-3
"""A share s counts as log(1 + s / this)."""

NEAR_DECAY = 0.5
OF_LATE = 0.1
"""Popularity of late forgets by exp(-age / this), age in shares of all training sessions."""


@dataclass(frozen=True)
class HybridConfig:
    """What is chosen before fitting, beside the LSTM's own configuration. ``without``: parts left out."""

    index: IndexConfig = field(default_factory=IndexConfig)
    judged_predictions: int = 6_000
    candidates: int = 100
    penalty: float = 3e-4
    without: tuple[str, ...] = ()
    seed: int = 0

    @classmethod
    def quick(cls) -> "HybridConfig":
        """Seconds on two cores."""
        return cls(judged_predictions=600, candidates=30)

    @classmethod
    def full(cls) -> "HybridConfig":
        """Everything else."""
        return cls()

    @classmethod
    def from_dict(cls, values: dict) -> "HybridConfig":
        """Inverse of ``asdict``, also after a trip through JSON."""
        index = IndexConfig(**values["index"])
        return cls(**{**values, "index": index, "without": tuple(values["without"])})


class HybridModel(Ranker):
    """``weights`` float64 (CONTEXTS, parts), in the order of ``PARTS``; ``priors`` float32 (V, 2)."""

    name = "hybrid_recommender"

    def __init__(self, lstm: LstmModel, index: SessionIndex, priors: np.ndarray, weights: np.ndarray):
        self.vocabulary = lstm.vocabulary
        self.lstm = lstm
        self.index = index
        self.priors = priors
        self.weights = np.asarray(weights, dtype=np.float32)
        logs = np.log1p(self.vocabulary.counts)
        self.log_counts = (logs / logs.max()).astype(np.float32)
        self.unit_vectors = unit(lstm.weights.item_vectors)

    @classmethod
    def of(
        cls,
        sequences: Sequence[Sequence[str]],
        lstm: LstmModel,
        config: HybridConfig,
        weights: np.ndarray | None = None,
    ) -> "HybridModel":
        """Index ``sequences``, oldest first, beside an LSTM of the same sessions; without ``weights`` all are 0."""
        index = SessionIndex.of(sequences, lstm.vocabulary, config.index)
        weights = np.zeros((CONTEXTS, len(PARTS))) if weights is None else weights
        return cls(lstm, index, _priors(sequences, lstm.vocabulary), weights)

    def scores(self, recent: np.ndarray) -> np.ndarray:
        return self._weighed(recent, self.parts(recent))

    def scores_in_time(self, recent: np.ndarray, times_ms: np.ndarray) -> np.ndarray:
        return self._weighed(recent, self.parts(recent, times_ms))

    def _weighed(self, recent: np.ndarray, parts: dict[str, np.ndarray]) -> np.ndarray:
        trust = self.context(recent) @ self.weights
        return sum(trust[:, [place]] * parts[name] for place, name in enumerate(PARTS)).astype(np.float32)

    def batch_size(self) -> int:
        return max(1, min(1024, SCORES_PER_BATCH // len(self.vocabulary)))

    def context(self, recent: np.ndarray) -> np.ndarray:
        """Return what the weights depend on, float32 (B, CONTEXTS)."""
        seen = (recent >= 0).sum(axis=1)
        columns = [np.ones(len(recent)), 1 / np.maximum(seen, 1), self.log_counts[recent[:, 0]]]
        return np.stack(columns, axis=1).astype(np.float32)

    def parts(self, recent: np.ndarray, times_ms: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Return every part, float32 (B, V), in the order of ``PARTS``."""
        shape = (len(recent), len(self.vocabulary))
        parts = {name: np.log1p(share / SMALLEST_SHARE) for name, share in self.index.parts(recent).items()}
        lstm = self.lstm
        parts["lstm"] = lstm.logits(recent, times_ms)
        parts["near"] = self.near_query(recent) @ self.lstm.weights.item_vectors.T
        parts |= _seen(recent, shape)
        return parts | {name: np.broadcast_to(prior, shape) for name, prior in zip(PRIORS, self.priors.T, strict=True)}

    def near_query(self, recent: np.ndarray) -> np.ndarray:
        """Return the sum of the last items' unit vectors, by ``NEAR_DECAY`` to the power of the age, (B, D)."""
        recent = recent[:, : self.lstm.longest]
        weights = np.where(recent >= 0, NEAR_DECAY ** np.arange(recent.shape[1]), 0.0).astype(np.float32)
        return np.einsum("bt,btd->bd", weights, self.unit_vectors[np.maximum(recent, 0)])


def fit_hybrid(
    sequences: Sequence[Sequence[str]], lstm: LstmModel, config: HybridConfig, validation: Sequence[Sequence[str]]
) -> HybridModel:
    """Return the hybrid of training ``sequences``, oldest first, and an LSTM of the same, weighed on ``validation``."""
    model = HybridModel.of(sequences, lstm, config)
    free = np.array([name not in config.without for name in PARTS])
    choices = _choices(model, Judge(model.vocabulary, validation, config), config)
    model.weights = fit_blend(choices, config.penalty, np.tile(free, (CONTEXTS, 1))).astype(np.float32)
    return model


def _choices(model: HybridModel, sample: Judge, config: HybridConfig) -> Choices:
    """Return the candidates of a sample of predictions: the best of each part, what was seen, and what was chosen."""
    parts, sizes, chosen, contexts, total = [], [], [], [], 0
    step = model.batch_size()
    for all_recent, all_times, all_targets in sample:
        for first in range(0, len(all_targets), step):
            some = slice(first, first + step)
            recent, targets = all_recent[some], all_targets[some]
            values = model.parts(recent, None if all_times is None else all_times[some])
            values = np.stack(list(values.values()), axis=-1)
            best = [top_k(values[..., PARTS.index(name)], config.candidates) for name in (*SHARES, *VECTORS)]
            best += [np.tile(np.argsort(-model.priors[:, 1], kind="stable")[:20], (len(recent), 1))]
            contexts.append(model.context(recent))
            for row, target in enumerate(targets):
                seen = recent[row][recent[row] >= 0]
                rows = np.unique(np.concatenate([[target], seen, *(one[row] for one in best)]))
                parts.append(values[row, rows])
                sizes.append(len(rows))
                chosen.append(total + int(np.searchsorted(rows, target)))
                total += len(rows)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return Choices(np.concatenate(parts), starts, np.array(chosen), np.concatenate(contexts))


def _seen(recent: np.ndarray, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return where products were seen in the session: by their last place, and how often again, (B, V) each."""
    first = first_places(recent)
    columns = {}
    for name, start, end in zip(SEEN[:4], (0, 1, 2, 3), (1, 2, 3, None), strict=True):
        owners, ages = np.nonzero(first[:, start:end])
        columns[name] = np.zeros(shape, dtype=np.float32)
        columns[name][owners, recent[:, start:end][owners, ages]] = 1
    owners, ages = np.nonzero((recent >= 0) & ~first)
    again = np.zeros(shape, dtype=np.float32)
    np.add.at(again, (owners, recent[owners, ages]), np.float32(1))
    columns[SEEN[4]] = np.log1p(again)
    return columns


def _priors(sequences: Sequence[Sequence[str]], vocabulary: ItemVocabulary) -> np.ndarray:
    encoded = vocabulary.encode(sequences)
    age = 1 - (encoded.owners + 1) / max(len(encoded), 1)
    late = np.bincount(encoded.rows, weights=np.exp(-age / OF_LATE), minlength=len(vocabulary))
    logs = np.log1p(np.stack([vocabulary.counts, late], axis=1))
    return (logs / logs.max(axis=0)).astype(np.float32)
