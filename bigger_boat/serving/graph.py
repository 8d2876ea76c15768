"""A SavedModel as a function of arrays.

Belongs here: TensorFlow's loading and calling. Does not belong here: what inputs and outputs mean (``predictor.py``).
TensorFlow is imported when a graph is loaded, not before.
"""

import contextlib
import gc
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

SIGNATURE = "serving_default"


def load_runtime() -> None:
    """Import TensorFlow now (seconds), so that the first model does not wait for it."""
    with _without_keras():
        import tensorflow  # noqa: F401

    # Hundreds of thousands of objects that live as long as the process: no collection has to look at them again,
    # neither between requests nor after a swap.
    gc.collect()
    gc.freeze()


@contextlib.contextmanager
def _without_keras() -> Iterator[None]:
    """Importing TensorFlow imports Keras where it is installed, which takes half of the time; no graph needs it.

    Whoever needs Keras later in this process imports it as usual.
    """
    if "tensorflow" in sys.modules or "keras" in sys.modules:
        yield
        return
    sys.modules["keras"] = None  # type: ignore[assignment]  (Python's way to say that there is none)
    try:
        yield
    finally:
        del sys.modules["keras"]


class Graph:
    """A loaded SavedModel. Safe to call from several threads; its memory is given back when nobody holds it any more.

    A session of its own holds variables and tables, as in TensorFlow Serving. ``tf.saved_model.load`` keeps them in the
    process-wide eager context, which never gives all of them back: 18 MB for each version of 66,000 products.
    """

    def __init__(self, directory: Path):
        import tensorflow as tf

        v1 = tf.compat.v1
        with tf.Graph().as_default() as graph:
            # One thread answers a batch: handing operations, or parts of them, to others costs more than it wins.
            threads = v1.ConfigProto(inter_op_parallelism_threads=1, intra_op_parallelism_threads=1)
            session = v1.Session(graph=graph, config=threads)
            described = v1.saved_model.load(session, [tf.saved_model.SERVING], str(directory)).signature_def[SIGNATURE]
        self.inputs = frozenset(described.inputs)
        self.outputs = frozenset(described.outputs)
        self._order = sorted(self.inputs)
        self._call = session.make_callable(
            {name: tensor.name for name, tensor in described.outputs.items()},
            feed_list=[described.inputs[name].name for name in self._order],
        )

    def __call__(self, values: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return the outputs as arrays; strings come as bytes. Inputs that the graph does not have are left out."""
        return self._call(*[values[name] for name in self._order])
