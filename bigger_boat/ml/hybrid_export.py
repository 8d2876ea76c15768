"""The LSTM and the hybrid inside a TensorFlow graph: the scores of ``lstm_recommender.py``, ``hybrid_recommender.py``.

What belongs elsewhere: the rules around the scores (``recommender_export.py``).
"""

from dataclasses import fields
from pathlib import Path

import numpy as np

from bigger_boat.errors import TrainingError
from bigger_boat.ml.hybrid_recommender import NEAR_DECAY, PARTS, PRIORS, SEEN, SHARES, SMALLEST_SHARE, HybridModel
from bigger_boat.ml.item_losses import IMPOSSIBLE
from bigger_boat.ml.item_sequences import ItemVocabulary
from bigger_boat.ml.lstm_network import NEAR_DECAY as LSTM_NEAR_DECAY
from bigger_boat.ml.lstm_recommender import LstmModel, LstmWeights
from bigger_boat.ml.recommender_export import export_recommender
from bigger_boat.ml.repeat_calibration import RepeatCalibration
from bigger_boat.ml.repeats import REPEAT_CLASSES
from bigger_boat.ml.session_index import IndexConfig, SessionIndex
from bigger_boat.ml.time_gaps import GAP_EDGES_S, NO_GAP

ARRAYS = tuple(one.name for one in fields(LstmWeights) if one.name != "item_bias")
"""What is kept of an LSTM beside the columns of ``export_lstm``, which hold the bias of the items."""


def export_lstm(model: LstmModel, directory: Path) -> None:
    """Write ``model`` as a SavedModel (serving_default, strings in, SKUs and scores out) into ``directory``."""
    import tensorflow as tf

    queries = _Queries(model.weights)
    # columns are products, with the bias as one more coordinate, times 1: one product of matrices
    columns = constant(np.vstack([model.weights.item_vectors.T, model.weights.item_bias]), "vectors_and_bias")

    def scores(rows, ages, times_ms):
        recent, times_ms = recent_first(rows, ages, times_ms)
        recent, gaps = recent[:, : model.longest], gap_buckets(times_ms)[:, : model.longest]
        query = queries(recent, gaps)
        plain = tf.matmul(tf.concat([query, tf.ones_like(query[:, :1])], axis=1), columns)
        return _calibrated(model.repeats, tf.tensor_scatter_nd_add(plain, *queries.returns(recent)), recent)

    export_recommender(model, scores, [columns, *queries.variables], directory)


def export_hybrid(model: HybridModel, directory: Path) -> None:
    """Write ``model`` as a SavedModel (serving_default, strings in, SKUs and scores out) into ``directory``."""
    import tensorflow as tf

    weights = model.lstm.weights
    queries, index = _Queries(weights), _Index(model.index, len(model.vocabulary))
    columns = np.vstack([weights.item_vectors.T, weights.item_bias, model.priors.T])
    columns = constant(columns, "vectors_bias_and_priors")
    units = constant(model.unit_vectors, "unit_vectors")
    log_counts, trust_in = constant(model.log_counts, "log_counts"), constant(model.weights, "weights")

    def scores(rows, ages, times_ms):
        recent, times_ms = recent_first(rows, ages, times_ms)
        trust = tf.matmul(_context(recent, log_counts), trust_in)
        part = {name: trust[:, place] for place, name in enumerate(PARTS)}
        short = recent[:, : model.lstm.longest]
        fade = tf.pow(NEAR_DECAY, tf.cast(tf.range(tf.shape(short)[1]), tf.float32)) * tf.cast(short >= 0, tf.float32)
        near = tf.einsum("bt,btd->bd", fade, tf.gather(units, tf.maximum(short, 0)))
        lstm = part["lstm"][:, None]
        query = lstm * queries(short, gap_buckets(times_ms)[:, : model.lstm.longest]) + part["near"][:, None] * near
        plain = tf.matmul(tf.concat([query, lstm, *(part[name][:, None] for name in PRIORS)], axis=1), columns)
        width = len(model.vocabulary)
        places, worth = queries.returns(short)
        worth *= tf.gather(part["lstm"], places[:, 0])
        returns = places[:, 0] * width + places[:, 1], worth
        found = [index.weighted(recent, part), _seen(recent, part, width), returns]
        cells, values = (tf.concat(each, axis=0) for each in zip(*found, strict=True))
        return plain + tf.reshape(tf.math.unsorted_segment_sum(values, cells, tf.size(plain)), tf.shape(plain))

    variables = [columns, units, log_counts, trust_in, *queries.variables, *index.variables]
    export_recommender(model, scores, variables, directory)


