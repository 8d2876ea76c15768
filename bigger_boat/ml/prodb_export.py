"""ProdB inside a TensorFlow graph: the scores of ``prodb_recommender.py``.

What belongs elsewhere: the rules around the scores (``recommender_export.py``).
"""

from functools import partial
from pathlib import Path

import numpy as np

from bigger_boat.ml.hybrid_export import constant, recent_first
from bigger_boat.ml.item_sequences import UNKNOWN_ROW
from bigger_boat.ml.prodb_network import HIDDEN_ROW, Operations, encode
from bigger_boat.ml.prodb_recommender import ProdbModel
from bigger_boat.ml.recommender_export import export_recommender


def export_prodb(model: ProdbModel, directory: Path) -> None:
    """Write ``model`` as a SavedModel (serving_default, strings in, SKUs and scores out) into ``directory``."""
    import tensorflow as tf

    mean = partial(tf.reduce_mean, axis=-1, keepdims=True)
    do = Operations(tf.einsum, tf.nn.softmax, mean, tf.sqrt, tf.nn.relu, lambda values: tf.shape(values)[1])
    encoder = {name: constant(weight, name) for name, weight in model.encoder.items()}
    vectors = constant(model.item_vectors, "vectors")
    # columns are products, with the bias as one more coordinate, times 1: one product of matrices
    columns = constant(np.vstack([model.item_vectors.T, model.item_bias]), "vectors_and_bias")

    def scores(rows, ages, times_ms):
        recent, _ = recent_first(rows, ages, times_ms)
        asked = tf.pad(recent[:, : model.longest], [[0, 0], [1, 0]], constant_values=HIDDEN_ROW)
        hidden, held = (tf.cast(chosen, tf.float32) for chosen in (asked == HIDDEN_ROW, asked != UNKNOWN_ROW))
        found = encode(do, encoder, tf.gather(vectors, tf.maximum(asked, 0)), hidden, held)[:, 0]
        return tf.matmul(tf.concat([found, tf.ones_like(found[:, :1])], axis=1), columns)

    export_recommender(model, scores, [columns, vectors, *encoder.values()], directory)
