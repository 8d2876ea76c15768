"""The kNN recommender as a TensorFlow SavedModel that needs none of our code, and a ranker around any such model.

What belongs here: the item rules, exclusion, fallback and top-k inside the graph. What does not: the scores' meaning
(``knn_recommender.py``), the files around the SavedModel (``bundle.py``).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bigger_boat.data.vocabulary import MISSING_TIMESTAMP_MS
from bigger_boat.ml.item_sequences import UNKNOWN_ROW, ItemVocabulary
from bigger_boat.ml.knn_recommender import KnnModel
from bigger_boat.ml.ranking import EXCLUDED, Ranker

_BLOCK = 256
_FEWEST_BLOCKS = 16
"""With fewer blocks than this, cutting costs more than it saves."""


def export_knn(model: KnnModel, directory: Path) -> None:
    """Write ``model`` as a SavedModel (serving_default, strings in, SKUs and scores out) into ``directory``."""
    import tensorflow as tf

    config = model.config
    prior = np.float32(config.popularity_weight) * model.log_popularity
    # One matrix product gives cosine plus prior: the prior is one more coordinate, times 1. Columns are products,
    # which the product of a batch with 66,000 of them takes half the time for.
    columns = tf.Variable(np.vstack([model.unit_vectors.T, prior]), trainable=False, name="unit_vectors_and_prior")

    def scores(rows, ages, times_ms):  # noqa: ARG001  (when does not matter here)
        """Rows and ages int32 (B, T), -1 where there is no item; returns float32 (B, V)."""
        known = rows >= 0
        age = tf.cast(tf.maximum(ages, 0), tf.float32)
        weights = tf.where(known, tf.pow(tf.constant(config.decay, tf.float32), age), 0.0)
        items = tf.gather(columns, tf.maximum(rows, 0), axis=1)[:-1]  # (D, B, T)
        query = tf.einsum("bt,dbt->bd", weights, items)
        squares = tf.reduce_sum(tf.square(query), axis=-1, keepdims=True)
        query = query / tf.sqrt(tf.maximum(squares, 1e-12))
        earlier = config.revisit_bonus * tf.pow(tf.constant(config.revisit_decay, tf.float32), tf.maximum(age - 1, 0))
        bonus = tf.where(ages == 0, config.last_bonus, earlier)
        plain = tf.matmul(tf.concat([query, tf.ones_like(squares)], axis=1), columns)
        return tf.tensor_scatter_nd_add(plain, _places(rows, known), tf.boolean_mask(bonus, known))

    export_recommender(model, scores, [columns], directory)


def export_recommender(model: Ranker, scores: Callable, variables: list, directory: Path) -> None:
    """Write any scoring function as a SavedModel of the recommendation contract.

    ``scores(rows, ages, times_ms)`` is traced by TensorFlow: int32, int32, int64 (B, T), items at their places, -1
    elsewhere and where a time is not known, age 0 the last item; it returns float32 (B, V). Around it the graph keeps
    the rules of ``session_items`` and ``Ranker``: a detail that a click opened is one item with it, unknown products
    are dropped, no item means ``model.fallback``.
    """
    import tensorflow as tf

    vocabulary, module = model.vocabulary, tf.Module()
    module.variables_of_scores = variables
    keys, rows = tf.constant(vocabulary.skus), tf.range(len(vocabulary), dtype=tf.int32)
    module.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, rows), default_value=-1)
    module.names = tf.Variable([*vocabulary.skus, ""], trainable=False, name="skus")
    module.counts = tf.Variable(vocabulary.counts, trainable=False, name="counts")
    order = np.argsort(-model.fallback, kind="stable").astype(np.int32)
    module.fallback_order = tf.Variable(order, trainable=False, name="fallback_order")
    module.fallback_scores = tf.Variable(model.fallback[order], trainable=False, name="fallback_scores")

    @tf.function(input_signature=_signature())
    def serve(actions, skus, timestamps_ms, k, exclude_seen):
        unknown = (skus != "") & (module.table.lookup(skus) < 0)
        times_ms = _one_wider(timestamps_ms, tf.constant(MISSING_TIMESTAMP_MS, tf.int64))
        item_rows, ages, times_ms = _known_items(module.table, _one_wider(actions, ""), _one_wider(skus, ""), times_ms)
        fallback = tf.logical_not(tf.reduce_any(item_rows >= 0, axis=1))
        lowest = tf.float32.min
        seen = _places(item_rows, exclude_seen & (item_rows >= 0))
        values = tf.tensor_scatter_nd_update(
            scores(item_rows, ages, times_ms), seen, tf.fill(tf.shape(seen)[:1], lowest)
        )
        count = tf.clip_by_value(k, 0, len(vocabulary))
        top, order = _top_k(values, count, len(vocabulary))
        top = tf.where(fallback[:, None], module.fallback_scores[None, :count], top)
        order = tf.where(fallback[:, None], module.fallback_order[None, :count], order)
        allowed = top > lowest
        return {
            "skus": tf.gather(module.names, tf.where(allowed, order, len(vocabulary))),
            "scores": tf.where(allowed, top, 0.0),
            "fallback": fallback,
            "unknown": unknown,
        }

    module.serve = serve
    tf.saved_model.save(module, str(directory), signatures={"serving_default": serve})


def _signature() -> list:
    import tensorflow as tf

    events = [None, None]
    return [
        tf.TensorSpec(events, tf.string, name="actions"),
        tf.TensorSpec(events, tf.string, name="skus"),
        tf.TensorSpec(events, tf.int64, name="timestamps_ms"),
        tf.TensorSpec([], tf.int32, name="k"),
        tf.TensorSpec([], tf.bool, name="exclude_seen"),
    ]


def _top_k(values, k, width: int):
    """``tf.math.top_k`` of float32 (B, ``width``), ties included, for a third of its time where rows are wide.

    Columns are cut into blocks. A block with one of the k highest values is one of the k blocks with the highest maxima
    (ties: the first ones), so only those are sorted through. Kept in their order, they leave ties to the lower column.
    """
    import tensorflow as tf

    blocks = -(-width // _BLOCK)
    if blocks < _FEWEST_BLOCKS:
        return tf.math.top_k(values, k=k)
    padding = [[0, 0], [0, blocks * _BLOCK - width]]
    cut = tf.reshape(tf.pad(values, padding, constant_values=-np.inf), [-1, blocks, _BLOCK])
    _, chosen = tf.math.top_k(tf.reduce_max(cut, axis=2), k=tf.minimum(k, blocks))
    chosen = tf.sort(chosen, axis=1)
    count = tf.shape(chosen)[1] * _BLOCK  # a batch of no sessions does not tell
    top, places = tf.math.top_k(tf.reshape(tf.gather(cut, chosen, batch_dims=1), [-1, count]), k=k)
    return top, tf.gather(chosen, places // _BLOCK, batch_dims=1) * _BLOCK + places % _BLOCK


def _places(rows, chosen):
    """Return (session, row) of the chosen items, int64 (n, 2), to scatter into (B, V)."""
    import tensorflow as tf

    return tf.stack([tf.where(chosen)[:, 0], tf.cast(tf.boolean_mask(rows, chosen), tf.int64)], axis=1)


def _one_wider(values, filling):
    """Append a column of ``filling``, so that no batch has width 0."""
    import tensorflow as tf

    return tf.concat([values, tf.fill([tf.shape(values)[0], 1], filling)], axis=1)


def _known_items(table, actions, skus, times_ms):
    """Return rows, ages int32 and times of known items (B, T), moved to the left in their order; -1 elsewhere."""
    import tensorflow as tf

    is_item = ((actions == "detail") | (actions == "click")) & (skus != "")
    order = tf.argsort(tf.cast(~is_item, tf.int32), axis=1, stable=True)
    moved = (tf.gather(one, order, batch_dims=1) for one in (is_item, skus, actions, times_ms))
    is_item, skus, actions, times_ms = moved
    same_as_before = (skus[:, 1:] == skus[:, :-1]) & (actions[:, :-1] == "click") & (actions[:, 1:] == "detail")
    opened_by_click = tf.pad(same_as_before, [[0, 0], [1, 0]])
    found = table.lookup(skus)
    known = is_item & ~opened_by_click & (found >= 0)
    ages = tf.cumsum(tf.cast(known, tf.int32), axis=1, exclusive=True, reverse=True)
    nothing = tf.constant(MISSING_TIMESTAMP_MS, tf.int64)
    return tf.where(known, found, -1), tf.where(known, ages, -1), tf.where(known, times_ms, nothing)


class SavedModelRanker(Ranker):
    """A recommender that ``export_recommender`` wrote, as a ``Ranker``: evaluated through the graph that serves."""

    def __init__(self, directory: Path, vocabulary: ItemVocabulary | None = None, name: str = "served"):
        """Load the SavedModel in ``directory``.

        ``vocabulary`` says which products an evaluation knows, by default those that the model was trained with. With
        another one, a product that only the model knows keeps its place in a list as row -1, and is never a hit.
        """
        import tensorflow as tf

        self.name = name
        self._model = tf.saved_model.load(str(directory))
        self._serve = self._model.signatures["serving_default"]
        self.vocabulary = vocabulary or self._own_vocabulary()

    def _own_vocabulary(self) -> ItemVocabulary:
        names = [name.decode() for name in self._model.names.numpy()[:-1]]
        return ItemVocabulary(names, self._model.counts.numpy())

    def batch_size(self) -> int:
        return min(256, super().batch_size())

    def scores(self, recent: np.ndarray) -> np.ndarray:
        return self.scores_in_time(recent, np.full(recent.shape, MISSING_TIMESTAMP_MS))

    def scores_in_time(self, recent: np.ndarray, times_ms: np.ndarray) -> np.ndarray:
        """Return the scores of ``vocabulary``; a product that the model does not know has the lowest there is."""
        rows, values = self._ask(recent, times_ms, int(self._model.counts.shape[0]), exclude_seen=False)
        scores = np.full((len(recent), len(self.vocabulary) + 1), EXCLUDED, dtype=np.float32)
        np.put_along_axis(scores, rows, values, axis=1)
        return scores[:, :-1]

    def rank_rows(
        self, recent: np.ndarray, k: int = 20, exclude_seen: bool = False, times_ms: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        times_ms = np.full(recent.shape, MISSING_TIMESTAMP_MS) if times_ms is None else times_ms
        rows, values = self._ask(recent, times_ms, k, exclude_seen)
        width = min(k, len(self.vocabulary))
        missing = ((0, 0), (0, max(0, width - rows.shape[1])))
        padded = np.pad(rows, missing, constant_values=UNKNOWN_ROW), np.pad(values, missing)
        return padded[0][:, :width], padded[1][:, :width]

    def _ask(
        self, recent: np.ndarray, times_ms: np.ndarray, k: int, exclude_seen: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and scores (B, min(k, V of the model)) as the graph answers."""
        import tensorflow as tf

        skus = self.vocabulary.sku_array[recent[:, ::-1]].astype(str)
        answer = self._serve(
            actions=tf.constant(np.where(skus == "", "", "detail")),
            skus=tf.constant(skus),
            timestamps_ms=tf.constant(times_ms[:, ::-1].astype(np.int64)),
            k=tf.constant(k, tf.int32),
            exclude_seen=tf.constant(exclude_seen),
        )
        rows = self.vocabulary.rows
        served = [[rows.get(sku.decode(), UNKNOWN_ROW) for sku in ranked] for ranked in answer["skus"].numpy()]
        return np.array(served, dtype=np.int32).reshape(answer["skus"].shape), answer["scores"].numpy()
