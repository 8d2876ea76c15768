"""The next-item LSTM: what it is configured by, fitting it, fitting it again on all days, and its scores.

score(j) = q . v_j + b_j, with q from an LSTM over the vectors of the last items. Item vectors start from Prod2Vec,
stand for input and output, and carry what the catalogue says, so that a product new to the shop has one, too. What is
learned are plain arrays (``LstmWeights``): scoring needs no Keras. What belongs elsewhere: the network that is trained
(``lstm_network.py``), the loop (``sequence_training.py``), the graph that serves (``lstm_export.py``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bigger_boat.errors import TrainingError
from bigger_boat.ml.catalogue import Catalogue, Products
from bigger_boat.ml.item_sequences import ItemVocabulary
from bigger_boat.ml.lstm_network import build_network
from bigger_boat.ml.metrics import reciprocal_ranks
from bigger_boat.ml.prod2vec import ProductEmbeddings
from bigger_boat.ml.ranking import Ranker
from bigger_boat.ml.sequence_training import Batch, EpochLog, OnEpoch, best_epoch, pooled_batches, train, windows

JUDGED_CUTOFF = 20


@dataclass(frozen=True)
class LstmConfig:
    """What is chosen before fitting. ``full_softmax_up_to``: with more products the loss samples ``samples`` of them,
    by count to the power of ``sample_power``. ``forget_items``: share of products whose own vector is dropped."""

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
    def quick(cls) -> "LstmConfig":
        """Seconds on two cores."""
        return cls(units=48, epochs=4, batch_size=256, learning_rate=8e-3, samples=250)

    @classmethod
    def full(cls) -> "LstmConfig":
        """Everything else."""
        return cls()


@dataclass(frozen=True)
class LstmWeights:
    """V products of D dimensions, U units, gates in the order input, forget, cell, output. All float32."""

    item_vectors: np.ndarray  # (V, D)
    item_bias: np.ndarray  # (V,)
    kernel: np.ndarray  # (D, 4 U)
    recurrent: np.ndarray  # (U, 4 U)
    bias: np.ndarray  # (4 U,)
    projection: np.ndarray  # (U, D)
    projection_bias: np.ndarray  # (D,)

    def queries(self, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return float32 (B, D): what is looked for after the last of ``rows`` (B, T), oldest first, -1 padded."""
        steps = self.item_vectors[np.maximum(rows, 0)] @ self.kernel + self.bias
        units = len(self.recurrent)
        state = np.zeros((2, len(rows), units), dtype=np.float32)
        for step in range(rows.shape[1]):
            gates = steps[:, step] + state[0] @ self.recurrent
            go, keep, put = (_sigmoid(gates[:, part * units : (part + 1) * units]) for part in (0, 1, 3))
            cell = keep * state[1] + go * np.tanh(gates[:, 2 * units : 3 * units])
            new = np.stack([put * np.tanh(cell), cell])
            state = np.where((step < lengths)[None, :, None], new, state)
        return state[0] @ self.projection + self.projection_bias

    @classmethod
    def of(cls, network, count: int) -> "LstmWeights":
        """Read what a trained network has learned about ``count`` products."""
        rows = np.arange(count, dtype=np.int32)
        lstm, project = network.lstm.get_weights(), network.project.get_weights()
        vectors = np.concatenate([np.asarray(network.item_vectors(part)) for part in np.array_split(rows, 8)])
        return cls(vectors, np.array(network.bias.value), *lstm, *project)


class LstmModel(Ranker):
    """Scores of a trained LSTM."""

    name = "lstm_recommender"

    def __init__(self, vocabulary: ItemVocabulary, weights: LstmWeights, longest: int):
        self.vocabulary = vocabulary
        self.weights = weights
        self.longest = longest

    def scores(self, recent: np.ndarray) -> np.ndarray:
        return self.queries(recent) @ self.weights.item_vectors.T + self.weights.item_bias

    def queries(self, recent: np.ndarray) -> np.ndarray:
        """Return the queries float32 (B, D) of histories (B, T), most recent first, -1 padded."""
        rows, lengths = in_time_order(recent[:, : self.longest])
        return self.weights.queries(rows, lengths)


