"""The intent model as a TensorFlow SavedModel that needs none of our code: strings in, probabilities out.

What belongs here: the encoding of ``intent_features.py`` as TensorFlow operations, the network without GPU kernels, and
the calibration, in one graph. What does not: fitting, the files around the SavedModel (``bundle.py``).
"""

from pathlib import Path

import numpy as np
import polars as pl

from bigger_boat.data.vocabulary import MISSING_TIMESTAMP_MS, PAD_ID, UNKNOWN_ID
from bigger_boat.ml.intent_features import (
    INTENT_ACTION_IDS,
    KNOWN_ACTIONS,
    LONGEST_GAP_S,
    NO_PRODUCT_POSITION,
    batches,
)
from bigger_boat.ml.intent_model import IntentModel
from bigger_boat.ml.intent_network import build_network
from bigger_boat.ml.intent_training import ROWS_AT_ONCE


def export_intent(model: IntentModel, directory: Path) -> None:
    """Write ``model`` as a SavedModel into ``directory``; signature ``serving_default``:

    ``actions``, ``skus`` string (B, T) and ``timestamps_ms`` int64 (B, T), padded with "" and -1, to
    ``purchase_probability`` float32 (B,) and ``unknown`` bool (B, T). T may be 0; empty sessions get the base rate.
    """
    import tensorflow as tf

    network = _network_for_any_machine(model)
    calibration, prior = model.choice.calibration, model.prior_logit
    module = tf.Module(name="intent")
    module.network_variables = [variable.value for variable in network.variables]
    module.actions = _lookup(list(INTENT_ACTION_IDS), list(INTENT_ACTION_IDS.values()))
    module.known_actions = _lookup(list(KNOWN_ACTIONS), [PAD_ID] * len(KNOWN_ACTIONS))
    module.skus = _lookup(["", *model.sku_ids], [PAD_ID, *model.sku_ids.values()])

    @tf.function(input_signature=_signature())
    def serve(actions, skus, timestamps_ms):
        ids = tf.cast(module.actions.lookup(actions), tf.int32)
        kept, lengths = _last_events(ids, skus, timestamps_ms, model.choice.config.max_events)
        addends = network(_encoded(*kept, module.skus), training=False)
        last = tf.gather(addends, tf.maximum(lengths - 1, 0), batch_dims=1)
        straight = calibration.linear * last[:, 0] + calibration.deep * tf.reduce_mean(last[:, 1:], axis=1)
        straight += calibration.shift
        logits = calibration.curve[0] + tf.add_n(
            [slope * tf.clip_by_value(straight - at, low, high) for slope, at, low, high in calibration.pieces()]
        )
        logits = tf.where(lengths > 0, logits, tf.cast(prior, tf.float32))
        unknown = tf.equal(module.known_actions.lookup(actions), UNKNOWN_ID)
        return {"purchase_probability": tf.sigmoid(logits), "unknown": unknown}

    tf.saved_model.save(module, str(directory), signatures=serve)


class SavedIntentModel:
    """An exported model on rows of ``intent_dataset``: what a served version answers, through its own graph."""

    def __init__(self, directory: Path):
        import tensorflow as tf

        self._loaded = tf.saved_model.load(str(directory))
        self._serve = self._loaded.signatures["serving_default"]

    def predict(self, frame: pl.DataFrame) -> np.ndarray:
        """Return the probability of a purchase later on, float64 (N,)."""
        import tensorflow as tf

        answers = np.zeros(frame.height)
        lengths = frame["actions"].list.len().to_numpy()
        for rows, _ in batches(lengths, ROWS_AT_ONCE):
            events = frame[rows]
            found = self._serve(
                actions=tf.constant(_rectangle(events["actions"], "")),
                skus=tf.constant(_rectangle(events["skus"], "")),
                timestamps_ms=tf.constant(_rectangle(events["timestamps_ms"], MISSING_TIMESTAMP_MS), tf.int64),
            )
            answers[rows] = found["purchase_probability"].numpy()
        return answers


