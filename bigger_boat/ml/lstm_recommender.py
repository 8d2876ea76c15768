"""The next-item LSTM: what it is configured by, fitting it, fitting it again on all days, and its scores.

score(j) = q . v_j + b_j + r(j), with q the sum of what is near to the last items and of what an LSTM makes of them,
each with the pause before it, and r(j) what it is worth that j was seen in the session, by how long ago; how likely a
return is against all else is calibrated on validation where that helps (``repeat_calibration.py``). Item vectors start
from Prod2Vec, stand for input and output, and carry what the catalogue says, so that a product new to the shop has one,
too. What is learned are plain arrays (``LstmWeights``): scoring needs no Keras. What belongs elsewhere: the
network that is trained (``lstm_network.py``), fitting (``network_fitting.py``), the graph that serves
(``hybrid_export.py``).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigger_boat.ml.item_network import REPEAT_SCALE, learned_items
from bigger_boat.ml.item_sequences import ItemVocabulary
from bigger_boat.ml.lstm_network import NEAR_DECAY, build_network
from bigger_boat.ml.network_fitting import Fitted, Judge, NetworkConfig, fit_network
from bigger_boat.ml.prod2vec import ProductEmbeddings
from bigger_boat.ml.ranking import Ranker
from bigger_boat.ml.repeat_calibration import RepeatCalibration, fit_repeats
from bigger_boat.ml.repeats import distance_classes, first_places, seen_classes
from bigger_boat.ml.sequence_training import Windows, pooled_batches
from bigger_boat.ml.time_gaps import NO_GAP, gap_buckets


@dataclass(frozen=True)
class LstmConfig(NetworkConfig):
    """What is chosen before fitting (``NetworkConfig``). ``units``: the width of the LSTM; ``forget_times``: share of
    sessions that are shown without times while training."""

    forget_times: float = 0.2

    @classmethod
    def quick(cls) -> "LstmConfig":
        """Seconds on two cores."""
        return cls(units=48, epochs=4, batch_size=256, learning_rate=2e-3, samples=250)

    @classmethod
    def full(cls) -> "LstmConfig":
        """Everything else."""
        return cls(learning_rate=6e-4, samples=2_000, dropout=0.4)


@dataclass(frozen=True)
class LstmWeights:
    """V products of D dimensions, U units, gates in the order input, forget, cell, output. All float32."""

    item_vectors: np.ndarray  # (V, D)
    item_bias: np.ndarray  # (V,)
    repeats: np.ndarray  # (REPEAT_CLASSES,)
    near: np.ndarray  # (D,)
    gap_vectors: np.ndarray  # (GAP_BUCKETS, D)
    kernel: np.ndarray  # (D, 4 U)
    recurrent: np.ndarray  # (U, 4 U)
    bias: np.ndarray  # (4 U,)
    projection: np.ndarray  # (U, D)
    projection_bias: np.ndarray  # (D,)

    def queries(self, rows: np.ndarray, gaps: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return float32 (B, D): what is looked for after the last of ``rows`` (B, T), oldest first, -1 padded.

        ``gaps`` (B, T): the class of the pause before each; ``lengths`` (B,): how many rows there are.
        """
        vectors = self.item_vectors[np.maximum(rows, 0)]
        steps = (vectors + self.gap_vectors[gaps]) @ self.kernel + self.bias
        units = len(self.recurrent)
        state = np.zeros((2, len(rows), units), dtype=np.float32)
        for step in range(rows.shape[1]):
            gates = steps[:, step] + state[0] @ self.recurrent
            go, keep, put = (_sigmoid(gates[:, part * units : (part + 1) * units]) for part in (0, 1, 3))
            cell = keep * state[1] + go * np.tanh(gates[:, 2 * units : 3 * units])
            new = np.stack([put * np.tanh(cell), cell])
            state = np.where((step < lengths)[None, :, None], new, state)
        ages = lengths[:, None] - 1 - np.arange(rows.shape[1])
        fade = np.where(ages >= 0, NEAR_DECAY ** np.maximum(ages, 0), 0).astype(np.float32)
        near = self.near * np.einsum("bt,btd->bd", fade, vectors)
        return state[0] @ self.projection + self.projection_bias + near

    @classmethod
    def of(cls, network, count: int) -> "LstmWeights":
        """Read what a trained network has learned about ``count`` products."""
        body = network.body
        repeats = np.float32(REPEAT_SCALE) * np.array(network.repeats.value)
        own = (repeats, np.array(body.near.value), np.array(body.gap_vectors.value))
        return cls(*learned_items(network, count), *own, *body.lstm.get_weights(), *body.project.get_weights())


