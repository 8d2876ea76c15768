"""The intent task from data set to bundle: fit, evaluate, compare, fit again on all days, golden answers.

What belongs elsewhere: the model (``intent_model.py``), metrics, the gate's rules.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from bigger_boat.data.split_files import read_split
from bigger_boat.data.vocabulary import SPLITS
from bigger_boat.ml.bundle import Bundle, write_bundle
from bigger_boat.ml.configurations import plain
from bigger_boat.ml.gate import Comparison, GateCheck, check_intent_baseline
from bigger_boat.ml.golden import events_of, golden_examples
from bigger_boat.ml.intent_baselines import BaseRate, gradient_boosting, logistic_regression
from bigger_boat.ml.intent_metrics import intent_report, pr_auc
from bigger_boat.ml.intent_model import IntentChoice, IntentConfig, IntentModel, fit_intent, refit
from bigger_boat.ml.intent_training import OnEpoch
from bigger_boat.ml.intervals import statistic_interval
from bigger_boat.ml.prod2vec import Prod2VecConfig, ProductEmbeddings, train_prod2vec
from bigger_boat.ml.recommendation_task import RecommendationTask

KIND = "lstm"


class Predicts(Protocol):
    """Probability of a purchase, float64 (N,), for rows of ``intent_dataset``."""

    def predict(self, sessions: pl.DataFrame) -> np.ndarray: ...


class IntentTask:
    """The task on one data set. ``folder``: a published ``intent_dataset``; ``items``: the sessions for Prod2Vec.

    ``checkpoints`` gives the folder in which a training of this configuration keeps its last epoch.
    """

    name = "intent"

    def __init__(
        self,
        folder: Path,
        items: RecommendationTask | None = None,
        checkpoints: Callable[..., Path] | None = None,
    ):
        self.folder = folder
        self._items = items
        self._checkpoints = checkpoints or (lambda *_: None)
        self.on_epoch: OnEpoch | None = None

    @cached_property
    def train(self) -> pl.DataFrame:
        return read_split(self.folder, "train")

    @cached_property
    def validation(self) -> pl.DataFrame:
        return read_split(self.folder, "validation")

    @staticmethod
    def configuration_of(config: IntentConfig, prod2vec: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was chosen before fitting: two bundles of equal configuration differ by their data only."""
        return plain({"kind": KIND, "model": asdict(config), "prod2vec": prod2vec})

    @classmethod
    def current(cls, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """Return another version's configuration as this code writes it: options that are gone are left out."""
        config = IntentConfig.from_dict(configuration["model"])
        return cls.configuration_of(config, asdict(Prod2VecConfig(**configuration["prod2vec"])))

    def fit(self, embeddings: ProductEmbeddings, config: IntentConfig) -> tuple[IntentModel, dict[str, Any]]:
        """Return the model fitted on the training days, and what was chosen on validation."""
        kept = self._checkpoints("fit", self.folder.name, embeddings.digest, asdict(config))
        model = fit_intent(self.train, self.validation, embeddings, config, checkpoint_dir=kept, on_epoch=self.on_epoch)
        return model, model.choice.as_dict()

    def fit_configuration(self, configuration: Mapping[str, Any]) -> tuple[IntentModel, dict[str, Any]]:
        """Fit another version's configuration on the training days, embeddings included."""
        embeddings = train_prod2vec(self._items.train, Prod2VecConfig(**configuration["prod2vec"]))
        return self.fit(embeddings, IntentConfig.from_dict(configuration["model"]))

    def refit(self, configuration: Mapping[str, Any], chosen: Mapping[str, Any]) -> IntentModel:
        """Fit on all days, embeddings included, with the epochs and calibration that were chosen."""
        embeddings = train_prod2vec(self._items.items(*SPLITS), Prod2VecConfig(**configuration["prod2vec"]))
        everything = pl.concat([read_split(self.folder, split) for split in SPLITS])
        kept = self._checkpoints("refit", self.folder.name, embeddings.digest, chosen)
        choice = IntentChoice.from_dict(dict(chosen))
        return refit(choice, everything, embeddings, checkpoint_dir=kept, on_epoch=self.on_epoch)

    def load(self, bundle: Bundle) -> Predicts:
        """Return a bundle's model through the graph that serves."""
        from bigger_boat.ml.intent_export import SavedIntentModel

        return SavedIntentModel(bundle.saved_model)

    def predictions(self, model: Predicts, split: str) -> tuple[pl.DataFrame, dict[str, np.ndarray]]:
        """Return a split, and the probabilities of the model (``KIND``) and of baselines fitted on training days."""
        frame = read_split(self.folder, split)
        models = {
            KIND: model,
            "logistic_regression": logistic_regression(self.train),
            "gradient_boosting": gradient_boosting(self.train),
            "base_rate": BaseRate.fit(self.train),
        }
        return frame, {name: one.predict(frame) for name, one in models.items()}

    def scores(self, model: Predicts, split: str) -> dict[str, dict]:
        """Return the reports of the model, as ``KIND``, and of the baselines on a split."""
        return reports_of(*self.predictions(model, split))

    @staticmethod
    def checks(metrics: Mapping[str, Mapping]) -> list[GateCheck]:
        """Judge the metrics of one model: the PR-AUC of a constant answer, the base rate, must be beaten."""
        pooled = metrics["validation"][KIND]["pooled"]
        return check_intent_baseline(pooled["pr_auc"], pooled["base_rate"])

    def compare(self, candidate: Predicts, incumbent: Predicts, after: date | None = None) -> Comparison | None:
        """Compare in PR-AUC on the validation days after ``after``, by whole sessions; None with one class only."""
        frame = self.validation if after is None else self.validation.filter(pl.col("session_date") > after)
        labels = frame["label"].to_numpy()
        if not labels.any() or labels.all():
            return None
        new, old = candidate.predict(frame), incumbent.predict(frame)

        def difference(rows: np.ndarray) -> float:
            return pr_auc(labels[rows], new[rows]) - pr_auc(labels[rows], old[rows])

        sessions = frame.select(pl.struct("session_id", "session_date").rank("dense")).to_series().to_numpy()
        days = frame["session_date"].n_unique()
        interval = statistic_interval(difference, sessions)
        return Comparison("PR-AUC", pr_auc(labels, new), pr_auc(labels, old), interval, days)

    def write(self, root: Path, model: IntentModel, info: Mapping[str, Any]) -> Bundle:
        """Write the bundle under ``root``; golden requests are sessions of the validation days."""
        from bigger_boat.ml.intent_export import export_intent

        asked = [events_of(*row) for row in self.validation["actions", "skus", "timestamps_ms"].head(40).rows()]
        return write_bundle(
            root,
            name=self.name,
            kind=KIND,
            export=lambda directory: export_intent(model, directory),
            golden=golden_examples(asked, lambda sessions, *_: model.offline_predictions(sessions)),
            info=dict(info),
        )


def reports_of(frame: pl.DataFrame, predictions: Mapping[str, np.ndarray]) -> dict[str, dict]:
    """Return the report of each model's probabilities on ``frame``, as plain numbers."""
    labels, cuts = frame["label"].to_numpy(), frame["cut"].to_numpy()
    return {name: intent_report(labels, probabilities, cuts).as_dict() for name, probabilities in predictions.items()}


def summary(rows: list[dict]) -> str:
    """Return what ``report_rows`` says in short: PR-AUC by model."""
    return "PR-AUC " + ", ".join(f"{row['model'].replace('_', ' ')} {row['pr_auc']:.3f}" for row in rows)


def report_rows(scores: Mapping[str, Mapping]) -> list[dict]:
    """Return a row per model: the pooled scores and the challenge's metric."""
    return [
        {
            "model": name,
            **{k: v for k, v in each["pooled"].items() if k != "cut"},
            "micro_f1": each["weighted_micro_f1"],
        }
        for name, each in scores.items()
    ]
