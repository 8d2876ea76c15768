"""The same yardstick on anyone's clicks: the ladder of simple methods and our recommenders on one split, in one table.

session-rec's protocol: sessions split by the time of their last click, products that training lacks left out of the
test sessions, and then every next click of every test session predicted from those before it. What belongs elsewhere:
reading files (``data/session_files.py``), the methods (one file each), the platform's own leaderboard
(``recommendation_task.py``).
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from bigger_boat.data.session_files import ClickSessions
from bigger_boat.data.vocabulary import MISSING_TIMESTAMP_MS
from bigger_boat.errors import DatasetError
from bigger_boat.ml import metrics
from bigger_boat.ml.baselines import Markov, Popularity, Prod2VecLast, Prod2VecMean, SequentialRules, SessionPopularity
from bigger_boat.ml.hybrid_recommender import HybridConfig, HybridModel, fit_hybrid
from bigger_boat.ml.intervals import mean_interval, paired_interval
from bigger_boat.ml.item_sequences import TimedSequences
from bigger_boat.ml.knn_recommender import KnnModel, fit_knn
from bigger_boat.ml.lstm_recommender import LstmConfig, LstmModel, fit_lstm
from bigger_boat.ml.network_fitting import Fitted
from bigger_boat.ml.prod2vec import Prod2VecConfig, ProductEmbeddings, train_prod2vec
from bigger_boat.ml.prodb_recommender import ProdbConfig, ProdbModel, fit_prodb
from bigger_boat.ml.ranking import Ranker
from bigger_boat.ml.recommender_evaluation import RecommenderEvaluation, evaluate
from bigger_boat.ml.session_neighbours import SKNN, VSKNN, VSTAN

CUTOFF = 20
TEST_SHARE = 0.15
"""Of the sessions, by time: the last for testing; of the rest again the last for a candidate's own choices."""

MEASURES = ("hit_rate", "mrr", "ndcg")
PEERS = ("popularity", "vsknn", "vstan", "knn_recommender")
"""What a candidate is compared with, prediction by prediction."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done so far, of how many)."""


def split_by_time(sessions: ClickSessions) -> tuple[ClickSessions, ClickSessions]:
    """Return the first sessions and the last ``TEST_SHARE``, one each at least. DatasetError on less than two."""
    if len(sessions) < 2:
        raise DatasetError(
            f"Two sessions at least are needed to split by time, and there is {len(sessions)}.", "Give more clicks."
        )
    start = len(sessions) - max(1, round(TEST_SHARE * len(sessions)))
    return sessions.part(None, start), sessions.part(start, None)


def sequences_of(sessions: ClickSessions) -> TimedSequences:
    """Return the sessions with the times of their clicks, as models take them."""
    times_ms = np.full(sessions.clicks, MISSING_TIMESTAMP_MS) if sessions.times_ms is None else sessions.times_ms
    return TimedSequences(sessions.items, times_ms)


