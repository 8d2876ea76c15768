"""Fitting a next-item network of any kind: the shared configuration, its start, when it stops, and the sampled loss.

What belongs elsewhere: the networks (``item_network.py`` and its bodies), the loop (``sequence_training.py``), what a
kind learns as arrays (``lstm_recommender.py``, ``prodb_recommender.py``).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from bigger_boat.errors import TrainingError
from bigger_boat.ml.catalogue import Catalogue, Products
from bigger_boat.ml.configurations import without_retired
from bigger_boat.ml.determinism import deterministic
from bigger_boat.ml.item_sequences import ItemVocabulary
from bigger_boat.ml.metrics import reciprocal_ranks
from bigger_boat.ml.prod2vec import ProductEmbeddings
from bigger_boat.ml.ranking import Ranker
from bigger_boat.ml.sequence_training import Batch, EpochLog, OnEpoch, Windows, best_epoch, train, windows

JUDGED_CUTOFF = 20

Model = TypeVar("Model", bound=Ranker)


@dataclass(frozen=True)
class NetworkConfig:
    """What every next-item network is configured by. ``longest``: the items of a session that it looks at.

    ``full_softmax_up_to``: with more products the loss samples ``samples`` of them, by count to the power of
    ``sample_power``. ``forget_items``: share of products whose own vector is dropped while training.
    """

    RETIRED: ClassVar[frozenset[str]] = frozenset()
    """Settings that bundles may still name."""

    units: int = 100
    dropout: float = 0.3
    learning_rate: float = 4e-3
    batch_size: int = 512
    epochs: int = 20
    patience: int = 2
    longest: int = 20
    full_softmax_up_to: int = 1_000
    samples: int = 500
    sample_power: float = 0.75
    forget_items: float = 0.1
    judged_predictions: int = 4_000
    seed: int = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of ``asdict``, also for bundles that older code wrote."""
        return cls(**without_retired(values, cls.RETIRED))


@dataclass
class Fitted(Generic[Model]):
    """A model with what fitting has chosen on validation (``epochs``, plain values in ``also``), and how it went."""

    model: Model
    epochs: int
    history: list[EpochLog] = field(default_factory=list)
    also: dict[str, Any] = field(default_factory=dict)


def fit_network(
    sequences: Sequence[Sequence[str]],
    embeddings: ProductEmbeddings,
    config: NetworkConfig,
    *,
    build: Callable,
    learned: Callable[[ItemVocabulary, object], Model],
    inputs: Callable[[Windows, np.random.Generator], Iterator[dict[str, np.ndarray]]],
    validation: Sequence[Sequence[str]] | None = None,
    epochs: int | None = None,
    products: Products | None = None,
    on_epoch: OnEpoch | None = None,
    checkpoint: Path | None = None,
) -> Fitted[Model]:
    """Fit on ``sequences``, stopping by MRR@20 of a sample of ``validation``; or, without it, for ``epochs`` epochs.

    ``embeddings`` come from the same sessions. ``build`` makes the network, ``learned`` reads the model out of it,
    ``inputs`` yields one epoch of its inputs, one batch per ``config.batch_size`` pieces. ``products``: the catalogue,
    whose products of no session get a vector, too. With ``checkpoint`` an interrupted fit goes on from its last epoch,
    with the same result.
    """
    if (validation is None) == (epochs is None):
        raise ValueError("a network is fitted with validation sessions or for a given number of epochs")
    deterministic()
    vocabulary, catalogue = embeddings.vocabulary, Catalogue.unknown(len(embeddings.skus))
    if products is not None:
        vocabulary = products.with_new(vocabulary)
        catalogue = products.of(vocabulary)
    pieces = windows(vocabulary.encode(sequences), config.longest + 1)
    if not len(pieces):
        raise TrainingError("Expected training sessions with two products or more and found none.", "Land more days.")
    start = np.zeros((len(vocabulary), embeddings.vectors.shape[1]), dtype=np.float32)
    start[: len(embeddings.skus)] = embeddings.unit_vectors
    network = build(start, vocabulary.counts, catalogue, config)
    judge = None if validation is None else Judge(vocabulary, validation, config)
    history = train(
        network,
        lambda epoch: _batches(inputs, pieces, vocabulary.counts, config, epoch),
        -(-len(pieces) // config.batch_size),
        config,
        epochs or config.epochs,
        None if judge is None else lambda _: judge.score(learned(vocabulary, network)),
        on_epoch,
        checkpoint,
    )
    return Fitted(learned(vocabulary, network), epochs or best_epoch(history), history)


def _batches(inputs, pieces: Windows, counts: np.ndarray, config: NetworkConfig, epoch: int) -> Iterator[Batch]:
    """Yield one epoch: inputs of the network, and which targets count; the same seed and epoch, the same batches."""
    generator = np.random.default_rng([config.seed, epoch])
    sampler = Sampler(counts, config.samples, config.sample_power)
    for batch in inputs(pieces, generator):
        if sampler.trained > config.full_softmax_up_to:
            batch |= sampler.draw(generator)
        yield batch, (batch["targets"] >= 0).astype(np.float32)


class Judge:
    """MRR@20 on a sample of the next items of validation sessions, the same sample every time."""

    def __init__(self, vocabulary: ItemVocabulary, validation: Sequence[Sequence[str]], config):
        encoded = vocabulary.encode(validation)
        histories, positions = encoded.prefixes()
        usable = np.flatnonzero((encoded.rows[positions] >= 0) & (histories.lengths > 0))
        limit = max(200, min(config.judged_predictions, 40_000_000 // len(vocabulary)))
        if len(usable) > limit:
            usable = np.sort(np.random.default_rng(config.seed).choice(usable, size=limit, replace=False))
        if not len(usable):
            raise TrainingError(
                "Expected validation sessions in which a known product follows another and found none.",
                "Land more days.",
            )
        self.batches = [usable[first : first + 1_000] for first in range(0, len(usable), 1_000)]
        self.recent = [histories.recent_first(batch) for batch in self.batches]
        self.times_ms = [histories.recent_times(batch) for batch in self.batches]
        self.targets = [encoded.rows[positions[batch]] for batch in self.batches]

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray | None, np.ndarray]]:
        """Yield histories, their times if there are any, and what came next, batch by batch."""
        return zip(self.recent, self.times_ms, self.targets, strict=True)

    def score(self, model: Ranker) -> float:
        """Return the mean reciprocal rank at 20."""
        total = 0.0
        for recent, times_ms, targets in self:
            scores = model.scores(recent) if times_ms is None else model.scores_in_time(recent, times_ms)
            ranks = 1 + (scores > np.take_along_axis(scores, targets[:, None], axis=1)).sum(axis=1)
            total += reciprocal_ranks(np.where(ranks <= JUDGED_CUTOFF, ranks, 0)).sum()
        return float(total / sum(map(len, self.targets)))


class Sampler:
    """Draws products for a sampled softmax, by a power of their counts, with replacement."""

    def __init__(self, counts: np.ndarray, samples: int, power: float):
        self.trained = int((counts > 0).sum())
        shares = counts[: self.trained].astype(np.float64) ** power
        self.cumulated = np.cumsum(shares / shares.sum())
        self.log_expected = np.log(samples * shares / shares.sum()).astype(np.float32)
        self.samples = samples

    def draw(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """Return the sampled rows (S,), and the log of how often each is expected in a sample."""
        rows = np.searchsorted(self.cumulated, generator.random(self.samples), side="right")
        rows = np.minimum(rows, self.trained - 1).astype(np.int32)
        return {"sampled": rows, "log_expected": self.log_expected[rows]}
