"""What every next-item network shares, as a Keras model: item vectors, and the loss over all or sampled products.

Keras operations only, so that any backend trains it. Input and output share the item vectors (GRU4Rec; Hidasi and
Karatzoglou 2018), and sampled losses are corrected for popularity (log-q; Bengio and Senecal 2008).
What belongs elsewhere: what happens between the vectors of a session and the query (a body: ``lstm_network.py``,
``prodb_network.py``), batches and epochs (``sequence_training.py``), what is learned as arrays (one model per file).
"""

import numpy as np

from bigger_boat.ml.catalogue import Catalogue
from bigger_boat.ml.repeats import REPEAT_CLASSES

IMPOSSIBLE = -1e9
"""The logit of what may not be an answer."""

REPEAT_SCALE = 10.0
"""A logit for coming back is learned as so many times a weight: it has further to go than the others."""

SMALLEST_SUM = 1e-6
"""What rounding may leave of a sum of probabilities."""


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
            self.sampled = self.trained > config.full_softmax_up_to
            self.described = not catalogue.empty
            dim = vectors.shape[1]
            self.table = self._table("table", vectors)
            log_shares = np.log(np.maximum(counts, 0.5) / counts.sum())
            self.bias = self._table("bias", (log_shares - log_shares.max()).astype(np.float32))
            if self.described:
                self.has_row = ops.convert_to_tensor((counts > 0).astype(np.float32)[:, None])
                self.category_ids = ops.convert_to_tensor(catalogue.categories)
                self.price_ids = ops.convert_to_tensor(catalogue.prices)
                self.features = ops.convert_to_tensor(catalogue.vectors)
                self.category = self._table("category", np.zeros((catalogue.categories.max() + 1, dim), np.float32))
                self.price = self._table("price", np.zeros((catalogue.prices.max() + 1, dim), np.float32))
                if catalogue.vectors.shape[1]:
                    zeros = np.zeros((catalogue.vectors.shape[1], dim), np.float32)
                    self.feature_map = self._table("feature_map", zeros)
            if repeats:
                self.repeats = self._table("repeats", np.zeros(REPEAT_CLASSES, np.float32))
            self.seeds = keras.random.SeedGenerator(config.seed)
            self.body = body
            self.built = True

        def _table(self, name, values):
            weight = self.add_weight(shape=values.shape, initializer="zeros", name=name)
            weight.assign(values)
            return weight

        def item_vectors(self, rows, training=False):
            """Return (..., D) of rows: the product's own part, which training drops at random, and its catalogue's."""
            own = ops.take(self.table, rows, axis=0)
            if not self.described:
                return own
            kept = ops.take(self.has_row, rows, axis=0)
            if training and config.forget_items:
                kept = kept * ops.cast(
                    keras.random.uniform(ops.shape(kept), seed=self.seeds) > config.forget_items, "float32"
                )
            described = ops.take(self.category, ops.take(self.category_ids, rows), axis=0)
            described += ops.take(self.price, ops.take(self.price_ids, rows), axis=0)
            if catalogue.vectors.shape[1]:
                described += ops.matmul(ops.take(self.features, rows, axis=0), self.feature_map)
            return own * kept + described

        def queries(self, inputs, training=False):
            """Return float32 (B, T, D): what is looked for at each place of ``inputs["rows"]`` (B, T)."""
            vectors = self.item_vectors(ops.maximum(inputs["rows"], 0), training)
            return self.body(vectors, inputs, training=training)

        def call(self, inputs, training=False):
            targets = inputs["targets"]
            queries = self.queries(inputs, training)
            losses = (self._sampled if self.sampled else self._full)(queries, ops.maximum(targets, 0), inputs, training)
            return losses * ops.cast(targets >= 0, "float32")

        def _full(self, queries, targets, inputs, training):
            candidates = self.item_vectors(ops.arange(self.trained), training)
            logits = ops.matmul(queries, ops.transpose(candidates)) + self.bias[: self.trained]
            wanted = ops.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
            total = ops.logsumexp(logits, axis=-1)
            if not repeats:
                return total - wanted
            plain, seen, of_target = self._seen(queries, targets, inputs, training)
            more = ops.exp(seen - total[..., None]) - ops.exp(plain - total[..., None])
            total += ops.log(ops.maximum(1 + ops.sum(more, axis=-1), SMALLEST_SUM))
            return total - wanted - of_target

        def _sampled(self, queries, targets, inputs, training):
            rows = inputs["sampled"]
            logits = ops.matmul(queries, ops.transpose(self.item_vectors(rows, training)))
            logits += ops.take(self.bias, rows) - inputs["log_expected"]
            logits = ops.where(rows[None, None, :] == targets[..., None], IMPOSSIBLE, logits)
            wanted = ops.sum(queries * self.item_vectors(targets, training), axis=-1)
            wanted += ops.take(self.bias, targets)  # always among the candidates, so nothing to correct
            if repeats:
                _, seen, of_target = self._seen(queries, targets, inputs, training)
                wanted += of_target
                held = ops.cast(inputs["seen"] >= 0, "float32")
                same = ops.cast(inputs["rows"][:, :, None] == rows[None, None, :], "float32")
                logits = ops.where(ops.matmul(held, same) > 0, IMPOSSIBLE, logits)  # what was seen is among them, too
                seen = ops.where(inputs["rows"][:, None, :] == targets[..., None], IMPOSSIBLE, seen)
                logits = ops.concatenate([logits, seen], axis=-1)
            return ops.logsumexp(ops.concatenate([wanted[..., None], logits], axis=-1), axis=-1) - wanted

        def _seen(self, queries, targets, inputs, training):
            """Return the logits (B, T, S) of the session's items without and with what a return is worth, and what it
            is worth for the target (B, T); ``IMPOSSIBLE`` and 0 where it was not seen."""
            rows, classes = ops.maximum(inputs["rows"], 0), inputs["seen"]
            vectors = self.item_vectors(rows, training)
            logits = ops.einsum("btd,bsd->bts", queries, vectors) + ops.take(self.bias, rows)[:, None, :]
            worth = REPEAT_SCALE * ops.take(self.repeats, ops.maximum(classes, 0))
            held = classes >= 0
            hit = ops.cast(held & (rows[:, None, :] == targets[..., None]), "float32")
            plain, worthy = (ops.where(held, each, IMPOSSIBLE) for each in (logits, logits + worth))
            return plain, worthy, ops.sum(hit * worth, axis=-1)

    return NextItem()


def learned_items(network, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors float32 (``count``, D) and bias (``count``,) of a trained network's products."""
    rows = np.arange(count, dtype=np.int32)
    vectors = np.concatenate([np.asarray(network.item_vectors(part)) for part in np.array_split(rows, 8)])
    return vectors, np.array(network.bias.value)


def mean_loss(mask, losses):
    """Return the mean of ``losses`` (B, T) over the targets that ``mask`` (B, T) counts."""
    from keras import ops

    return ops.sum(losses) / ops.maximum(ops.sum(mask), 1.0)