def load_lstm(directory: Path, longest: int) -> LstmModel:
    """Return the network that ``export_lstm`` wrote into ``directory``, as it was; its returns are not calibrated.

    TrainingError if older code wrote it.
    """
    import tensorflow as tf

    loaded = tf.saved_model.load(str(directory))
    if len(loaded.variables_of_scores) != 1 + len(ARRAYS):
        raise TrainingError(
            f"Expected the {1 + len(ARRAYS)} arrays of an LSTM in {directory} and found "
            f"{len(loaded.variables_of_scores)}: an earlier version of the code wrote it.",
            "Materialize lstm_recommender again, then hybrid_recommender.",
        )
    columns, *arrays = (variable.numpy() for variable in loaded.variables_of_scores)
    vocabulary = ItemVocabulary([name.decode() for name in loaded.names.numpy()[:-1]], loaded.counts.numpy())
    weights = LstmWeights(item_bias=columns[-1], **dict(zip(ARRAYS, arrays, strict=True)))
    return LstmModel(vocabulary, weights, longest)


def constant(array: np.ndarray, name: str):
    """Return an array as a variable of the graph: kept beside it, once."""
    import tensorflow as tf

    return tf.Variable(array, trainable=False, name=name)


def recent_first(rows, ages, times_ms):
    """Return rows int32 and times int64 (B, T), last item first, -1 on the right, from items at their places."""
    import tensorflow as tf

    behind = tf.where(ages >= 0, ages, tf.shape(ages)[1])
    order = tf.argsort(behind, axis=1, stable=True)
    width = tf.maximum(1, tf.reduce_max(tf.concat([tf.reshape(ages, [-1]), [0]], axis=0)) + 1)
    return tuple(tf.gather(one, order, batch_dims=1)[:, :width] for one in (rows, times_ms))


def gap_buckets(times_ms):
    """Return ``time_gaps.gap_buckets`` as TensorFlow operations."""
    import tensorflow as tf

    later, earlier = times_ms[:, :-1], times_ms[:, 1:]
    seconds = tf.maximum(later - earlier, 0) // 1000
    found = 1 + tf.raw_ops.Bucketize(input=seconds, boundaries=list(map(float, GAP_EDGES_S)))
    return tf.pad(tf.where((later >= 0) & (earlier >= 0), found, NO_GAP), [[0, 0], [0, 1]], constant_values=NO_GAP)


def _context(recent, log_counts):
    import tensorflow as tf

    seen = tf.cast(tf.math.count_nonzero(recent >= 0, axis=1), tf.float32)
    last = tf.gather(log_counts, tf.maximum(recent[:, 0], 0))
    return tf.stack([tf.ones_like(seen), 1 / tf.maximum(seen, 1), last], axis=1)


def _first_places(recent):
    import tensorflow as tf

    earlier = tf.linalg.band_part(tf.ones([tf.shape(recent)[1]] * 2), -1, 0) - tf.eye(tf.shape(recent)[1])
    same = (recent[:, :, None] == recent[:, None, :]) & (earlier > 0)
    return (recent >= 0) & ~tf.reduce_any(same, axis=2)


def _calibrated(repeats: RepeatCalibration, logits, recent):
    """``RepeatCalibration.applied`` as TensorFlow operations."""
    import tensorflow as tf

    where = tf.where(_first_places(recent))
    owners, classes = where[:, 0], tf.minimum(where[:, 1], REPEAT_CLASSES - 1)
    places = tf.stack([owners, tf.cast(tf.gather_nd(recent, where), tf.int64)], axis=1)
    own = tf.gather_nd(logits, places)
    others = tf.tensor_scatter_nd_update(logits, places, tf.fill(tf.shape(own), tf.constant(IMPOSSIBLE, tf.float32)))
    total = tf.gather(tf.reduce_logsumexp(others, axis=1), owners)
    offset, slope = (tf.gather(each, classes) for each in (repeats.offset, repeats.slope))
    calibrated = total + offset + slope * (own - total)
    return tf.tensor_scatter_nd_update(logits, places, tf.where(total > IMPOSSIBLE / 2, calibrated, own))


