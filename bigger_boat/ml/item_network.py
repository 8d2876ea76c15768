"""What every next-item network shares, as a Keras model: items as logits, and the loss over all or sampled products.

Keras operations only, so that any backend trains it. Input and output share the item vectors (GRU4Rec; Hidasi and
Karatzoglou 2018), and sampled losses are corrected for popularity (log-q; Bengio and Senecal 2008).
What belongs elsewhere: the vectors (``item_vectors.py``), what happens between the vectors of a session and the query
(a body: ``lstm_network.py``, ``prodb_network.py``), losses of logits (``item_losses.py``), batches and epochs
(``sequence_training.py``), what is learned as arrays (one model per file).
"""

import numpy as np

from bigger_boat.ml.catalogue import Catalogue
from bigger_boat.ml.item_losses import Returns, Sample, full_loss, sampled_loss
from bigger_boat.ml.item_vectors import build_item_vectors, started
from bigger_boat.ml.repeats import REPEAT_CLASSES

REPEAT_SCALE = 10.0
"""A logit for coming back is learned as so many times a weight: it has further to go than the others."""


def build_item_network(vectors: np.ndarray, counts: np.ndarray, catalogue: Catalogue, config, body, *, repeats=False):
    """Return an untrained network whose item vectors start from ``vectors`` float32 (V, D).

    ``counts`` int64 (V,), falling: products of count 0 stand last, get their vector from the catalogue alone, and are
    no answers while training. ``body``: a Keras layer, (vectors (B, T, D), inputs, training) to queries (B, T, D).
    With ``repeats`` the network also learns a logit for coming back to an item of each class of ``inputs["seen"]``.
    """
    import keras
    from keras import ops

    class NextItem(keras.Model):
        """``inputs``: rows, targets int32 (B, T), negative where there is none, and what else the body asks for; with
        repeats also ``seen_classes`` of the rows; with sampling also rows and log expected counts (S,) of the sampled
        products. Returns the loss of each target in nats, float32 (B, T), 0 without one."""

        def __init__(self):
            super().__init__()
            self.trained = int((counts > 0).sum())
            self.item_vectors = build_item_vectors(vectors, counts, catalogue, config)
            self.bias = started(self, "bias", _log_shares(counts))
            if repeats:
                self.repeats = started(self, "repeats", np.zeros(REPEAT_CLASSES, np.float32))
            self.body = body
            self.built = True

        def queries(self, inputs, training=False):
            """Return float32 (B, T, D): what is looked for at each place of ``inputs["rows"]`` (B, T)."""
            vectors = self.item_vectors(ops.maximum(inputs["rows"], 0), training=training)
            return self.body(vectors, inputs, training=training)

        def call(self, inputs, training=False):
            targets = inputs["targets"]
            queries = self.queries(inputs, training)
            loss = self._sampled if self.trained > config.full_softmax_up_to else self._full
            return loss(queries, ops.maximum(targets, 0), inputs, training) * ops.cast(targets >= 0, "float32")

        def _full(self, queries, targets, inputs, training):
            candidates = self.item_vectors(ops.arange(self.trained), training=training)
            logits = ops.matmul(queries, ops.transpose(candidates)) + self.bias[: self.trained]
            return full_loss(logits, targets, self._returns(inputs))

        def _sampled(self, queries, targets, inputs, training):
            rows = inputs["sampled"]
            logits = ops.matmul(queries, ops.transpose(self.item_vectors(rows, training=training)))
            sample = Sample(rows, logits + ops.take(self.bias, rows) - inputs["log_expected"])
            # the target is always among the candidates, so nothing is to be corrected
            wanted = ops.sum(queries * self.item_vectors(targets, training=training), axis=-1)
            wanted += ops.take(self.bias, targets)
            returns = self._returns(inputs)
            if returns is None:
                return sampled_loss(wanted, targets, sample)
            session = ops.einsum("btd,bsd->bts", queries, self.item_vectors(returns.rows, training=training))
            session += ops.take(self.bias, returns.rows)[:, None, :]
            return sampled_loss(wanted, targets, sample, returns, session)

        def _returns(self, inputs):
            if not repeats:
                return None
            held = inputs["seen"] >= 0
            worth = REPEAT_SCALE * ops.take(self.repeats, ops.maximum(inputs["seen"], 0))
            return Returns(ops.maximum(inputs["rows"], 0), held, worth * ops.cast(held, "float32"))

    return NextItem()


def _log_shares(counts: np.ndarray) -> np.ndarray:
    """Return how popular each product is, in logits, the most popular at 0."""
    logs = np.log(np.maximum(counts, 0.5) / counts.sum())
    return (logs - logs.max()).astype(np.float32)


def learned_items(network, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors float32 (``count``, D) and bias (``count``,) of a trained network's products."""
    rows = np.arange(count, dtype=np.int32)
    vectors = np.concatenate([np.asarray(network.item_vectors(part)) for part in np.array_split(rows, 8)])
    return vectors, np.array(network.bias.value)