class LstmModel(Ranker):
    """Scores of a trained LSTM."""

    name = "lstm_recommender"

    def __init__(
        self,
        vocabulary: ItemVocabulary,
        weights: LstmWeights,
        longest: int,
        repeats: RepeatCalibration | None = None,
    ):
        self.vocabulary = vocabulary
        self.weights = weights
        self.longest = longest
        self.repeats = repeats or RepeatCalibration.none()

    def scores(self, recent: np.ndarray) -> np.ndarray:
        return self.repeats.applied(self.logits(recent), recent[:, : self.longest])

    def scores_in_time(self, recent: np.ndarray, times_ms: np.ndarray) -> np.ndarray:
        return self.repeats.applied(self.logits(recent, times_ms), recent[:, : self.longest])

    def logits(self, recent: np.ndarray, times_ms: np.ndarray | None = None) -> np.ndarray:
        """Return what the network itself says, float32 (B, V): returns are not calibrated yet."""
        scores = self.queries(recent, times_ms) @ self.weights.item_vectors.T + self.weights.item_bias
        owners, ages = np.nonzero(first_places(recent[:, : self.longest]))
        scores[owners, recent[owners, ages]] += self.weights.repeats[distance_classes(ages)]
        return scores

    def queries(self, recent: np.ndarray, times_ms: np.ndarray | None = None) -> np.ndarray:
        """Return the queries float32 (B, D) of histories (B, T), most recent first, -1 padded."""
        gaps = np.full(recent.shape, NO_GAP) if times_ms is None else gap_buckets(times_ms)
        return self.weights.queries(*in_time_order(recent[:, : self.longest], gaps[:, : self.longest]))


def in_time_order(recent: np.ndarray, gaps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows int32 (B, T), oldest first, -1 on the right, their gaps, and their numbers (B,)."""
    lengths = (recent >= 0).sum(axis=1)
    places = lengths[:, None] - 1 - np.arange(recent.shape[1])
    inside, places = places >= 0, np.maximum(places, 0)
    rows, gaps = (np.take_along_axis(each, places, axis=1) for each in (recent, gaps))
    return np.where(inside, rows, -1).astype(np.int32), np.where(inside, gaps, NO_GAP), lengths


def fit_lstm(
    sequences: Sequence[Sequence[str]],
    embeddings: ProductEmbeddings,
    config: LstmConfig,
    *,
    validation: Sequence[Sequence[str]] | None = None,
    repeats: Mapping[str, Any] | None = None,
    **options,
) -> Fitted[LstmModel]:
    """Fit on ``sequences``; for ``options`` (when it stops, catalogue, checkpoint) see ``fit_network``.

    Returns are calibrated on ``validation`` where that helps; without it by ``repeats``, a ``RepeatCalibration`` as
    plain values.
    """

    def learned(vocabulary: ItemVocabulary, network) -> LstmModel:
        return LstmModel(vocabulary, LstmWeights.of(network, len(vocabulary)), config.longest)

    def inputs(pieces: Windows, generator: np.random.Generator) -> Iterator[dict[str, np.ndarray]]:
        for rows, gaps in pooled_batches(pieces, config.batch_size, generator):
            timed = generator.random((len(rows), 1)) >= config.forget_times
            shown, gaps = rows[:, :-1], np.where(timed, gaps, NO_GAP)[:, :-1]
            yield {"rows": shown, "gaps": gaps, "seen": seen_classes(shown), "targets": rows[:, 1:]}

    own = {"build": build_network, "learned": learned, "inputs": inputs}
    fitted = fit_network(sequences, embeddings, config, validation=validation, **own, **options)
    if validation is not None:
        calibrate(fitted.model, Judge(fitted.model.vocabulary, validation, config))
        fitted.also["repeats"] = fitted.model.repeats.as_dict()
    elif repeats is not None:
        fitted.model.repeats = RepeatCalibration.from_dict(repeats)
    return fitted


def calibrate(model: LstmModel, judge: Judge) -> None:
    """Calibrate the returns of ``model`` on validation, where that raises its MRR@20: the fit is by likelihood."""
    model.repeats = RepeatCalibration.none()
    before = judge.score(model)
    model.repeats = fit_repeats((model.logits(*asked), asked[0][:, : model.longest], t) for *asked, t in judge)
    if judge.score(model) <= before:
        model.repeats = RepeatCalibration.none()


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * values))