def _seen(recent, part, width: int):
    """Return flat cells of (B, V) and what the places where products were seen add to them."""
    import tensorflow as tf

    first = _first_places(recent)
    by_age = tf.stack([part[name] for name in SEEN[:4]], axis=1)
    where = tf.where(first)
    owners, ages = where[:, 0], where[:, 1]
    rows = tf.gather_nd(recent, where)
    times = tf.reduce_sum(tf.cast((recent[:, :, None] == recent[:, None, :]), tf.float32), axis=2)
    again = tf.math.log(tf.gather_nd(times, where)) * tf.gather(part[SEEN[4]], owners)
    values = tf.gather_nd(by_age, tf.stack([owners, tf.minimum(ages, 3)], axis=1)) + again
    return owners * width + tf.cast(rows, tf.int64), values


class _Queries:
    """``LstmWeights.queries`` as TensorFlow operations on histories and their gaps (B, T), last item first."""

    def __init__(self, weights: LstmWeights):
        self.units = len(weights.recurrent)
        self.learned = {name: constant(getattr(weights, name), name) for name in ARRAYS}

    @property
    def variables(self) -> list:
        """What has to be kept beside the graph, in the order of ``ARRAYS``."""
        return list(self.learned.values())

    def __call__(self, recent, gaps):
        import tensorflow as tf

        own = self.learned
        lengths = tf.cast(tf.math.count_nonzero(recent >= 0, axis=1), tf.int32)
        rows, gaps = (tf.reverse_sequence(one, lengths, seq_axis=1) for one in (tf.maximum(recent, 0), gaps))
        fade = tf.pow(LSTM_NEAR_DECAY, tf.cast(tf.range(tf.shape(recent)[1]), tf.float32))
        fade *= tf.cast(recent >= 0, tf.float32)
        vectors = own["item_vectors"]
        around = own["near"] * tf.einsum("bt,btd->bd", fade, tf.gather(vectors, tf.maximum(recent, 0)))
        inputs = tf.gather(vectors, rows) + tf.gather(own["gap_vectors"], gaps)
        steps = tf.transpose(tf.tensordot(inputs, own["kernel"], 1) + own["bias"], [1, 0, 2])

        def step(number, state, cell):
            gates = steps[number] + tf.matmul(state, own["recurrent"])
            go, keep, new, put = tf.split(gates, 4, axis=1)
            next_cell = tf.sigmoid(keep) * cell + tf.sigmoid(go) * tf.tanh(new)
            inside = (number < lengths)[:, None]
            next_state = tf.sigmoid(put) * tf.tanh(next_cell)
            return number + 1, tf.where(inside, next_state, state), tf.where(inside, next_cell, cell)

        zeros = tf.zeros([tf.shape(recent)[0], self.units])
        longest = tf.reduce_max(tf.concat([lengths, [0]], axis=0))
        _, state, _ = tf.while_loop(lambda number, *_: number < longest, step, (0, zeros, zeros))
        return tf.matmul(state, own["projection"]) + own["projection_bias"] + around

    def returns(self, recent):
        """Return the places int64 (n, 2) in (B, V) of the products of ``recent``, and what a return is worth there."""
        import tensorflow as tf

        where = tf.where(_first_places(recent))
        classes = tf.minimum(where[:, 1], REPEAT_CLASSES - 1)
        rows = tf.cast(tf.gather_nd(recent, where), tf.int64)
        return tf.stack([where[:, 0], rows], axis=1), tf.gather(self.learned["repeats"], classes)


