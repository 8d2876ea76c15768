"""The recurrent body of the next-item LSTM (GRU4Rec family; Hidasi et al. 2016), in Keras operations only.

What belongs elsewhere: item vectors, what a return is worth, and losses (``item_network.py``), what is learned as
arrays, and scores (``lstm_recommender.py``).
"""

import numpy as np

from bigger_boat.ml.catalogue import Catalogue
from bigger_boat.ml.item_network import build_item_network
from bigger_boat.ml.time_gaps import GAP_BUCKETS

NEAR_DECAY = 0.5
"""What an item counts for in the sum of the last ones, for each step back."""

NEAR_START = 8.0
"""What the direction of the last item counts for in the query, before anything is learned."""


def build_network(vectors: np.ndarray, counts: np.ndarray, catalogue: Catalogue, config, *, use_cudnn="auto"):
    """Return an untrained next-item LSTM whose item vectors start from ``vectors`` float32 (V, D).

    ``inputs`` hold ``rows`` in time order, ``gaps``, the class of the pause before each, and ``seen``, their
    ``seen_classes``. The same configuration gives the same weights. For ``counts`` and ``catalogue`` see
    ``build_item_network``.
    """
    import keras
    from keras import ops

    class Recurrent(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            dim = vectors.shape[1]
            # the query starts from what is near to the last items, by Prod2Vec; the LSTM learns what that misses
            self.near = self.add_weight(shape=(dim,), initializer=keras.initializers.Constant(NEAR_START), name="near")
            self.gap_vectors = self.add_weight(shape=(GAP_BUCKETS, dim), initializer="zeros", name="gap_vectors")
            self.lstm = keras.layers.LSTM(config.units, return_sequences=True, use_cudnn=use_cudnn)
            self.project = keras.layers.Dense(dim)
            self.drop_inputs = keras.layers.Dropout(config.dropout)
            self.drop_states = keras.layers.Dropout(config.dropout)
            self.lstm.build((None, None, dim))
            self.project.build((None, None, config.units))
            self.built = True

        def call(self, vectors, inputs, training=False):
            ages = ops.arange(ops.shape(vectors)[1])[:, None] - ops.arange(ops.shape(vectors)[1])[None, :]
            fade = ops.where(ages >= 0, NEAR_DECAY ** ops.cast(ops.maximum(ages, 0), "float32"), 0.0)
            near = self.near * ops.einsum("ts,bsd->btd", fade, vectors)
            vectors = vectors + ops.take(self.gap_vectors, inputs["gaps"], axis=0)
            states = self.lstm(self.drop_inputs(vectors, training=training), training=training)
            return self.project(self.drop_states(states, training=training)) + near

    keras.utils.set_random_seed(config.seed)
    return build_item_network(vectors, counts, catalogue, config, Recurrent(), repeats=True)
