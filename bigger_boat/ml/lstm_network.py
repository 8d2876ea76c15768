"""The recurrent body of the next-item LSTM (GRU4Rec family; Hidasi et al. 2016), in Keras operations only.

What belongs elsewhere: item vectors and losses (``item_network.py``), what is learned as arrays, and scores
(``lstm_recommender.py``).
"""

import numpy as np

from bigger_boat.ml.catalogue import Catalogue
from bigger_boat.ml.item_network import build_item_network
from bigger_boat.ml.time_gaps import GAP_BUCKETS


def build_network(vectors: np.ndarray, counts: np.ndarray, catalogue: Catalogue, config, *, use_cudnn="auto"):
    """Return an untrained next-item LSTM whose item vectors start from ``vectors`` float32 (V, D).

    ``inputs`` hold ``rows`` in time order and ``gaps``, the bucket of the pause before each. The same configuration
    gives the same weights. For ``counts`` and ``catalogue`` see ``build_item_network``.
    """
    import keras
    from keras import ops

    class Recurrent(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            dim = vectors.shape[1]
            self.gap_vectors = self.add_weight(shape=(GAP_BUCKETS, dim), initializer="zeros", name="gap_vectors")
            self.lstm = keras.layers.LSTM(config.units, return_sequences=True, use_cudnn=use_cudnn)
            self.project = keras.layers.Dense(dim)
            self.drop_inputs = keras.layers.Dropout(config.dropout)
            self.drop_states = keras.layers.Dropout(config.dropout)
            self.lstm.build((None, None, dim))
            self.project.build((None, None, config.units))
            self.built = True

        def call(self, vectors, inputs, training=False):
            vectors = vectors + ops.take(self.gap_vectors, inputs["gaps"], axis=0)
            states = self.lstm(self.drop_inputs(vectors, training=training), training=training)
            return self.project(self.drop_states(states, training=training))

    keras.utils.set_random_seed(config.seed)
    return build_item_network(vectors, counts, catalogue, config, Recurrent())
