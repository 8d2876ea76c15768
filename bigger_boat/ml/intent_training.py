"""Fitting the intent network: examples, the linear part, and the loop over epochs.

What belongs here: from encoded sessions to a trained network, able to go on after a kill. What does not: which
configuration, what calibration, what is reported (``intent_model.py``); the network itself (``intent_network.py``).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bigger_boat.data.vocabulary import ACTION_IDS, INTENT_CUTS
from bigger_boat.ml import checkpoints
from bigger_boat.ml.intent_features import EncodedSessions, batches, encode_sessions, with_random_gaps
from bigger_boat.ml.intent_network import LARGEST_FEATURE, ProductTable, build_network, derive

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""

OnEpoch = Callable[[Mapping[str, float], int], None]
"""Called with the numbers of an epoch and its number, from 1. A training that resumes tells those before it, too."""

Batch = tuple[dict[str, np.ndarray], np.ndarray]
"""The network's inputs, (B, T) each, and targets (B, T, 2): label and weight."""

ROWS_AT_ONCE = 256
LINEAR_SESSIONS = 20_000
STEPS, SMALLEST_BATCH = 100, 64


@dataclass(frozen=True)
class EpochLog:
    """Mean log loss in nats after an epoch; ``validation`` is NaN when fitting again, without one."""

    epoch: int
    train: float
    validation: float

    @property
    def losses(self) -> dict[str, float]:
        """What is told of the epoch."""
        return {"train_log_loss": self.train, "validation_log_loss": self.validation}


@dataclass(frozen=True)
class Examples:
    """Sessions at their longest cut. ``labels`` float32 (N,); the label of a session holds at every position."""

    encoded: EncodedSessions
    labels: np.ndarray

    @classmethod
    def longest(cls, frame: pl.DataFrame, sku_ids: dict[str, int], max_events: int) -> "Examples":
        """Encode the longest row of each session of ``intent_dataset``."""
        last = frame.sort("session_date", "started_at", "session_id", "cut").unique(
            ["session_id", "session_date"], keep="last", maintain_order=True
        )
        return cls(encode_sessions(last, sku_ids, max_events), last["label"].to_numpy().astype(np.float32))

    def some(self, count: int, seed: int) -> "Examples":
        """Return ``count`` sessions drawn at random, in their order; all, where there are no more."""
        if len(self.labels) <= count:
            return self
        rows = np.sort(np.random.default_rng(seed).choice(len(self.labels), count, replace=False))
        return Examples(self.encoded.select(rows), self.labels[rows])

    def weights(self, actions: np.ndarray, between_cuts: float) -> np.ndarray:
        """Return (B, T) weights of padded ``actions``: 1 at cuts, ``between_cuts`` between them, 0 before the add."""
        added = np.cumsum(actions == ACTION_IDS["add"], axis=1) > 0
        after = np.where(added & (actions > 0), np.cumsum(added, axis=1) - 1, -1)
        at_cut = np.isin(after, INTENT_CUTS)
        return (at_cut + between_cuts * (~at_cut & (after >= 0))).astype(np.float32)


@dataclass(frozen=True)
class LinearPart:
    """A logistic regression on standardised wide features: ``mean``, ``scale``, ``weights`` float32 (F,)."""

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    shift: float

    def logits(self, wide: np.ndarray) -> np.ndarray:
        """Return logits (N,) of wide features (N, F), clipped as in the network."""
        return np.clip((wide - self.mean) / self.scale, -LARGEST_FEATURE, LARGEST_FEATURE) @ self.weights + self.shift


def augmented(encoded: EncodedSessions, config, epoch: int) -> EncodedSessions:
    """Return the sessions as one epoch sees them; the same seed and epoch lose the same things."""
    return with_random_gaps(
        encoded,
        np.random.default_rng([config.seed, epoch]),
        drop_skus=config.drop_skus,
        drop_times=config.drop_times,
        forget_products=config.forget_products,
        forget_actions=config.forget_actions,
    )


