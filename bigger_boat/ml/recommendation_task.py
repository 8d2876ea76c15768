"""The recommendation task from data set to bundle: fit, evaluate, compare, fit again on all days, golden answers.

What belongs elsewhere: the models (``knn_recommender.py``, ``prod2vec.py``), metrics, the gate's rules.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from bigger_boat.data.split_files import read_split
from bigger_boat.data.vocabulary import SPLITS
from bigger_boat.ml.baselines import Markov, Popularity, SequentialRules, SessionPopularity
from bigger_boat.ml.bundle import Bundle, write_bundle
from bigger_boat.ml.gate import Comparison, GateCheck, check_recommendation_baselines
from bigger_boat.ml.golden import events_of, golden_examples
from bigger_boat.ml.item_sequences import ItemVocabulary
from bigger_boat.ml.knn_recommender import KnnConfig, KnnModel, fit_knn
from bigger_boat.ml.prod2vec import Prod2VecConfig, ProductEmbeddings, train_prod2vec
from bigger_boat.ml.ranking import EventSession, Ranker
from bigger_boat.ml.recommender_evaluation import evaluate, leaderboard

KIND = "knn"

BASELINES = (Popularity, SessionPopularity, Markov, SequentialRules)
"""Fitted on the same days and evaluated beside every recommender; the gate asks for the first two to be beaten."""


class RecommendationTask:
    """The task on one data set. ``folder``: a published ``recommendation_dataset``."""

    name = "recommendation"

    def __init__(self, folder: Path):
        self.folder = folder

    def items(self, *splits: str) -> list[list[str]]:
        """Return the products of each session, in row order."""
        return [items for split in splits for items in read_split(self.folder, split, ["items"])["items"].to_list()]

    @cached_property
    def train(self) -> list[list[str]]:
        return self.items("train")

    @cached_property
    def validation(self) -> pl.DataFrame:
        return read_split(self.folder, "validation")

    @staticmethod
    def configuration_of(prod2vec: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was chosen before fitting: two bundles of equal configuration differ by their data only."""
        return {"kind": KIND, "prod2vec": dict(prod2vec)}

    def fit(self, embeddings: ProductEmbeddings) -> tuple[KnnModel, dict[str, Any]]:
        """Return the model, its blend chosen on validation, and that choice."""
        model = fit_knn(embeddings, validation=self.validation["items"].to_list())
        return model, model.config.as_dict()

    def fit_configuration(self, configuration: Mapping[str, Any]) -> tuple[KnnModel, dict[str, Any]]:
        """Fit another version's configuration on the training days, embeddings included."""
        return self.fit(train_prod2vec(self.train, Prod2VecConfig(**configuration["prod2vec"])))

    def refit(self, configuration: Mapping[str, Any], chosen: Mapping[str, float]) -> KnnModel:
        """Fit on all days, embeddings included, with the blend that was chosen: nothing is chosen anew."""
        embeddings = train_prod2vec(self.items(*SPLITS), Prod2VecConfig(**configuration["prod2vec"]))
        return fit_knn(embeddings, KnnConfig(**chosen))

    def load(self, bundle: Bundle) -> Ranker:
        """Return a bundle's model through the graph that serves; products new to the training days are misses."""
        from bigger_boat.ml.recommender_export import SavedModelRanker

        return SavedModelRanker(bundle.saved_model, ItemVocabulary.of(self.train), bundle.kind)

    def scores(self, model: Ranker, split: str) -> dict[str, dict]:
        """Return the metrics of the model, as ``KIND``, and of the baselines on every next product of a split."""
        rankers = (model, *(baseline.fit(self.train) for baseline in BASELINES))
        rows = leaderboard([evaluate(ranker, self.items(split)) for ranker in rankers])
        return {KIND if row["recommender"] == model.name else row["recommender"]: row for row in rows}

    @staticmethod
    def baseline_checks(scores: Mapping[str, Mapping]) -> list[GateCheck]:
        """Judge ``scores``: popularity, overall and within the session, must be beaten."""
        mrr = {name: row["mrr"] for name, row in scores.items()}
        return check_recommendation_baselines(mrr[KIND], mrr["popularity"], mrr["session_popularity"])

    def compare(self, candidate: Ranker, incumbent: Ranker, after: date | None = None) -> Comparison | None:
        """Compare in MRR@20 on the validation days after ``after``; None where there is nothing to predict."""
        frame = self.validation if after is None else self.validation.filter(pl.col("session_date") > after)
        sessions = frame["items"].to_list()
        new, old = evaluate(candidate, sessions), evaluate(incumbent, sessions)
        if not len(new.reciprocal_ranks):
            return None
        days = frame["session_date"].n_unique()
        return Comparison("MRR@20", new.metrics["mrr"], old.metrics["mrr"], new.mrr_above(old), days)

    def write(self, root: Path, model: KnnModel, info: Mapping[str, Any]) -> Bundle:
        """Write the bundle under ``root``; golden requests are sessions of the validation days."""
        from bigger_boat.ml.recommender_export import export_knn

        several = self.validation.filter(pl.col("items").list.len() > 1)
        asked = [events_of(*row) for row in several["item_actions", "items", "item_timestamps_ms"].head(40).rows()]

        def answer(sessions: Sequence[list[dict]], k: int, exclude_seen: bool) -> list[dict]:
            lists = [EventSession([e["action"] for e in one], [e.get("sku", "") for e in one]) for one in sessions]
            return model.offline_predictions(lists, k, exclude_seen)

        return write_bundle(
            root,
            name=self.name,
            kind=KIND,
            export=lambda directory: export_knn(model, directory),
            golden=golden_examples(asked, answer),
            info=dict(info),
        )