class _Index:
    """``SessionIndex.parts``, weighed: only the cells of (B, V) that a neighbour or a rule names are touched."""

    def __init__(self, index: SessionIndex, width: int):
        self.config, self.width, self.count = index.config, width, len(index.items)
        arrays = ("items", "inverse_sizes", "sessions_of", "places", "session_offsets")
        rules = ("consequents", "rule_weights", "rule_offsets")
        self.variables = [constant(_never_empty(getattr(index, name)), name) for name in (*arrays, *rules)]

    def weighted(self, recent, part):
        """Return flat cells int64 of (B, V) and what neighbours and rules add to them, ``part``: weights (B,)."""
        import tensorflow as tf

        recent = recent[:, : self.config.longest]
        found = []
        for names, (cells, values) in ((SHARES[:2], self._neighbours(recent)), (SHARES[2:], self._rules(recent))):
            named, place = tf.unique(cells)
            sums = tf.math.unsorted_segment_sum(values, place, tf.size(named))
            owners = named // self.width
            totals = tf.math.unsorted_segment_sum(sums, owners, tf.shape(recent)[0])
            logs = tf.math.log1p(sums / tf.gather(totals, owners) / SMALLEST_SHARE)
            weights = tf.gather(tf.stack([part[name] for name in names], axis=1), owners)
            found.append((named, tf.reduce_sum(logs * weights, axis=1)))
        return tuple(tf.concat(each, axis=0) for each in zip(*found, strict=True))

    def _neighbours(self, recent):
        """Return flat cells (n,) of (B, V) and values (n, 2) of ``beside`` and ``behind``, to be summed by cell."""
        import tensorflow as tf

        config = self.config
        items, inverse_sizes, sessions_of, places, session_offsets, *_ = self.variables
        owners, ages, flat, asked = _asked(session_offsets, recent, _first_places(recent))
        keys = tf.gather(owners, asked) * self.count + tf.cast(tf.gather(sessions_of, flat), tf.int64)
        unique, inverse = tf.unique(keys)
        number = tf.size(unique)
        real_ages = tf.cast(tf.gather(ages, asked), tf.float32)
        similarity = tf.math.unsorted_segment_sum(tf.exp(-real_ages / config.position_decay), inverse, number)
        nearest = tf.cast(tf.gather(ages, asked), tf.int32) * config.items_per_session + tf.gather(places, flat)
        nearest = tf.math.unsorted_segment_min(nearest, inverse, number)
        age, place = nearest // config.items_per_session, nearest % config.items_per_session
        pair_owners, sessions = unique // self.count, unique % self.count
        weights = tf.square(similarity) * tf.gather(inverse_sizes, sessions)
        weights *= tf.exp(-tf.cast(age, tf.float32) / config.match_decay)
        rows = tf.reshape(tf.gather(items, sessions), [-1])
        held = tf.cast(tf.where(rows >= 0)[:, 0], tf.int32)  # most sessions are shorter than the table is wide
        pair, step = held // config.items_per_session, held % config.items_per_session
        way = tf.gather(_ways(config), step - tf.gather(place, pair) + config.items_per_session)
        weights = tf.gather(weights, pair)
        cells = tf.gather(pair_owners, pair) * self.width + tf.cast(tf.gather(rows, held), tf.int64)
        return cells, tf.stack([weights, weights * way], axis=1)

    def _rules(self, recent):
        """Return flat cells (n,) of (B, V) and values (n, 1) of ``rules``, to be summed by cell."""
        import tensorflow as tf

        *_, consequents, rule_weights, rule_offsets = self.variables
        owners, ages, flat, asked = _asked(rule_offsets, recent, recent >= 0)
        fade = tf.pow(self.config.rules_decay, tf.cast(tf.gather(ages, asked), tf.float32))
        cells = tf.gather(owners, asked) * self.width + tf.cast(tf.gather(consequents, flat), tf.int64)
        return cells, (tf.gather(rule_weights, flat) * fade)[:, None]


def _ways(config: IndexConfig) -> np.ndarray:
    """Return what ``behind`` counts of an item so many steps behind the shared one, from -items_per_session on."""
    steps = np.arange(-config.items_per_session, config.items_per_session)
    apart = np.maximum(np.abs(steps) - 1, 0)
    return (np.where(steps > 0, 1.0, config.before) * np.exp(-apart / config.distance)).astype(np.float32)


def _asked(offsets, recent, chosen):
    """Return owner and age int64 of the chosen items, the flat indices of their slices, and whose each index is."""
    import tensorflow as tf

    where = tf.where(chosen)
    rows = tf.gather_nd(recent, where)
    slices = tf.ragged.range(tf.gather(offsets, rows), tf.gather(offsets, rows + 1))
    return where[:, 0], where[:, 1], slices.values, slices.value_rowids()


def _never_empty(array: np.ndarray) -> np.ndarray:
    """A shop without rules still needs something to gather nothing from."""
    return array if array.size else np.zeros((1, *array.shape[1:]), array.dtype)
