"""What an intent model must beat: the base rate, and models on session counts, which cannot see order.

What belongs here: baselines with ``fit`` on a frame of ``intent_dataset`` and ``predict``. What does not: the LSTM.
Another classifier on the same counts is one more function like ``logistic_regression`` and ``gradient_boosting``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from bigger_boat.errors import TrainingError
from bigger_boat.ml.intent_features import count_features

BOOSTING = {"learning_rate": 0.05, "max_iter": 200, "max_leaf_nodes": 15, "min_samples_leaf": 40, "random_state": 0}
"""Small trees, slowly, and the same trees every time."""

STRENGTH = 1.0
"""Inverse of the regularisation; on standardised counts its choice hardly matters."""


@dataclass(frozen=True)
class BaseRate:
    """The share of buyers among the training examples of the same cut, for all; other cuts get the overall share."""

    overall: float
    by_cut: dict[int, float]

    @classmethod
    def fit(cls, train: pl.DataFrame) -> "BaseRate":
        """Count buyers; raises TrainingError without rows."""
        if train.is_empty():
            raise TrainingError("A base rate needs training examples; there are none.", "Land days with carts.")
        shares = train.group_by("cut").agg(pl.col("label").mean())
        return cls(float(train["label"].mean()), dict(zip(shares["cut"], shares["label"], strict=True)))

    def predict(self, frame: pl.DataFrame) -> np.ndarray:
        """Return the probability of a purchase, float64 (rows,)."""
        return np.array([self.by_cut.get(cut, self.overall) for cut in frame["cut"]], dtype=np.float64)


@dataclass(frozen=True)
class CountsModel:
    """A scikit-learn classifier on ``count_features``."""

    name: str
    classifier: Any

    def predict(self, frame: pl.DataFrame) -> np.ndarray:
        """Return the probability of a purchase, float64 (rows,)."""
        if frame.is_empty():
            return np.zeros(0)
        return self.classifier.predict_proba(_tamed(count_features(frame)))[:, 1]


def logistic_regression(train: pl.DataFrame) -> CountsModel:
    """Fit logistic regression on standardised log counts and the cut. Raises TrainingError with one class only."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=1000))
    return fit_counts("logistic_regression", classifier, train)


def gradient_boosting(train: pl.DataFrame) -> CountsModel:
    """Fit boosted trees (scikit-learn's histograms) on the same counts. Raises TrainingError with one class only."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return fit_counts("gradient_boosting", HistGradientBoostingClassifier(**BOOSTING, early_stopping=False), train)


def fit_counts(name: str, classifier: Any, train: pl.DataFrame) -> CountsModel:
    """Fit any scikit-learn classifier on the counts of ``train``."""
    labels = train["label"].to_numpy() if train.height else np.zeros(0, dtype=bool)
    if len(np.unique(labels)) < 2:
        raise TrainingError(
            f"Expected examples that buy and examples that do not; {int(labels.sum())} of {len(labels)} buy.",
            "Land more days, or days with more carts.",
        )
    return CountsModel(name, classifier.fit(_tamed(count_features(train)), labels))


def _tamed(counts: np.ndarray) -> np.ndarray:
    """Counts and seconds have long tails: log(1 + x)."""
    return np.log1p(counts)
