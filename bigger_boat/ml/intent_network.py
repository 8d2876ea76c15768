"""The intent network in Keras operations alone: what it derives from a session, its linear part, its LSTM part.

What belongs here: tensors to logits, on any Keras backend, with no step that looks ahead. What does not: encoding of
events (``intent_features.py``), fitting and calibration (``intent_model.py``), export (``intent_export.py``).

Inputs are those of ``EncodedSessions.padded``, (B, T) each, padded on the right. Every output at position t depends on
events up to t only, so padding needs no mask (which keeps cuDNN usable on a GPU) and one pass over the longest prefix
gives the answer at every cut.
"""

from dataclasses import dataclass

import numpy as np

from bigger_boat.data.vocabulary import ACTION_ID_COUNT, ACTION_IDS, FIRST_SKU_ID, PAD_ID

LARGEST_FEATURE = 4.0
"""Standardised wide features are clipped here, so that an odd request cannot drive the linear part anywhere."""

WIDE_DROPOUT = 0.5
"""Of running totals beside the LSTM: they tell most, and would drown what order tells."""

FADING_EVENTS = 3.0
"""An event counts half as much in what is recent after so many more: goals drift within a session."""

AHEAD = (ACTION_ID_COUNT, 20, 4)
"""Classes of what is expected of the next event: action, log of the pause, relation of its product to the session."""

GAP_BINS_PER_LOG = 2.5
"""Of log(1 + seconds): 20 bins reach 50 minutes."""

_SEEN_ACTIONS = [index for index in range(ACTION_ID_COUNT) if index not in (PAD_ID, ACTION_IDS["purchase"])]