class Benchmark:
    """One split. ``methods`` names what can be fitted; ``run`` fits and evaluates them, one after the other."""

    def __init__(
        self,
        train: ClickSessions,
        test: ClickSessions,
        prod2vec: Prod2VecConfig | None = None,
        lstm: LstmConfig | None = None,
        hybrid: HybridConfig | None = None,
        prodb: ProdbConfig | None = None,
    ):
        self.train = train
        self.prod2vec = prod2vec or Prod2VecConfig.full()
        self.lstm = lstm or LstmConfig.full()
        self.hybrid = hybrid or HybridConfig.full()
        self.prodb = prodb or ProdbConfig.full()
        known = {item for items in train.items for item in items}
        kept = sequences_of(test).of_known(known)
        self.test = kept.longer_than(1)
        self.unknown_clicks = test.clicks - sum(map(len, kept))
        self.items = len(known)
        if not self.test:
            raise DatasetError(
                "No test session has two clicks on products of the training sessions.",
                "Give more clicks, or a test file of the same shop.",
            )

    @property
    def ladder(self) -> dict[str, Callable[[], Ranker]]:
        """Published methods, each with its published parameters: nothing is tuned."""
        items = self.train.items
        return {
            "popularity": lambda: Popularity.fit(items),
            "session_popularity": lambda: SessionPopularity.fit(items),
            "prod2vec_mean": lambda: Prod2VecMean(self.embeddings),
            "prod2vec_last": lambda: Prod2VecLast(self.embeddings),
            "markov": lambda: Markov.fit(items),
            "sequential_rules": lambda: SequentialRules.fit(items),
            "sknn": lambda: SKNN.fit(items),
            "vsknn": lambda: VSKNN.fit(items),
            "vstan": lambda: VSTAN.fit(items, ended_s=self.train.ended_s),
        }

    @property
    def candidates(self) -> dict[str, Callable[[], Ranker]]:
        """Our recommenders; what they choose, they choose on the last training sessions."""
        return {
            "knn_recommender": self._fit_knn,
            "lstm_recommender": lambda: self._lstm,
            "prodb_recommender": self._fit_prodb,
            "hybrid_recommender": self._fit_hybrid,
        }

    @cached_property
    def embeddings(self) -> ProductEmbeddings:
        return train_prod2vec(self.train.items, self.prod2vec)

    @cached_property
    def _parts(self) -> tuple[ClickSessions, ClickSessions]:
        """The training sessions: what a candidate is first fitted on, and what it chooses on."""
        return split_by_time(self.train)

    @cached_property
    def _earlier_embeddings(self) -> ProductEmbeddings:
        return train_prod2vec(self._parts[0].items, self.prod2vec)

    def _fit_knn(self) -> KnnModel:
        return fit_knn(self.embeddings, fit_knn(self._earlier_embeddings, validation=self._parts[1].items).config)

    @cached_property
    def _earlier_lstm(self) -> Fitted:
        earlier, later = self._parts
        validation = sequences_of(later)
        return fit_lstm(sequences_of(earlier), self._earlier_embeddings, self.lstm, validation=validation)

    @cached_property
    def _lstm(self) -> LstmModel:
        sequences = sequences_of(self.train)
        earlier = self._earlier_lstm
        return fit_lstm(sequences, self.embeddings, self.lstm, epochs=earlier.epochs, **earlier.also).model

    def _fit_prodb(self) -> ProdbModel:
        earlier, later = map(sequences_of, self._parts)
        epochs = fit_prodb(earlier, self._earlier_embeddings, self.prodb, validation=later).epochs
        return fit_prodb(sequences_of(self.train), self.embeddings, self.prodb, epochs=epochs).model

    def _fit_hybrid(self) -> HybridModel:
        earlier, later = self._parts
        chosen = fit_hybrid(earlier.items, self._earlier_lstm.model, self.hybrid, sequences_of(later)).weights
        return HybridModel.of(self.train.items, self._lstm, self.hybrid, chosen)

    def run(
        self,
        candidates: bool = True,
        progress: Progress | None = None,
        seed: int = 0,
        only: Sequence[str] | None = None,
    ) -> dict:
        """Return ``split`` (what was read), ``results`` (a row per method) and ``differences`` (candidates to peers).

        ``only`` names the methods to measure, by default all; a difference needs both sides.

        A row holds each of ``MEASURES`` at ``CUTOFF`` with bootstrap bounds, coverage, popularity bias and CPU seconds.
        """
        methods = self.ladder | (self.candidates if candidates else {})
        methods = {name: fit for name, fit in methods.items() if only is None or name in only}
        evaluations: dict[str, RecommenderEvaluation] = {}
        results = []
        for done, (name, fit) in enumerate(methods.items()):
            if progress:
                progress(name, done, len(methods))
            started = time.process_time()
            evaluations[name] = evaluate(fit(), self.test, CUTOFF)
            row = {"recommender": name, "kind": "ladder" if name in self.ladder else "candidate"}
            results.append(row | _measures(evaluations[name], seed) | {"cpu_s": time.process_time() - started})
        differences = [
            _difference(name, peer, evaluations, seed)
            for name in methods
            if name in self.candidates
            for peer in PEERS
            if peer != name and peer in methods
        ]
        return {"k": CUTOFF, "split": self._split(), "results": results, "differences": differences}

    def _split(self) -> dict[str, int]:
        test_clicks = sum(map(len, self.test))
        return {
            "training_sessions": len(self.train),
            "training_clicks": self.train.clicks,
            "items": self.items,
            "test_sessions": len(self.test),
            "test_clicks_of_unknown_items": self.unknown_clicks,
            "predictions": test_clicks - len(self.test),
        }


def _values(evaluation: RecommenderEvaluation) -> dict:
    ranks = (evaluation.hits / evaluation.reciprocal_ranks.clip(1e-9)).round()
    return {"hit_rate": evaluation.hits, "mrr": evaluation.reciprocal_ranks, "ndcg": metrics.ndcg(ranks)}


def _measures(evaluation: RecommenderEvaluation, seed: int) -> dict[str, float]:
    row: dict[str, float] = {}
    for name, values in _values(evaluation).items():
        interval = mean_interval(values, evaluation.sessions, seed=seed)
        row |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return row | {name: evaluation.metrics[name] for name in ("coverage", "popularity_bias")}


def _difference(name: str, peer: str, evaluations: Mapping[str, RecommenderEvaluation], seed: int) -> dict:
    ours, theirs = _values(evaluations[name]), _values(evaluations[peer])
    row: dict = {"recommender": name, "peer": peer}
    for measure in MEASURES:
        interval = paired_interval(ours[measure], theirs[measure], evaluations[name].sessions, seed=seed)
        row |= {measure: interval.value, f"{measure}_low": interval.low, f"{measure}_high": interval.high}
    return row


def write_result(result: Mapping, path: Path) -> None:
    """Write the result of ``Benchmark.run`` as JSON, whole or not at all. Raises DatasetError if it cannot."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DatasetError(f"{path} cannot be written: {error.strerror}.", "Name a file in your folder.") from error


def report(result: Mapping) -> str:
    """Return the result of ``Benchmark.run`` as text: what was read, the table, the differences."""
    split = result["split"]
    lines = [
        f"{split['training_clicks']:,} clicks of {split['training_sessions']:,} training sessions on "
        f"{split['items']:,} items; {split['predictions']:,} predictions in {split['test_sessions']:,} test sessions "
        f"({split['test_clicks_of_unknown_items']:,} test clicks on items new to training left out).",
        "",
    ]
    head = (f"at {result['k']}", "HR (95 % interval)", "MRR (95 % interval)", "NDCG (95 % interval)", "CPU s")
    rows = [
        (row["recommender"], *(_interval(row, name) for name in MEASURES), f"{row['cpu_s']:.1f}")
        for row in result["results"]
    ]
    lines += [*_aligned([head, *rows]), ""]
    for row in result["differences"]:
        parts = [f"{name} {_interval(row, name, '+')}" for name in ("hit_rate", "mrr")]
        lines.append(f"{row['recommender']} minus {row['peer']}: {', '.join(parts)}")
    return "\n".join(lines).rstrip()


def _interval(row: Mapping, name: str, sign: str = "") -> str:
    value, low, high = (format(row[key], f"{sign}.4f") for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value} ({low} to {high})"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
