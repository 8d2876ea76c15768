"""The recommendation task from data set to bundle: fit, evaluate, compare, fit again on all days, golden answers.

What belongs elsewhere: the models, and how each kind is fitted (``recommender_kinds.py``), metrics, the gate's rules.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bigger_boat.data.split_files import read_split, sample_rows
from bigger_boat.data.vocabulary import MISSING_TIMESTAMP_MS, SPLITS
from bigger_boat.ml.baselines import Markov, Popularity, SequentialRules, SessionPopularity
from bigger_boat.ml.behaviour import behave, slices
from bigger_boat.ml.bundle import Bundle, write_bundle
from bigger_boat.ml.catalogue import Products
from bigger_boat.ml.gate import Comparison, GateCheck, check_recommendation_baselines, check_steadiness
from bigger_boat.ml.golden import events_of, golden_examples
from bigger_boat.ml.item_sequences import ItemVocabulary, TimedSequences
from bigger_boat.ml.network_fitting import Fitted
from bigger_boat.ml.openings import judge_openings, openings
from bigger_boat.ml.prod2vec import Prod2VecConfig, ProductEmbeddings, train_prod2vec
from bigger_boat.ml.ranking import EventSession, Ranker
from bigger_boat.ml.recommender_evaluation import RecommenderEvaluation, evaluate, leaderboard
from bigger_boat.ml.recommender_kinds import KINDS, FitData, Progress, current
from bigger_boat.ml.session_neighbours import SKNN, VSKNN, VSTAN

PRODUCTS_FILE = "products.parquet"

BASELINES = (Popularity, SessionPopularity, Markov, SequentialRules)
"""Fitted on the same days and evaluated beside every recommender; the gate asks for the first two to be beaten."""

NEIGHBOURS = (SKNN, VSKNN, VSTAN)
"""The published methods to beat; slower, and so in the leaderboard alone."""

CANDIDATES = {f"{kind}_recommender": kind for kind in KINDS}
"""The name of each recommender's asset, and its kind."""


