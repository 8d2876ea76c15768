"""From landed events to the answers of a real server, and the numbers of the default shop."""

import json
from collections import Counter
from urllib.parse import quote

import numpy as np
import polars as pl
import pytest

from bigger_boat.data.split_files import read_split
from bigger_boat.ml.bundle import read_bundle
from bigger_boat.ml.prod2vec import Prod2VecConfig, train_prod2vec
from bigger_boat.serving import client

SPLITS = ("train", "validation", "test")
INTENT = "start,view,detail,add,view,end"


def test_a_run_says_what_it_made(snapshot):
    said = (snapshot / "said.txt").read_text()
    assert "8 tables by day (2026-10-01 to 2026-10-28), 15 other assets to make." in said
    for made in ("sessions                     28 days  27,000 rows", "knn_recommender", "prediction_api"):
        assert f"✓ {made}" in said
    assert "Traceback" not in said


def test_every_training_is_recorded_with_its_bundle(snapshot, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{snapshot}/mlflow/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("bigger-boat").experiment_id])
    by_asset = {run.info.run_name: run for run in runs}
    models = {"intent_model", "knn_recommender", "intent_champion", "recommendation_champion"}
    assert by_asset.keys() >= {*models, "product_embeddings"}
    assert {run.info.status for run in runs} == {"FINISHED"}
    for name in models:
        bundle = read_bundle(snapshot / by_asset[name].data.tags["bundle"])
        assert by_asset[name].data.tags["git_commit"] == bundle.info["git_commit"]
        for dataset, version in bundle.info["data_versions"].items():
            assert by_asset[name].data.tags[f"data.{dataset}"] == version
    intent = by_asset["intent_model"]
    chosen = read_bundle(snapshot / intent.data.tags["bundle"]).info
    epochs = client.get_metric_history(intent.info.run_id, "validation_log_loss")
    assert min(epochs, key=lambda epoch: epoch.value).step == chosen["chosen"]["epochs"]
    assert intent.data.metrics["validation.lstm.auc"] == chosen["metrics"]["validation"]["lstm"]["pooled"]["auc"]
    assert intent.data.params["model.units"] == str(chosen["configuration"]["model"]["units"])


def test_intent_answers_as_the_contract_says(live):
    answer = client.ask(live.url, f"/predict?x={INTENT}")
    assert set(answer) == {"prediction", "model", "version", "request_id", "time", "unknown_actions"}
    assert 0 < answer["prediction"] < 1
    assert (answer["model"], answer["version"]) == ("lstm", live.current("intent"))
    events = [{"action": action} for action in ("pageview", "detail", "add", "view")]
    posted = client.ask(live.url, "/v1/intent", json.dumps({"sessions": [events]}).encode())
    assert posted["predictions"][0]["purchase_probability"] == pytest.approx(answer["prediction"], abs=1e-6)
    others = {client.ask(live.url, f"/predict?x={x}")["prediction"] for x in ("view,add,view", "add,remove,view")}
    assert len({*others, answer["prediction"]}) == 3


def test_recommendations_stand_in_the_order_of_scores_computed_apart(live):
    """Prod2Vec and the formula of ``knn_recommender.py`` from the data set's files: no graph, no server, no ranker."""
    folder, info = live.folder("recommendation_dataset"), read_bundle(live.folder("recommendation_champion")).info
    sessions = [items for split in SPLITS for items in read_split(folder, split, ["items"])["items"].to_list()]
    scores_of = offline_scores(sessions, info["configuration"]["prod2vec"], info["chosen"])
    asked = [items for items in sessions if len(items) >= 3][-30:]
    body = {"sessions": asked, "k": 20}
    answer = client.post_invocations(live.url, "recommendation", body)
    assert answer["version"] == live.current("recommendation")
    for items, prediction in zip(asked, answer["predictions"], strict=True):
        skus, scores = scores_of(items)
        assert not prediction["fallback"]
        assert not prediction["unknown_skus"]
        assert_same_ranking(dict(zip(skus, scores, strict=True)), prediction["skus"], prediction["scores"])
    first, second = asked[0][:2]
    short = client.ask(live.url, f"/predict?session={quote(first)},{quote(second)}")
    assert set(short) == {"prediction", "model", "version", "request_id", "time", "fallback", "unknown_skus"}
    skus, scores = scores_of([first, second])
    assert_same_ranking(dict(zip(skus, scores, strict=True)), short["prediction"])


