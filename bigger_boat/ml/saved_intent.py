"""Any exported intent model, to be evaluated through the very graph that serves. Its counterpart for recommenders is
``recommender_export.SavedModelRanker``."""

from pathlib import Path

import numpy as np
import polars as pl

from bigger_boat.data.vocabulary import MISSING_TIMESTAMP_MS

BATCH = 512


class SavedIntentModel:
    """A SavedModel of the intent contract."""

    def __init__(self, directory: Path):
        import tensorflow as tf

        self._model = tf.saved_model.load(str(directory))  # owns the signature's variables
        self._serve = self._model.signatures["serving_default"]

    def predict(self, frame: pl.DataFrame) -> np.ndarray:
        """Return the probability of a purchase, float64 (N,), of rows with actions, skus and timestamps_ms."""
        import tensorflow as tf

        columns = frame["actions"].to_list(), frame["skus"].to_list(), frame["timestamps_ms"].to_list()
        order = np.argsort([len(actions) for actions in columns[0]], kind="stable")
        answers = np.zeros(frame.height)
        for start in range(0, frame.height, BATCH):
            rows = order[start : start + BATCH]
            width = max([1, *(len(columns[0][row]) for row in rows)])
            actions, skus, times = (
                [[*column[row], *[pad] * (width - len(column[row]))] for row in rows]
                for column, pad in zip(columns, ("", "", MISSING_TIMESTAMP_MS), strict=True)
            )
            answer = self._serve(
                actions=tf.constant(actions), skus=tf.constant(skus), timestamps_ms=tf.constant(times, tf.int64)
            )
            answers[rows] = answer["purchase_probability"].numpy()
        return answers