class RecommendationTask:
    """The task on one data set. ``folder``: a published ``recommendation_dataset``.

    ``checkpoints`` gives the folder in which a training of this configuration keeps its last epoch. ``most_sessions``
    bounds what scores are measured on: a sample of so many sessions of a split, the same for every recommender.
    """

    name = "recommendation"

    def __init__(self, folder: Path, checkpoints: Callable[..., Path] | None = None, most_sessions: int | None = None):
        self.folder = folder
        self.on_epoch: Progress | None = None
        self._checkpoints = checkpoints
        self._most_sessions = most_sessions

    def items(self, *splits: str) -> TimedSequences:
        """Return the products of each session, in row order, with their times."""
        columns = ["items", "item_timestamps_ms"]
        return timed(pl.concat([read_split(self.folder, split, columns) for split in splits]))

    def judged(self, split: str) -> TimedSequences:
        """Return the sessions of a split that scores are measured on: all with a next item, or a sample of them."""
        return timed(self._judged(split))

    def _judged(self, split: str) -> pl.DataFrame:
        frame = read_split(self.folder, split).filter(pl.col("items").list.len() > 1)
        return sample_rows(frame, self._most_sessions)

    @cached_property
    def train(self) -> TimedSequences:
        return self.items("train")

    @cached_property
    def validation(self) -> pl.DataFrame:
        return read_split(self.folder, "validation")

    @cached_property
    def products(self) -> Products:
        """What the catalogue says, published beside the sessions."""
        frame = pl.read_parquet(self.folder / PRODUCTS_FILE)
        return Products({row.pop("sku"): row for row in frame.iter_rows(named=True)})

    @cached_property
    def baselines(self) -> list[Ranker]:
        """The simple methods, fitted on the training days."""
        return [baseline.fit(self.train) for baseline in BASELINES]

    def fit(
        self, configuration: Mapping[str, Any], embeddings: ProductEmbeddings, lstm: Fitted | None = None
    ) -> tuple[Ranker, dict[str, Any]]:
        """Return the model fitted on the training days, and what was chosen on validation.

        ``embeddings``, and ``lstm`` if there is one already, are of the same days and configuration.
        """
        validation = timed(self.validation)
        data = self._data("fit", self.train, embeddings, configuration, validation)
        model, chosen = KINDS[configuration["kind"]].fit(data, configuration, lstm)
        return opened(model, self.train), chosen

    @staticmethod
    def current(configuration: Mapping[str, Any]) -> dict[str, Any]:
        """Return another version's configuration as this code writes it."""
        return current(configuration)

    def fit_configuration(self, configuration: Mapping[str, Any]) -> tuple[Ranker, dict[str, Any]]:
        """Fit another version's configuration on the training days, embeddings included."""
        return self.fit(configuration, train_prod2vec(self.train, Prod2VecConfig(**configuration["prod2vec"])))

    def refit(self, configuration: Mapping[str, Any], chosen: Mapping[str, Any]) -> Ranker:
        """Fit on all days, embeddings included, with the epochs and blend that were chosen: nothing is chosen anew."""
        everything = self.items(*SPLITS)
        embeddings = train_prod2vec(everything, Prod2VecConfig(**configuration["prod2vec"]))
        data = self._data("refit", everything, embeddings, configuration, None)
        return opened(KINDS[configuration["kind"]].refit(data, configuration, chosen), everything)

    def _data(self, what, sequences, embeddings, configuration, validation) -> FitData:
        kept, network = None, next((name for name in ("lstm", "prodb") if name in configuration), None)
        if self._checkpoints and network:
            place = self._checkpoints(what, self.folder.name, embeddings.digest, configuration[network])
            kept = place / f"{network}.npz"
        return FitData(sequences, embeddings, validation, self.products, kept, self.on_epoch)

    def load(self, bundle: Bundle) -> Ranker:
        """Return a bundle's model through the graph that serves; the catalogue names products new to training."""
        from bigger_boat.ml.recommender_export import SavedModelRanker

        vocabulary = self.products.with_new(ItemVocabulary.of(self.train))
        return SavedModelRanker(bundle.saved_model, vocabulary, bundle.kind)

    def scores(self, model: Ranker, split: str) -> dict[str, dict]:
        """Return the metrics of the model, by its kind, and of the baselines on every next product of a split."""
        sessions = self.judged(split)
        return by_name([evaluate(ranker, sessions) for ranker in (model, *self.baselines)])

    def slices(self, model: Ranker, split: str) -> list[dict]:
        """Return how good the model is on parts of a split: by length, popularity, hour and category."""
        frame = self._judged(split)
        sessions = timed(frame)
        hours, catalogue = frame["started_at"].dt.hour().to_list(), self.products.of(model.vocabulary)
        return slices(model.vocabulary, sessions, evaluate(model, sessions), catalogue, hours)

    def openings(self, split: str) -> list[dict]:
        """Return how good the answers to sessions without a product yet are: their first products are to be found.

        They are no part of the other scores. Beside them stands popularity.
        """
        vocabulary, sessions = ItemVocabulary.of(self.train), self.items(split)
        priors = {"first products of late": openings(self.train, vocabulary), "popularity": vocabulary.popularity}
        return [{"answer": name, **judge_openings(prior, vocabulary, sessions)} for name, prior in priors.items()]

    def behaviour(self, model: Ranker) -> dict[str, float | None]:
        """Return how the model behaves on changed validation sessions; None where nothing could be asked."""
        found = behave(model, self.judged("validation"), self.products.of(model.vocabulary))
        return {name: value if np.isfinite(value) else None for name, value in found.items()}

    def neighbours(self) -> list[Ranker]:
        """Return the published session neighbours, fitted on the training days."""
        times = read_split(self.folder, "train", ["item_timestamps_ms"])["item_timestamps_ms"]
        ended_s = (times.list.last() / 1000).to_list()
        return [method.fit(self.train, ended_s=ended_s) for method in NEIGHBOURS]

    @staticmethod
    def checks(metrics: Mapping[str, Mapping]) -> list[GateCheck]:
        """Judge the metrics of one model: it beats popularity, overall and within the session, and is steady."""
        mrr = {name: row["mrr"] for name, row in metrics["validation"].items()}
        own = next(value for name, value in mrr.items() if name in KINDS)
        baselines = check_recommendation_baselines(own, mrr["popularity"], mrr["session_popularity"])
        behaviour = metrics.get("behaviour", {})
        overlaps = {change: behaviour.get(f"overlap_{change}") for change in ("repeated", "removed")}
        return [*baselines, check_steadiness(overlaps)]

    def compare(self, candidate: Ranker, incumbent: Ranker, after: date | None = None) -> Comparison | None:
        """Compare in MRR@20 on the validation days after ``after``; None where there is nothing to predict."""
        frame = self.validation if after is None else self.validation.filter(pl.col("session_date") > after)
        sessions = timed(frame)
        new, old = evaluate(candidate, sessions), evaluate(incumbent, sessions)
        if not len(new.reciprocal_ranks):
            return None
        days = frame["session_date"].n_unique()
        return Comparison("MRR@20", new.metrics["mrr"], old.metrics["mrr"], new.mrr_above(old), days)

    def write(self, root: Path, model: Ranker, info: Mapping[str, Any]) -> Bundle:
        """Write the bundle under ``root``; golden requests are sessions of the validation days."""
        kind = info["configuration"]["kind"]
        several = self.validation.filter(pl.col("items").list.len() > 1)
        asked = [events_of(*row) for row in several["item_actions", "items", "item_timestamps_ms"].head(40).rows()]

        def answer(sessions: Sequence[list[dict]], k: int, exclude_seen: bool) -> list[dict]:
            return model.offline_predictions([_event_session(one) for one in sessions], k, exclude_seen)

        return write_bundle(
            root,
            name=self.name,
            kind=kind,
            export=lambda directory: KINDS[kind].export(model, directory),
            golden=golden_examples(asked, answer),
            info=dict(info),
        )


def opened(model: Ranker, sequences: TimedSequences) -> Ranker:
    """Tell the model what sessions begin with."""
    model.opening = openings(sequences, model.vocabulary)
    return model


def timed(frame: pl.DataFrame) -> TimedSequences:
    """Return the items of each row of the data set, with their times."""
    times_ms = frame["item_timestamps_ms"].explode(empty_as_null=False).fill_null(MISSING_TIMESTAMP_MS)
    return TimedSequences(frame["items"].to_list(), times_ms.cast(pl.Int64).to_numpy())


def _event_session(events: Sequence[Mapping[str, Any]]) -> EventSession:
    """Return events of the contract as aligned lists."""
    actions, skus = [event["action"] for event in events], [event.get("sku", "") for event in events]
    return EventSession(actions, skus, [event.get("timestamp_ms", MISSING_TIMESTAMP_MS) for event in events])


def by_name(evaluations: Sequence[RecommenderEvaluation]) -> dict[str, dict]:
    """Return the rows of the leaderboard by name, best first; a candidate goes by its kind."""
    rows = leaderboard(evaluations)
    return {CANDIDATES.get(row["recommender"], row["recommender"]): row for row in rows}