def in_time_order(recent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows int32 (B, T), oldest first, -1 on the right, and their numbers (B,)."""
    lengths = (recent >= 0).sum(axis=1)
    places = lengths[:, None] - 1 - np.arange(recent.shape[1])
    rows = np.take_along_axis(recent, np.maximum(places, 0), axis=1)
    return np.where(places >= 0, rows, -1).astype(np.int32), lengths


@dataclass
class FittedLstm:
    """A model with what fitting has chosen on validation (``epochs``), and how it went."""

    model: LstmModel
    epochs: int
    history: list[EpochLog] = field(default_factory=list)


def fit_lstm(
    sequences: Sequence[Sequence[str]],
    embeddings: ProductEmbeddings,
    config: LstmConfig,
    *,
    validation: Sequence[Sequence[str]] | None = None,
    epochs: int | None = None,
    products: Products | None = None,
    on_epoch: OnEpoch | None = None,
    checkpoint: Path | None = None,
) -> FittedLstm:
    """Fit on ``sequences``, stopping by MRR@20 of a sample of ``validation``; or, without it, for ``epochs`` epochs.

    ``embeddings`` come from the same sessions. ``products``: the catalogue, whose products of no session get a vector,
    too. With ``checkpoint`` an interrupted fit goes on from its last epoch, with the same result.
    """
    if (validation is None) == (epochs is None):
        raise ValueError("an LSTM is fitted with validation sessions or for a given number of epochs")
    deterministic()
    vocabulary, catalogue = embeddings.vocabulary, Catalogue.unknown(len(embeddings.skus))
    if products is not None:
        vocabulary = products.with_new(vocabulary)
        catalogue = products.of(vocabulary)
    pieces = windows(vocabulary.encode(sequences), config.longest + 1)
    if not pieces:
        raise TrainingError("Expected training sessions with two products or more and found none.", "Land more days.")
    start = np.zeros((len(vocabulary), embeddings.vectors.shape[1]), dtype=np.float32)
    start[: len(embeddings.skus)] = embeddings.unit_vectors
    network = build_network(start, vocabulary.counts, catalogue, config)

    def model() -> LstmModel:
        return LstmModel(vocabulary, LstmWeights.of(network, len(vocabulary)), config.longest)

    judge = None if validation is None else Judge(vocabulary, validation, config)
    history = train(
        network,
        lambda epoch: _batches(pieces, vocabulary.counts, config, epoch),
        -(-len(pieces) // config.batch_size),
        config,
        epochs or config.epochs,
        None if judge is None else lambda _: judge.score(model()),
        on_epoch,
        checkpoint,
    )
    return FittedLstm(model(), epochs or best_epoch(history), history)


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
        self.targets = [encoded.rows[positions[batch]] for batch in self.batches]

    def score(self, model: Ranker) -> float:
        """Return the mean reciprocal rank at 20."""
        total = 0.0
        for recent, targets in zip(self.recent, self.targets, strict=True):
            scores = model.scores(recent)
            ranks = 1 + (scores > np.take_along_axis(scores, targets[:, None], axis=1)).sum(axis=1)
            total += reciprocal_ranks(np.where(ranks <= JUDGED_CUTOFF, ranks, 0)).sum()
        return float(total / sum(map(len, self.targets)))


def deterministic() -> None:
    """Make this process's TensorFlow give the same numbers for the same seeds; there is no way back."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def _batches(pieces: list[np.ndarray], counts: np.ndarray, config: LstmConfig, epoch: int) -> Iterator[Batch]:
    """Yield one epoch: inputs of the network, and which targets count; the same seed and epoch, the same batches."""
    generator = np.random.default_rng([config.seed, epoch])
    sampler = Sampler(counts, config.samples, config.sample_power)
    for matrix in pooled_batches(pieces, config.batch_size, generator):
        inputs = {"rows": matrix[:, :-1], "targets": matrix[:, 1:]}
        if sampler.trained > config.full_softmax_up_to:
            inputs |= sampler.draw(generator)
        yield inputs, (inputs["targets"] >= 0).astype(np.float32)


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


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * values))
