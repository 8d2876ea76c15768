"""The recommendation task on a small published data set: from sessions to the chosen bundle, and again on all days."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from bigger_boat.ml.golden import compare_golden
from bigger_boat.ml.hybrid_export import load_lstm
from bigger_boat.ml.hybrid_recommender import HybridConfig
from bigger_boat.ml.lstm_recommender import LstmConfig
from bigger_boat.ml.network_fitting import Fitted
from bigger_boat.ml.prod2vec import Prod2VecConfig, train_prod2vec
from bigger_boat.ml.prodb_recommender import ProdbConfig
from bigger_boat.ml.ranking import EventSession
from bigger_boat.ml.recommendation_task import BASELINES, RecommendationTask
from bigger_boat.ml.recommender_choice import choose, measure
from bigger_boat.ml.recommender_kinds import KINDS, configuration_of

pytestmark = pytest.mark.slow  # four LSTMs; tests/assets/test_recommenders.py takes the same way in the fast tier

FIRST = date(2026, 10, 1)
PLACES = 40
PROD2VEC = {"dim": 8, "window": 2, "epochs": 2}
LSTM = LstmConfig(units=8, epochs=2, batch_size=64, learning_rate=2e-2)
PRODB = ProdbConfig(units=8, layers=1, epochs=2, batch_size=64, learning_rate=2e-2)
HYBRID = HybridConfig(judged_predictions=200)


def sessions(count, days, seed):
    """Walks around a ring of products, and back: a session's next product follows from its last two."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        day = FIRST + timedelta(days=days[number * len(days) // count])
        place, items = int(generator.integers(PLACES)), []
        for _ in range(generator.integers(1, 7)):
            items.append(f"p{place:02d}" if len(items) < 2 or generator.random() < 0.8 else items[-2])
            place = (place + int(generator.integers(1, 3))) % PLACES
        started = datetime(day.year, day.month, day.day, 9, tzinfo=UTC) + timedelta(seconds=number)
        times = [int(started.timestamp() * 1000) + 30_000 * step for step in range(len(items))]
        yield (f"s{number}", day, started.replace(tzinfo=None), items, times, ["detail"] * len(items))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recommendation_dataset")
    columns = ["session_id", "session_date", "started_at", "items", "item_timestamps_ms", "item_actions"]
    for seed, (split, count, days) in enumerate(
        [("train", 500, [0, 1, 2]), ("validation", 120, [3]), ("test", 120, [4])]
    ):
        pl.DataFrame(list(sessions(count, days, seed)), schema=columns, orient="row").write_parquet(
            folder / f"{split}.parquet"
        )
    skus = [f"p{place:02d}" for place in range(PLACES)] + ["new"]
    known = {"category": [f"c{place // 5}" for place in range(PLACES + 1)], "price_bucket": [3] * (PLACES + 1)}
    pl.DataFrame({"sku": skus, **known}).write_parquet(folder / "products.parquet")
    return folder


@pytest.fixture(scope="module")
def candidates(folder, tmp_path_factory):
    """A bundle of each kind, as the assets write them: the hybrid is built around the LSTM's bundle."""
    task, bundles = RecommendationTask(folder), {}
    embeddings = train_prod2vec(task.train, Prod2VecConfig(**PROD2VEC))
    for kind in KINDS:
        parts = {"lstm": {"lstm": LSTM}, "prodb": {"prodb": PRODB}, "hybrid": {"lstm": LSTM, "hybrid": HYBRID}}
        parts = parts.get(kind, {})
        configuration, lstm = configuration_of(kind, PROD2VEC, **parts), None
        if kind == "hybrid":
            trained = bundles["lstm"]
            lstm = Fitted(load_lstm(trained.saved_model, LSTM.longest), trained.info["chosen"]["epochs"])
        model, chosen = task.fit(configuration, embeddings, lstm)
        scores = task.scores(model, "validation")
        metrics = {"validation": scores, "behaviour": task.behaviour(model)}
        info = {"configuration": configuration, "chosen": chosen, "metrics": metrics}
        bundles[kind] = task.write(tmp_path_factory.mktemp(kind), model, info)
    return bundles


def test_every_kind_is_a_bundle_that_passes_the_gate(candidates):
    for kind, bundle in candidates.items():
        assert bundle.kind == bundle.info["configuration"]["kind"] == kind
        scores = bundle.info["metrics"]["validation"]
        assert set(scores) == {kind, *(baseline.name for baseline in BASELINES)}
        checks = {check.name: check for check in RecommendationTask.checks(bundle.info["metrics"])}
        assert set(checks) == {"beats_popularity", "beats_session_popularity", "lists_are_steady"}
        assert all(check.passed for check in checks.values()), (kind, checks)


def test_the_choice_is_made_on_validation_and_says_why(folder, candidates):
    task = RecommendationTask(folder)
    models = {kind: task.load(bundle) for kind, bundle in candidates.items()}
    choice = choose(task, models)
    assert set(choice.validation) == {*KINDS, *(baseline.name for baseline in BASELINES)}
    assert f"{choice.kind} is chosen." in choice.sentence
    assert "against" in choice.sentence
    assert "[" in choice.sentence
    mrr = {kind: row["mrr"] for kind, row in choice.validation.items() if kind in KINDS}
    assert mrr[choice.kind] == max(mrr.values()) or "not clearly better" in choice.sentence
    alone = choose(task, {"knn": models["knn"]})
    assert (alone.kind, alone.sentence) == ("knn", "It is the only candidate.")

    sample = RecommendationTask(folder, most_sessions=40)
    tables = measure(sample, models, "test")
    assert set(tables) == {"test", "test_without_repeats"}
    for table in tables.values():
        assert {*KINDS, "popularity", "session_popularity", "sequential_rules", "sknn", "vsknn", "vstan"} <= set(table)
        assert len({row["predictions"] for row in table.values()}) == 1
    repeats, onward = (next(iter(table.values()))["predictions"] for table in tables.values())
    assert 0 < onward < repeats


def test_the_hybrid_fitted_again_on_all_days_keeps_epochs_and_weights(folder, candidates, tmp_path):
    task, info = RecommendationTask(folder), candidates["hybrid"].info
    assert info["chosen"]["epochs"] == candidates["lstm"].info["chosen"]["epochs"]
    model = task.refit(info["configuration"], info["chosen"])
    assert len(model.index.items) > 500  # training alone has fewer sessions of two products
    assert model.weights[:, 0].tolist() == pytest.approx(info["chosen"]["weights"]["beside"], abs=1e-6)
    bundle = task.write(tmp_path, model, info)
    served = task.load(bundle)
    history = ["p03", "p05", "new"]
    offline = model.offline_predictions([EventSession(["detail"] * 3, history)], k=10)
    skus, scores = served.rank([history], k=10)
    answered = [{**offline[0], "skus": skus[0].tolist(), "scores": scores[0].tolist()}]
    assert compare_golden(offline, answered) == []


def test_a_configuration_of_another_version_is_fitted_on_the_training_days(folder, candidates):
    task = RecommendationTask(folder)
    configuration = configuration_of("lstm", PROD2VEC, lstm=replace(LSTM, epochs=1, units=4))
    rival, chosen = task.fit_configuration(configuration)
    assert chosen["epochs"] == 1
    again = task.refit(configuration, chosen)
    assert again.repeats.as_dict() == chosen["repeats"], "calibrated as it was chosen on validation"
    comparison = task.compare(task.load(candidates["lstm"]), rival)
    assert comparison.days == 1
    assert comparison.interval.low < comparison.interval.value < comparison.interval.high