@dataclass(frozen=True)
class ProductTable:
    """What is known of each SKU id: ``vectors`` float32 (V + 3, D) of length 1 or 0, ``popularity`` float32 (V + 3)."""

    vectors: np.ndarray
    popularity: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, counts: np.ndarray) -> "ProductTable":
        """Build from vectors (V, D) and counts (V,) in id order; popularity is log count, scaled to 0..1."""
        vectors = np.asarray(vectors, dtype=np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        popularity = np.log1p(np.asarray(counts, dtype=np.float32))
        scale = float(popularity.max()) if len(popularity) else 1.0
        special = np.zeros((FIRST_SKU_ID, vectors.shape[1]), dtype=np.float32)
        return cls(
            np.concatenate([special, unit]).astype(np.float32),
            np.concatenate([np.zeros(FIRST_SKU_ID), popularity / (scale or 1.0)]).astype(np.float32),
        )


def derive(inputs: dict, vectors, popularity) -> tuple:
    """Return (wide, steps, vectors of the events, relations): float (B, T, F), (B, T, S), (B, T, D), int (B, T).

    ``wide`` sums up everything until t; ``steps`` says what is special about event t; the relation of its product to
    the session is 3 in the cart, 2 seen before, 1 new, 0 no product.
    """
    from keras import ops

    one = _event_flags(inputs)
    cart = _cart_relations(inputs, one)
    vector = ops.take(vectors, inputs["products"], axis=0)
    similar = _similarities(vector, one)
    back = _back_to_last(inputs, vector, one)
    popular = ops.take(popularity, inputs["products"], axis=0)
    gaps = _gap_features(inputs, one, cart)
    wide = _wide(one, cart, similar, popular, gaps)
    steps = [
        one["action"],
        *(ops.expand_dims(one[name], -1) for name in ("has_sku", "known", "after_add")),
        *(ops.expand_dims(values, -1) for values in (*cart.values(), *similar.values(), *back, popular)),
        ops.expand_dims(inputs["log_gaps"] / 4.0, -1),
        ops.expand_dims(inputs["has_gap"], -1),
    ]
    new_or_none = ops.where(one["has_sku"] > 0, 1, 0)
    relation = ops.where(cart["in_cart"] > 0, 3, ops.where(cart["seen_before"] > 0, 2, new_or_none))
    return wide, ops.concatenate(steps, axis=-1), vector, relation


def _event_flags(inputs: dict) -> dict:
    """What event t is, each float (B, T); ``action`` is one-hot (B, T, A)."""
    from keras import ops

    actions, products = inputs["actions"], inputs["products"]
    action = ops.take(ops.one_hot(actions, ACTION_ID_COUNT), ops.convert_to_tensor(_SEEN_ACTIONS), axis=-1)
    add = _is(actions, "add")
    return {
        "action": action,
        "event": ops.cast(ops.not_equal(actions, PAD_ID), "float32"),
        "add": add,
        "remove": _is(actions, "remove"),
        "look": _is(actions, "detail") + _is(actions, "click"),
        "has_sku": ops.cast(ops.not_equal(products, PAD_ID), "float32"),
        "known": ops.cast(ops.greater_equal(products, FIRST_SKU_ID), "float32"),
        "after_add": ops.cast(ops.greater(_sum(add), 0), "float32"),
        "repeat": ops.sum(action * _before(action), axis=-1),
    }


def _cart_relations(inputs: dict, one: dict) -> dict:
    """How the product of event t relates to events before it: seen, added and still in the cart, or removed."""
    from keras import ops

    firsts = inputs["firsts"]
    position = _sum(ops.ones_like(firsts))
    same = ops.logical_and(ops.equal(firsts[:, :, None], firsts[:, None, :]), ops.greater_equal(firsts, 0)[:, :, None])
    same = ops.logical_and(same, ops.greater(position[:, :, None], position[:, None, :]))
    same = ops.cast(same, "float32")

    def earlier(flag):
        return ops.squeeze(ops.matmul(same, flag[:, :, None]), -1)

    added, removed = earlier(one["add"]), earlier(one["remove"])
    seen = earlier(one["event"])
    return {
        "in_cart": ops.cast(ops.greater(added, removed), "float32"),
        "was_removed": ops.cast(ops.greater(removed, 0), "float32"),
        "seen_before": ops.log1p(seen),
        "is_new": one["has_sku"] * ops.cast(ops.equal(seen, 0), "float32"),
    }


def _similarities(vector, one: dict) -> dict:
    """Cosine of the product of event t with what is in the cart, and with all products seen before."""
    added, removed = one["add"][:, :, None], one["remove"][:, :, None]
    cart = _before(_sum(vector * (added - removed)))
    seen = _before(_sum(vector))
    return {"cart_similarity": _cosine(vector, cart), "focus": _cosine(vector, seen)}


def _back_to_last(inputs: dict, vector, one: dict) -> tuple:
    """Whether event t shows the product shown last before it, and the cosine of the two; 0 where there is none."""
    from keras import ops

    place = ops.cumsum(ops.ones_like(inputs["firsts"]), axis=1) - 1
    earlier = ops.logical_and(
        ops.greater(place[:, :, None], place[:, None, :]), ops.greater(one["has_sku"], 0)[:, None, :]
    )
    last = ops.max(ops.where(earlier, place[:, None, :], -1), axis=-1)  # (B, T), -1 without
    known, last = ops.cast(ops.greater_equal(last, 0), "float32") * one["has_sku"], ops.maximum(last, 0)
    same = ops.equal(ops.take_along_axis(inputs["firsts"], last, axis=1), inputs["firsts"])
    other = ops.take_along_axis(vector, ops.repeat(last[:, :, None], vector.shape[-1], axis=-1), axis=1)
    return ops.cast(same, "float32") * known, _cosine(vector, other) * known


def _gap_features(inputs: dict, one: dict, cart: dict) -> dict:
    """Time spent, until t: all, after the first add, on products, and on products of the cart (log-mean each)."""
    from keras import ops

    gap, known = inputs["log_gaps"], inputs["has_gap"]
    seconds = ops.expm1(gap)
    on_look, on_cart = _before(one["look"]), _before(ops.maximum(one["add"], cart["in_cart"]))
    after = _before(one["after_add"])
    recent = _fading(one["event"])
    return {
        "recent_gap": _faded_mean(gap, known, recent),
        "recent_repeats": _faded_mean(one["repeat"], one["event"], recent),
        "elapsed": ops.log1p(_sum(seconds)),
        "elapsed_after_add": ops.log1p(_sum(seconds * after)),
        "mean_gap": _mean(gap, known),
        "mean_gap_after_add": _mean(gap, known * after),
        "dwell_on_products": _mean(gap, known * on_look),
        "dwell_on_cart": _mean(gap, known * on_cart),
        "last_gap": gap,
        "timed": _mean(known, one["event"]),
    }


def _wide(one: dict, cart: dict, similar: dict, popular, gaps: dict):
    """Everything until t as one vector, float (B, T, F)."""
    from keras import ops

    after, look = one["after_add"], one["look"]
    counted = [
        one["event"], after, cart["is_new"], look * ops.sign(cart["seen_before"]), look * cart["in_cart"],
        look * cart["in_cart"] * after, look * cart["is_new"] * after, one["add"] * cart["was_removed"],
        one["add"] * cart["in_cart"], one["add"] * cart["seen_before"],
    ]  # fmt: skip
    in_cart = ops.maximum(_sum(one["add"] - one["remove"]), 0.0)
    other = [
        in_cart, ops.cast(ops.equal(in_cart, 0), "float32"), look * cart["in_cart"], look * cart["is_new"],
        _mean(similar["cart_similarity"], look * one["known"] * after), similar["cart_similarity"] * look,
        _mean(similar["focus"], look * one["known"]), _mean(popular, one["add"] * one["known"]),
        _mean(popular, look * one["known"]), _mean(one["has_sku"], ops.maximum(look, one["add"])),
    ]  # fmt: skip
    runs = one["action"] * one["repeat"][:, :, None]
    columns = [ops.log1p(_sum(flag)) for flag in counted] + other + list(gaps.values())
    return ops.concatenate(
        [
            ops.log1p(_sum(one["action"])),
            ops.log1p(_sum(runs)),
            ops.log1p(_sum(runs * after[:, :, None])),
            ops.log1p(_sum(one["action"] * after[:, :, None])),
            one["action"],
            _before(one["action"]),
            ops.stack(columns, axis=-1),
        ],
        axis=-1,
    )


def build_network(
    table: ProductTable,
    mean: np.ndarray,
    scale: np.ndarray,
    config,
    *,
    use_cudnn: str | bool = "auto",
    precision: str = "float32",
):
    """Return a Keras model: inputs to addends of the logit, (B, T, 1 + members): the linear part, then each LSTM's.

    ``mean`` and ``scale`` (F,) standardise the wide features. The linear part (``linear``, ``shift``) is fitted apart
    and not trained by gradient; the LSTMs start at zero and learn what it misses.
    """
    import keras
    from keras import ops

    class IntentNetwork(keras.Model):
        def __init__(self):
            super().__init__(name="intent")
            frozen = {"trainable": False, "dtype": "float32"}
            self.vectors = self.add_weight(shape=table.vectors.shape, name="vectors", **frozen)
            self.popularity = self.add_weight(shape=table.popularity.shape, name="popularity", **frozen)
            self.mean = self.add_weight(shape=mean.shape, name="mean", **frozen)
            self.scale = self.add_weight(shape=scale.shape, name="scale", **frozen)
            self.linear = self.add_weight(shape=(len(mean), 1), name="linear", initializer="zeros", **frozen)
            self.shift = self.add_weight(shape=(), name="shift", initializer="zeros", **frozen)
            self.project = keras.layers.Dense(config.projection, activation="tanh", name="project")
            self.ahead = [keras.layers.Dense(sum(AHEAD), name=f"ahead_{member}") for member in range(config.members)]
            self.drop_in = keras.layers.Dropout(config.dropout, seed=config.seed)
            self.drop_out = keras.layers.Dropout(config.dropout, seed=config.seed + 1)
            members = range(config.members)
            options = {"return_sequences": True, "use_cudnn": use_cudnn, "dtype": precision}
            self.lstms = [keras.layers.LSTM(config.units, **options, name=f"lstm_{member}") for member in members]
            mixing = members if config.mix_units else ()
            self.mixes = [keras.layers.Dense(config.mix_units, activation="relu", name=f"mix_{m}") for m in mixing]
            self.drop_wide = keras.layers.Dropout(max(config.dropout, WIDE_DROPOUT), seed=config.seed + 2)
            self.heads = [
                keras.layers.Dense(1, kernel_initializer="zeros", name=f"head_{member}") for member in members
            ]

        def call(self, inputs, training=False):
            wide, steps, vector, relation = derive(inputs, self.vectors, self.popularity)
            wide = ops.clip((wide - self.mean) / self.scale, -LARGEST_FEATURE, LARGEST_FEATURE)
            linear = ops.matmul(wide, self.linear) + self.shift
            events = ops.concatenate([steps, self.project(vector)], axis=-1)
            events = self.drop_in(events, training=training)
            outputs = [self.drop_out(ops.cast(lstm(events), "float32"), training=training) for lstm in self.lstms]
            if training and config.ahead_weight:
                told = [look(output) for look, output in zip(self.ahead, outputs, strict=True)]
                self.add_loss(config.ahead_weight * ahead_loss(told, inputs, relation))
            if config.mix_units:
                totals = self.drop_wide(wide, training=training)
                mixed = [mix(ops.concatenate([o, totals], axis=-1)) for mix, o in zip(self.mixes, outputs, strict=True)]
                outputs = [ops.concatenate(pair, axis=-1) for pair in zip(outputs, mixed, strict=True)]
            deep = [head(output) for head, output in zip(self.heads, outputs, strict=True)]
            return ops.concatenate([linear, *deep], axis=-1)

    network = IntentNetwork()
    nothing = {name: np.zeros((1, 1), np.int32) for name in ("actions", "products", "firsts")}
    network(
        {**nothing, "log_gaps": np.zeros((1, 1), np.float32), "has_gap": np.zeros((1, 1), np.float32)}, training=True
    )
    network.vectors.assign(table.vectors)
    network.popularity.assign(table.popularity)
    network.mean.assign(mean)
    network.scale.assign(scale)
    return network


def ahead_loss(told: list, inputs: dict, relation):
    """Mean cross-entropy of what each member expects of event t + 1: its action, its pause, its product's relation.

    A session has one label, but every event of it is a lesson about what its shopper is up to. ``told``: logits
    (B, T, sum(AHEAD)) per member. Events that are missing, or whose time is, teach nothing.
    """
    from keras import ops

    actions, gaps, relations = AHEAD
    event = ops.cast(ops.not_equal(inputs["actions"], PAD_ID), "float32")
    gap = ops.cast(ops.clip(inputs["log_gaps"] * GAP_BINS_PER_LOG, 0, gaps - 1), "int32")
    targets = ((inputs["actions"], event, actions), (gap, inputs["has_gap"], gaps), (relation, event, relations))
    losses, first = [], 0
    for target, known, size in targets:
        wanted, weight = ops.one_hot(target[:, 1:], size), known[:, 1:]
        for member in told:
            likely = ops.log_softmax(member[:, :-1, first : first + size], axis=-1)
            surprise = -ops.sum(likely * wanted, axis=-1)
            losses.append(ops.sum(surprise * weight) / ops.maximum(ops.sum(weight), 1.0))
        first += size
    return sum(losses) / len(told)


def _is(actions, name: str):
    from keras import ops

    return ops.cast(ops.equal(actions, ACTION_IDS[name]), "float32")


def _sum(values):
    """Running sum over time, t included."""
    from keras import ops

    return ops.cumsum(values, axis=1)


def _before(values):
    """The value at t - 1, zero at the start."""
    from keras import ops

    return ops.concatenate([ops.zeros_like(values[:, :1]), values[:, :-1]], axis=1)


def _mean(values, chosen):
    """Running mean of the chosen values, zero before the first."""
    from keras import ops

    return _sum(values * chosen) / ops.maximum(_sum(chosen), 1.0)


def _fading(event):
    """Weights of events s until t, halved every ``FADING_EVENTS``, float (B, T, T)."""
    from keras import ops

    position = _sum(ops.ones_like(event))
    age = position[:, :, None] - position[:, None, :]
    return ops.where(age >= 0, ops.exp2(-ops.maximum(age, 0.0) / FADING_EVENTS), 0.0)


def _faded_mean(values, chosen, weights):
    """Mean of the chosen values until t, recent ones first; zero before the first."""
    from keras import ops

    total = ops.matmul(weights, (values * chosen)[:, :, None])
    return ops.squeeze(total / ops.maximum(ops.matmul(weights, chosen[:, :, None]), 1e-3), -1)


def _cosine(left, right):
    from keras import ops

    product = ops.sum(left * right, axis=-1)
    lengths = ops.sum(left * left, axis=-1) * ops.sum(right * right, axis=-1)
    return product / ops.sqrt(ops.maximum(lengths, 1e-6))