def fit_linear(examples: Examples, table: ProductTable, config, strengths: tuple[float, ...]) -> list[LinearPart]:
    """Return one linear part per strength (sklearn's C, per session), on the sessions as they are and with gaps.

    Its weights are few: of very many sessions ``LINEAR_SESSIONS`` are enough, and bound its memory.
    """
    from sklearn.linear_model import LogisticRegression

    examples = examples.some(LINEAR_SESSIONS, config.seed)
    parts = [
        _counted_positions(Examples(encoded, examples.labels), table, config.between_cuts_weight)
        for encoded in (examples.encoded, augmented(examples.encoded, config, epoch=0))
    ]
    wide, labels, weights = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    mean, scale = wide.mean(axis=0), wide.std(axis=0)
    scale = np.where(scale > 1e-3, scale, 1.0)
    standard = np.clip((wide - mean) / scale, -LARGEST_FEATURE, LARGEST_FEATURE)
    weights = weights * len(examples.labels) / weights.sum()
    found = []
    for strength in strengths:
        model = LogisticRegression(C=strength, max_iter=500).fit(standard, labels, weights)
        found.append(LinearPart(mean, scale, model.coef_[0].astype(np.float32), float(model.intercept_[0])))
    return found


def last_wide(encoded: EncodedSessions, table: ProductTable) -> np.ndarray:
    """Return the wide features at the last event of each session, float32 (N, F)."""
    return _at_last(encoded, lambda inputs: derive(inputs, table.vectors, table.popularity)[0])


def new_network(table: ProductTable, linear: LinearPart, config, *, use_cudnn: str | bool = "auto"):
    """Return an untrained network around a fitted linear part; the same configuration gives the same weights."""
    import keras

    keras.utils.set_random_seed(config.seed)
    options = {"use_cudnn": use_cudnn, "precision": config.precision}
    network = build_network(table, linear.mean, linear.scale, config, **options)
    network.linear.assign(linear.weights[:, None])
    network.shift.assign(linear.shift)
    return network