def _rectangle(lists: pl.Series, missing: str | int) -> np.ndarray:
    """Right-pad N lists to (N, T), T >= 1."""
    rows = lists.to_list()
    width = max(1, *(len(row) for row in rows), 1)
    return np.array([[*row, *[missing] * (width - len(row))] for row in rows], dtype=object if missing == "" else None)


def _network_for_any_machine(model: IntentModel):
    """The same network without cuDNN kernels, which would fail on a CPU."""
    table, trained = model.table, model.network
    mean, scale = np.asarray(trained.mean.value), np.asarray(trained.scale.value)
    network = build_network(table, mean, scale, model.choice.config, use_cudnn=False)
    network.set_weights(trained.get_weights())
    return network


def _signature() -> list:
    import tensorflow as tf

    return [
        tf.TensorSpec((None, None), tf.string, name="actions"),
        tf.TensorSpec((None, None), tf.string, name="skus"),
        tf.TensorSpec((None, None), tf.int64, name="timestamps_ms"),
    ]


def _lookup(keys: list[str], values: list[int]):
    import tensorflow as tf

    pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(keys), tf.constant(values, dtype=tf.int64))
    return tf.lookup.StaticHashTable(pairs, default_value=UNKNOWN_ID)


def _last_events(ids, skus, times, max_events: int):
    """Drop pad events wherever they stand, keep the last ``max_events``, pad to at least one column.

    Returns ((ids, skus, times), lengths): (B, T') each, right-padded, and int32 (B,).
    """
    import tensorflow as tf

    ids, skus, times = (
        tf.pad(values, [[0, 0], [0, tf.maximum(1 - tf.shape(values)[1], 0)]], constant_values=missing)
        for values, missing in ((ids, PAD_ID), (skus, ""), (times, tf.constant(MISSING_TIMESTAMP_MS, tf.int64)))
    )
    present = tf.not_equal(ids, PAD_ID)
    order = tf.argsort(tf.cast(~present, tf.int32), axis=1, stable=True)
    counts = tf.reduce_sum(tf.cast(present, tf.int32), axis=1)
    lengths = tf.minimum(counts, max_events)
    position = tf.range(tf.minimum(tf.shape(ids)[1], max_events))[None, :]
    start = (counts - lengths)[:, None]
    inside = position < lengths[:, None]
    index = tf.gather(order, tf.where(inside, position + start, 0), batch_dims=1)
    ids, skus, times = (tf.gather(values, index, batch_dims=1) for values in (ids, skus, times))
    kept = tf.where(inside, ids, PAD_ID), tf.where(inside, skus, ""), tf.where(inside, times, MISSING_TIMESTAMP_MS)
    return kept, lengths


def _encoded(ids, skus, times, sku_table) -> dict:
    """The network's inputs, as ``EncodedSessions.padded`` gives them."""
    import tensorflow as tf

    products = tf.cast(sku_table.lookup(skus), tf.int32)
    identity = tf.strings.to_hash_bucket_fast(skus, 2**62)
    first = tf.argmax(tf.cast(tf.equal(identity[:, :, None], identity[:, None, :]), tf.int32), axis=2)
    firsts = tf.where(tf.equal(skus, ""), NO_PRODUCT_POSITION, tf.cast(first, tf.int32))
    before = tf.concat([tf.fill([tf.shape(times)[0], 1], tf.constant(MISSING_TIMESTAMP_MS, tf.int64)), times], axis=1)
    before = before[:, :-1]
    known = (times >= 0) & (before >= 0)
    seconds = tf.clip_by_value(tf.cast(times - before, tf.float64) / 1000.0, 0.0, LONGEST_GAP_S)
    log_gaps = tf.where(known, tf.math.log1p(seconds), tf.constant(0.0, tf.float64))
    return {
        "actions": ids,
        "products": products,
        "firsts": firsts,
        "log_gaps": tf.cast(log_gaps, tf.float32),
        "has_gap": tf.cast(known, tf.float32),
    }
