"""Training a network on sequences of items: batches of like lengths, the loop over epochs, resuming after a kill.

What belongs here: from encoded sequences to a trained network. What does not: the network (``item_network.py``), what
is fitted and judged (``network_fitting.py``), what a checkpoint holds (``checkpoints.py``).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bigger_boat.ml import checkpoints
from bigger_boat.ml.item_sequences import UNKNOWN_ROW, ItemSequences
from bigger_boat.ml.time_gaps import NO_GAP, flat_gap_buckets

OnEpoch = Callable[[dict[str, float], int], None]
"""Called with the numbers of an epoch and its number."""

Batch = tuple[dict[str, np.ndarray], np.ndarray]
"""Inputs of the network, and the mask (B, T) of what counts."""

POOL_BATCHES = 50
"""Sequences are shuffled, then sorted by length within pools of so many batches: little padding, much chance."""


@dataclass(frozen=True)
class EpochLog:
    """Mean training loss in nats after an epoch, and the validation score (higher is better; NaN without one)."""

    epoch: int
    loss: float
    score: float


@dataclass(frozen=True)
class Windows:
    """Pieces of sessions in time order: piece n is ``rows[starts[n]:ends[n]]``, with ``gaps``, the class of the pause
    before each item (``time_gaps.py``); all int32 or int64 (total,) and (N,)."""

    rows: np.ndarray
    gaps: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def padded(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and gaps of the ``chosen`` pieces, int32 (B, T), oldest first, -1 and no gap on the right."""
        starts, ends = self.starts[chosen], self.ends[chosen]
        places = starts[:, None] + np.arange((ends - starts).max())
        inside = places < ends[:, None]
        places = np.where(inside, places, 0)
        return np.where(inside, self.rows[places], UNKNOWN_ROW), np.where(inside, self.gaps[places], NO_GAP)


def windows(encoded: ItemSequences, longest: int) -> Windows:
    """Return the known items, cut into pieces of at most ``longest``; single items are left out.

    A piece begins with the item that ends the one before, so that no step is lost.
    """
    known = encoded.whole()
    pieces = np.maximum(-(-(known.lengths - 1) // (longest - 1)), 0)
    owners = np.repeat(np.arange(len(known)), pieces)
    number = np.arange(len(owners)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    starts = known.starts[owners] + number * (longest - 1)
    ends = np.minimum(starts + longest, known.ends[owners])
    if known.times_ms is None:
        gaps = np.full(len(known.rows), NO_GAP, dtype=np.int32)
    else:
        gaps = flat_gap_buckets(known.times_ms, known.starts)
    return Windows(known.rows, gaps, starts, ends)


def pooled_batches(
    pieces: Windows, size: int, generator: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows and gaps (B, T) of every piece once; batches of like lengths, in random order."""
    order = generator.permutation(len(pieces))
    lengths = pieces.ends - pieces.starts
    for first in range(0, len(order), size * POOL_BATCHES):
        pool = order[first : first + size * POOL_BATCHES]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches = [pool[start : start + size] for start in range(0, len(pool), size)]
        for place in generator.permutation(len(batches)):
            yield pieces.padded(batches[place])


def train(
    network,
    epoch_batches: Callable[[int], Iterable[Batch]],
    steps: int,
    config,
    epochs: int,
    judge: Callable[[Any], float] | None = None,
    on_epoch: OnEpoch | None = None,
    checkpoint: Path | None = None,
) -> list[EpochLog]:
    """Train ``network`` in place; return one log per epoch. ``epoch_batches``: the epoch's number to its ``steps``
    batches.

    With ``judge`` (network to a validation score) training stops ``config.patience`` epochs behind the best one, whose
    weights are put back. With ``checkpoint`` (a file) an interrupted training goes on from its last epoch, with the
    same result; it is written atomically and removed at the end.
    """
    import keras

    from bigger_boat.ml.item_losses import mean_loss

    optimizer = keras.optimizers.Adam(config.learning_rate, clipnorm=5.0)
    network.compile(optimizer=optimizer, loss=mean_loss)
    optimizer.build(network.trainable_variables)
    best, records = checkpoints.restore(network, checkpoint)
    history = [EpochLog(int(epoch), *losses) for epoch, *losses in records]
    for epoch in range(len(history) + 1, epochs + 1):
        if judge and history and epoch - best_epoch(history) > config.patience:
            break
        fitted = network.fit(_keras_data(epoch_batches, epoch, steps), shuffle=False, verbose=0)
        score = judge(network) if judge else float("nan")
        history.append(EpochLog(epoch, float(fitted.history["loss"][-1]), score))
        if judge and best_epoch(history) == epoch:
            best = checkpoints.values(network.variables)
        if checkpoint:
            checkpoints.save(network, best, [astuple(log) for log in history], checkpoint)
        if on_epoch:
            on_epoch({"loss": history[-1].loss, "validation_mrr": score}, epoch)
    if judge and best:
        checkpoints.assign(network.variables, best)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return history


def best_epoch(history: list[EpochLog]) -> int:
    """Return the epoch of the highest validation score, the first of equals."""
    return max(history, key=lambda log: (log.score, -log.epoch)).epoch


def _keras_data(epoch_batches: Callable[[int], Iterable[Batch]], epoch: int, steps: int):
    """One epoch for ``fit``; under TensorFlow with open shapes, so that the step is traced once."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return epoch_batches(epoch)
    import tensorflow as tf

    first_inputs, first_mask = next(iter(epoch_batches(epoch)))
    signature = (
        {name: _open(array) for name, array in first_inputs.items()},
        tf.TensorSpec((None,) * first_mask.ndim, tf.float32),
    )
    data = tf.data.Dataset.from_generator(lambda: epoch_batches(epoch), output_signature=signature)
    return data.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2)


def _open(array: np.ndarray):
    import tensorflow as tf

    return tf.TensorSpec((None,) * array.ndim, tf.as_dtype(array.dtype))
