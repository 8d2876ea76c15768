"""The vectors of items as a Keras layer: each product's own, and what the catalogue says about it.

Keras operations only. What belongs elsewhere: the network around it (``item_network.py``), what the catalogue says
(``catalogue.py``).
"""

import numpy as np

from bigger_boat.ml.catalogue import Catalogue


def build_item_vectors(vectors: np.ndarray, counts: np.ndarray, catalogue: Catalogue, config):
    """Return a layer, rows (...) to vectors (..., D), whose own part starts from ``vectors`` float32 (V, D).

    Products of ``counts`` (V,) 0 have no part of their own. While training, each product's own part is forgotten with
    probability ``config.forget_items``, so that what the catalogue says has to do: drawn anew at every call.
    """
    import keras
    from keras import ops

    class ItemVectors(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.described = not catalogue.empty
            self.table = started(self, "table", vectors)
            if self.described:
                self._describe(vectors.shape[1])
            self.seeds = keras.random.SeedGenerator(config.seed)
            self.built = True

        def _describe(self, dim):
            self.has_own = ops.convert_to_tensor((counts > 0).astype(np.float32)[:, None])
            self.category_ids = ops.convert_to_tensor(catalogue.categories)
            self.price_ids = ops.convert_to_tensor(catalogue.prices)
            self.features = ops.convert_to_tensor(catalogue.vectors)
            self.category = started(self, "category", np.zeros((catalogue.categories.max() + 1, dim), np.float32))
            self.price = started(self, "price", np.zeros((catalogue.prices.max() + 1, dim), np.float32))
            if catalogue.vectors.shape[1]:
                zeros = np.zeros((catalogue.vectors.shape[1], dim), np.float32)
                self.feature_map = started(self, "feature_map", zeros)

        def call(self, rows, training=False):
            own = ops.take(self.table, rows, axis=0)
            if not self.described:
                return own
            return own * self._kept(rows, training) + self._from_catalogue(rows)

        def _kept(self, rows, training):
            kept = ops.take(self.has_own, rows, axis=0)
            if not (training and config.forget_items):
                return kept
            return kept * ops.cast(
                keras.random.uniform(ops.shape(kept), seed=self.seeds) > config.forget_items, "float32"
            )

        def _from_catalogue(self, rows):
            described = ops.take(self.category, ops.take(self.category_ids, rows), axis=0)
            described += ops.take(self.price, ops.take(self.price_ids, rows), axis=0)
            if catalogue.vectors.shape[1]:
                described += ops.matmul(ops.take(self.features, rows, axis=0), self.feature_map)
            return described

    return ItemVectors()


def started(layer, name: str, values: np.ndarray):
    """Give a Keras layer or model a weight that starts from ``values``, and return it."""
    weight = layer.add_weight(shape=values.shape, initializer="zeros", name=name)
    weight.assign(values)
    return weight