def train_network(
    network,
    examples: Examples,
    config,
    epochs: int,
    judge: Callable[[Any], float] | None = None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
    on_epoch: OnEpoch | None = None,
) -> list[EpochLog]:
    """Train ``network`` in place; return one log per epoch.

    With ``judge`` (network to validation loss) training stops ``config.patience`` epochs behind the best one and its
    weights are put back. With ``checkpoint`` (a file) an interrupted training goes on from its last epoch, with the
    same result; it is written atomically and removed at the end.
    """
    config = replace(config, batch_size=batch_size_for(len(examples.encoded), config))
    compiled(network, config)
    count = -(-len(examples.encoded) // config.batch_size)
    best, records = checkpoints.restore(network, checkpoint)
    history = [EpochLog(int(epoch), *losses) for epoch, *losses in records]
    for log in history if on_epoch else ():
        on_epoch(log.losses, log.epoch)
    for epoch in range(len(history) + 1, epochs + 1):
        if judge and history and epoch - _best_epoch(history) > config.patience:
            break
        data = keras_data(lambda: epoch_batches(examples, config, epoch), count)  # noqa: B023 (used up in this round)
        fitted = network.fit(data, shuffle=False, verbose=0)
        loss = judge(network) if judge else float("nan")
        of_label = fitted.history["_cross_entropy" if config.ahead_weight else "loss"]
        history.append(EpochLog(epoch, float(of_label[-1]), loss))
        if judge and _best_epoch(history) == epoch:
            best = checkpoints.values(network.variables)
        if checkpoint:
            checkpoints.save(network, best, [astuple(log) for log in history], checkpoint)
        if on_epoch:
            on_epoch(history[-1].losses, epoch)
        if progress:
            progress("intent epochs", epoch, epochs)
    if judge and best:
        checkpoints.assign(network.variables, best)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return history


def batch_size_for(sessions: int, config) -> int:
    """Return the sessions per step: fewer than configured where an epoch would have less than ``STEPS`` steps."""
    fewer = max(SMALLEST_BATCH, 2 ** round(math.log2(max(sessions / STEPS, 1))))
    return min(config.batch_size, fewer)


def compiled(network, config) -> None:
    """Give ``network`` its loss and optimizer. On TensorFlow without XLA: Keras refuses it where the same seed has to
    give the same model (op determinism)."""
    import keras

    optimizer = keras.optimizers.AdamW(config.learning_rate, weight_decay=config.weight_decay, clipnorm=1.0)
    if config.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    jit = False if keras.backend.backend() == "tensorflow" else "auto"
    beside = [_cross_entropy] if config.ahead_weight else []  # without a second lesson it is the loss itself
    network.compile(optimizer=optimizer, loss=_cross_entropy, metrics=beside, jit_compile=jit)
    optimizer.build(network.trainable_variables)


def addends(network, encoded: EncodedSessions) -> np.ndarray:
    """Return the network's addends at the last event of each session, float64 (N, 1 + members); 0 for empty ones."""
    found = _at_last(encoded, _compiled(network)).astype(np.float64)
    return np.where(encoded.lengths[:, None] > 0, found, 0.0) if len(encoded) else np.zeros((0, 2))


def _at_last(encoded: EncodedSessions, compute: Callable) -> np.ndarray:
    """Run ``compute`` (inputs to (B, T, F)) batch by batch; return (N, F) at each session's last event."""
    order, parts = [], []
    for rows, width in batches(encoded.lengths, ROWS_AT_ONCE):
        answers = np.asarray(compute(encoded.padded(rows, width)))
        parts.append(answers[np.arange(len(rows)), np.maximum(encoded.lengths[rows] - 1, 0)])
        order.append(rows)
    return np.concatenate(parts)[np.argsort(np.concatenate(order))] if order else np.zeros((0, 1))


def _best_epoch(history: list[EpochLog]) -> int:
    return min(history, key=lambda log: log.validation).epoch


def _counted_positions(examples: Examples, table: ProductTable, between_cuts: float) -> tuple[np.ndarray, ...]:
    """Wide features (P, F), labels (P,) and weights (P,) of all positions that count."""
    found = []
    for rows, width in batches(examples.encoded.lengths, ROWS_AT_ONCE):
        inputs = examples.encoded.padded(rows, width)
        weights = examples.weights(inputs["actions"], between_cuts)
        wide = np.asarray(derive(inputs, table.vectors, table.popularity)[0])
        labels = np.broadcast_to(examples.labels[rows, None], weights.shape)
        found.append((wide[weights > 0], labels[weights > 0], weights[weights > 0]))
    return tuple(np.concatenate(arrays) for arrays in zip(*found, strict=True))


def epoch_batches(examples: Examples, config, epoch: int) -> Iterator[Batch]:
    """Yield (inputs, targets) of one epoch; targets (B, T, 2) are label and weight."""
    encoded = augmented(examples.encoded, config, epoch)
    for rows, width in batches(encoded.lengths, config.batch_size, np.random.default_rng([config.seed, epoch, 1])):
        inputs = encoded.padded(rows, width, config.batch_size)  # all of one height: a shape per width to compile
        weights = examples.weights(inputs["actions"], config.between_cuts_weight)
        labels = np.pad(examples.labels[rows], (0, config.batch_size - len(rows)))
        yield inputs, np.stack([np.broadcast_to(labels[:, None], weights.shape), weights], axis=-1)


def _cross_entropy(targets, answers):
    """Weighted mean log loss of each member beside the linear part; targets (B, T, 2), answers (B, T, 1 + members)."""
    from keras import ops

    labels, weights = targets[..., :1], targets[..., 1:]
    logits = answers[..., :1] + answers[..., 1:]
    losses = ops.maximum(logits, 0.0) - logits * labels + ops.log1p(ops.exp(-ops.abs(logits)))
    return ops.sum(ops.mean(losses, axis=-1, keepdims=True) * weights) / ops.maximum(ops.sum(weights), 1.0)


def keras_data(generate: Callable[[], Iterator[Batch]], count: int):
    """Return ``count`` batches as ``fit`` takes them; under TensorFlow with open shapes: the step is traced once."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return _py_dataset(list(generate()))
    import tensorflow as tf

    targets = tf.TensorSpec((None, None, 2), tf.float32)
    data = tf.data.Dataset.from_generator(generate, output_signature=(input_specs(), targets))
    return data.apply(tf.data.experimental.assert_cardinality(count))


def _py_dataset(batches: list[Batch]):
    import keras

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return len(batches)

        def __getitem__(self, index: int) -> Batch:
            return batches[index]

    return Batches()


def input_specs() -> dict:
    """Shapes and types of the network's inputs for TensorFlow."""
    import tensorflow as tf

    whole, real = tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None, None), tf.float32)
    return {"actions": whole, "products": whole, "firsts": whole, "log_gaps": real, "has_gap": real}


def _compiled(network) -> Callable:
    """The forward pass, compiled once per network."""
    import keras

    if not hasattr(network, "compiled_forward"):
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            network.compiled_forward = tf.function(
                lambda inputs: network(inputs, training=False), input_signature=[input_specs()]
            )
        else:
            network.compiled_forward = network.predict_on_batch
    return network.compiled_forward
