"""A SavedModel as a function of arrays.

Belongs here: TensorFlow's loading and calling. Does not belong here: what inputs and outputs mean (``predictor.py``).
TensorFlow is imported when a graph is loaded, not before.
"""

import contextlib
import ctypes
import functools
import gc
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

SIGNATURE = "serving_default"
_TAG = "serve"
_serves_only = False


def serve_only() -> None:
    """Say that this process does nothing but serve, before its first graph: then less of TensorFlow is imported."""
    global _serves_only
    _serves_only = True


def load_runtime() -> None:
    """Import what serves of TensorFlow now, so that the first model does not wait for it."""
    _import_runtime()
    # Hundreds of thousands of objects that live as long as the process: no collection has to look at them again,
    # neither between requests nor after a swap.
    gc.collect()
    gc.freeze()


def give_back_memory() -> None:
    """Free the models that nobody uses any more: graphs are cycles, and the C library keeps what it gets back."""
    gc.collect()
    if trim := _trim():
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """Return glibc's ``malloc_trim``; None where the C library is another one."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


@functools.cache
def _import_runtime() -> tuple[type, type, Any, Callable]:
    """Return TensorFlow's Graph, Session, configuration and loader, which are all that serving needs of it."""
    with _without_its_api():
        from tensorflow.core.protobuf import config_pb2
        from tensorflow.python.client.session import Session
        from tensorflow.python.framework.ops import Graph as TensorFlowGraph
        from tensorflow.python.saved_model.loader import load
        from tensorflow.python.trackable import data_structures  # noqa: F401  (Keras asks for it before TensorFlow)
    return TensorFlowGraph, Session, config_pb2, load


@contextlib.contextmanager
def _without_its_api() -> Iterator[None]:
    """Keep Keras out, which ``import tensorflow`` brings along; where nothing but serving happens, that import too.

    It makes thousands of public names, which no graph needs: two thirds of the time until a server can answer. An empty
    package stands in its place meanwhile. Whoever needs Keras or the names later in this process imports them as usual.
    """
    hidden = {} if "tensorflow" in sys.modules or "keras" in sys.modules else {"keras": None}  # None: there is none
    if _serves_only and "tensorflow" not in sys.modules:
        spec = importlib.util.find_spec("tensorflow")
        hidden["tensorflow"] = importlib.util.module_from_spec(spec)  # its __path__ is set, nothing of it is run
    sys.modules.update(hidden)
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name) is hidden[name]:
                del sys.modules[name]


class Graph:
    """A loaded SavedModel. Safe to call from several threads; its memory is given back when nobody holds it any more.

    A session of its own holds variables and tables, as in TensorFlow Serving. ``tf.saved_model.load`` keeps them in the
    process-wide eager context, which never gives all of them back: 18 MB for each version of 66,000 products.
    """

    def __init__(self, directory: Path):
        graph_class, session_class, config, load = _import_runtime()
        with graph_class().as_default() as graph:
            # The thread that asks runs the graph (-1): handing operations, or parts of them, to others costs more than
            # it wins.
            threads = config.ConfigProto(inter_op_parallelism_threads=-1, intra_op_parallelism_threads=1)
            session = session_class(graph=graph, config=threads)
            described = load(session, [_TAG], str(directory)).signature_def[SIGNATURE]
        self.inputs = frozenset(described.inputs)
        self.outputs = frozenset(described.outputs)
        self._order = sorted(self.inputs)
        # TensorFlow's own make_callable runs a feed through Session.run, whose Python is a sixth of a call.
        self._call = session._make_callable_from_options(
            config.CallableOptions(
                feed=[described.inputs[name].name for name in self._order],
                fetch=[tensor.name for tensor in described.outputs.values()],
            )
        )
        self._returned = list(described.outputs)

    def __call__(self, values: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Return the outputs as arrays; strings come as bytes. Inputs that the graph does not have are left out."""
        return dict(zip(self._returned, self._call(*[values[name] for name in self._order]), strict=True))
