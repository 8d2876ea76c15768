"""The body of ProdB: a small transformer encoder over the products of a session, one of which is hidden.

Its arithmetic (``encode``) is spelled once and runs on Keras while training, on NumPy offline and on TensorFlow in the
graph that serves. Normalisation comes before each part (Xiong et al. 2020). A place's number is its distance from
the end: a session's padding stands on the right, and the last item is always at the same place.
What belongs elsewhere: item vectors, losses (``item_network.py``), which items are hidden (``prodb_recommender.py``).
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from bigger_boat.ml.catalogue import Catalogue
from bigger_boat.ml.item_losses import IMPOSSIBLE
from bigger_boat.ml.item_network import build_item_network

HIDDEN_ROW = -2
"""The row of an item that has to be guessed."""

INNER = 2
"""The layers between attention are so many times as wide as the encoder."""


class Operations(NamedTuple):
    """What ``encode`` needs of an array library. ``mean``: of the last axis, kept; ``softmax``: over the last axis;
    ``width``: the size of axis 1."""

    einsum: Callable
    softmax: Callable
    mean: Callable
    sqrt: Callable
    relu: Callable
    width: Callable


def _softmax(values: np.ndarray) -> np.ndarray:
    shares = np.exp(values - values.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


NUMPY = Operations(
    partial(np.einsum, optimize=True),
    _softmax,
    partial(np.mean, axis=-1, keepdims=True),
    np.sqrt,
    lambda values: np.maximum(values, 0),
    lambda values: values.shape[1],
)


def shapes(dim: int, config) -> dict[str, tuple[int, ...]]:
    """Return the encoder's weights by name: D = ``dim``, U units, H heads of E = U / H each."""
    units, heads, inner = config.units, config.heads, INNER * config.units
    each = units // heads
    found: dict[str, tuple[int, ...]] = {
        "hidden": (dim,),
        "places": (config.longest + 1, units),
        "enter": (dim, units),
        "enter_bias": (units,),
    }
    for layer in range(config.layers):
        found |= {
            f"attend_scale_{layer}": (units,),
            f"attend_shift_{layer}": (units,),
            f"query_{layer}": (units, heads, each),
            f"key_{layer}": (units, heads, each),
            f"value_{layer}": (units, heads, each),
            f"mix_{layer}": (heads, each, units),
            f"think_scale_{layer}": (units,),
            f"think_shift_{layer}": (units,),
            f"wide_{layer}": (units, inner),
            f"wide_bias_{layer}": (inner,),
            f"narrow_{layer}": (inner, units),
            f"narrow_bias_{layer}": (units,),
        }
    return found | {
        "leave_scale": (units,),
        "leave_shift": (units,),
        "leave": (units, dim),
        "leave_bias": (dim,),
    }


def encode(
    do: Operations,
    weights: Mapping[str, Any],
    vectors,
    hidden,
    held,
    drop: Callable[[Any], Any] = lambda values: values,
):
    """Return queries (B, T, D) at each place of ``vectors`` (B, T, D), last item first.

    ``hidden`` and ``held`` float32 (B, T): 1 where the item has to be guessed, and where there is one at all.
    """
    vectors = vectors * (1 - hidden)[..., None] + hidden[..., None] * weights["hidden"]
    places = weights["places"][: do.width(vectors)]
    state = drop(do.einsum("btd,du->btu", vectors, weights["enter"]) + weights["enter_bias"] + places)
    outside = (IMPOSSIBLE * (1 - held))[:, None, None, :]
    layer = 0
    while f"query_{layer}" in weights:
        part = {name: weights[f"{name}_{layer}"] for name in _LAYER}
        seen = _normal(do, state, part["attend_scale"], part["attend_shift"])
        query, key, value = (do.einsum("btu,uhe->bhte", seen, part[name]) for name in ("query", "key", "value"))
        near = do.einsum("bhte,bhse->bhts", query, key) / math.sqrt(part["query"].shape[-1])
        found = do.einsum("bhts,bhse->bhte", do.softmax(near + outside), value)
        state = state + drop(do.einsum("bhte,heu->btu", found, part["mix"]))
        seen = _normal(do, state, part["think_scale"], part["think_shift"])
        wide = do.relu(do.einsum("btu,uw->btw", seen, part["wide"]) + part["wide_bias"])
        state = state + drop(do.einsum("btw,wu->btu", wide, part["narrow"]) + part["narrow_bias"])
        layer += 1
    state = _normal(do, state, weights["leave_scale"], weights["leave_shift"])
    return do.einsum("btu,ud->btd", state, weights["leave"]) + weights["leave_bias"]


_LAYER = (
    *("attend_scale", "attend_shift", "query", "key", "value", "mix"),
    *("think_scale", "think_shift", "wide", "wide_bias", "narrow", "narrow_bias"),
)


def _start(name: str) -> str:
    """Return the initializer of a weight."""
    if "scale" in name:
        return "ones"
    return "zeros" if "shift" in name or "bias" in name else "glorot_uniform"


def _normal(do: Operations, state, scale, shift):
    centred = state - do.mean(state)
    return centred / do.sqrt(do.mean(centred * centred) + 1e-6) * scale + shift


def build_network(vectors: np.ndarray, counts: np.ndarray, catalogue: Catalogue, config):
    """Return an untrained ProdB whose item vectors start from ``vectors`` float32 (V, D).

    ``inputs`` hold ``rows``, last item first, ``HIDDEN_ROW`` where one has to be guessed. The same configuration gives
    the same weights. For ``counts`` and ``catalogue`` see ``build_item_network``.
    """
    import keras
    from keras import ops

    mean = partial(ops.mean, axis=-1, keepdims=True)
    do = Operations(ops.einsum, ops.softmax, mean, ops.sqrt, ops.relu, lambda values: ops.shape(values)[1])

    class Encoder(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.learned = {
                name: self.add_weight(shape=shape, initializer=_start(name), name=name)
                for name, shape in shapes(vectors.shape[1], config).items()
            }
            self.dropout = keras.layers.Dropout(config.dropout)
            self.built = True

        def call(self, vectors, inputs, training=False):
            rows = inputs["rows"]
            hidden, held = (ops.cast(chosen, "float32") for chosen in (rows == HIDDEN_ROW, rows != -1))
            learned = {name: ops.convert_to_tensor(weight) for name, weight in self.learned.items()}
            return encode(do, learned, vectors, hidden, held, partial(self.dropout, training=training))

    keras.utils.set_random_seed(config.seed)
    return build_item_network(vectors, counts, catalogue, config, Encoder())