def offline_scores(sessions, prod2vec, chosen):
    """Return a function from items to (all SKUs, their scores float64 (V,))."""
    counts = Counter(item for items in sessions for item in items)
    skus = sorted(counts, key=lambda sku: (-counts[sku], sku))
    embeddings = train_prod2vec(sessions, Prod2VecConfig(**prod2vec))
    vector = dict(zip(embeddings.skus, embeddings.vectors.astype(np.float64), strict=True))
    units = np.array([vector[sku] / np.linalg.norm(vector[sku]) for sku in skus])
    logs = np.log1p([counts[sku] for sku in skus])
    place = {sku: row for row, sku in enumerate(skus)}

    def scores_of(items):
        ages = list(enumerate(reversed(items)))
        query = sum(chosen["decay"] ** age * units[place[item]] for age, item in ages)
        scores = units @ (query / np.linalg.norm(query)) + chosen["popularity_weight"] * logs / logs.max()
        for age, item in ages:
            revisit = chosen["revisit_bonus"] * chosen["revisit_decay"] ** (age - 1)
            scores[place[item]] += chosen["last_bonus"] if age == 0 else revisit
        return skus, scores

    return scores_of


def assert_same_ranking(expected, skus, scores=None):
    """The best products, best first; products that differ by less than 1e-3 may change places."""
    best = sorted(expected.values(), reverse=True)[: len(skus)]
    assert len(set(skus)) == len(skus) == 20
    np.testing.assert_allclose([expected[sku] for sku in skus], best, atol=1e-3)
    if scores is not None:
        np.testing.assert_allclose(scores, best, atol=1e-3)


def test_who_was_never_seen_gets_what_sessions_begin_with_and_is_told(live):
    folder = live.folder("recommendation_dataset")
    frame = pl.concat([read_split(folder, split, ["items", "item_timestamps_ms"]) for split in SPLITS])
    counts = Counter(frame["items"].explode().to_list())
    worth = {sku: 0.05 * count / counts.total() for sku, count in counts.items()}
    begun = frame["item_timestamps_ms"].list.first().to_numpy()
    fading = np.exp(-(begun.max() - begun) / (4 * 24 * 3600 * 1000))
    for sku, share in zip(frame["items"].list.first().to_list(), 0.95 * fading / fading.sum(), strict=True):
        worth[sku] += share
    answer = client.ask(live.url, "/predict?session=no-such-product")
    assert (answer["fallback"], answer["unknown_skus"]) == (True, ["no-such-product"])
    best = sorted(worth.values(), reverse=True)[:20]
    np.testing.assert_allclose([worth[sku] for sku in answer["prediction"]], best, atol=1e-7)


def test_the_recommender_beats_popularity_overall_and_within_the_session(live):
    report = json.loads((live.folder("recommender_leaderboard") / "report.json").read_text())
    for split in ("validation", "test"):
        mrr = {name: row["mrr"] for name, row in report[split].items()}
        assert mrr["knn"] > mrr["session_popularity"] > mrr["popularity"], (split, mrr)
        assert report[split]["knn"]["mrr_low"] > report[split]["session_popularity"]["mrr_high"]
    assert {"sknn", "vsknn", "vstan"} <= set(report["test"])


def test_the_leaderboard_says_whom_it_compared(live):
    """``make run`` leaves two candidates out (``tour.SELECTION``)."""
    chosen = json.loads((live.folder("recommender_leaderboard") / "report.json").read_text())["chosen"]
    assert chosen["asset"] == "knn_recommender"
    assert chosen["reason"] == (
        "It is the only candidate. lstm_recommender is left out: It has not been made. "
        "prodb_recommender is left out: It has not been made. hybrid_recommender is left out: It has not been made."
    )


def test_the_lstm_beats_base_rate_and_logistic_regression(live):
    report = json.loads((live.folder("intent_report") / "report.json").read_text())
    scores = {name: each["pooled"]["pr_auc"] for name, each in report["validation"].items()}
    assert scores["lstm"] > scores["logistic_regression"] > scores["base_rate"], scores
    test = {name: each["pooled"]["pr_auc"] for name, each in report["test"].items()}
    assert test["lstm"] > 1.5 * test["base_rate"], test
