"""The intent model on a planted task: buyers and others differ in the order of their events, never in the counts."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import date, datetime
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from bigger_boat.errors import TrainingError
from bigger_boat.ml.intent_baselines import BaseRate, gradient_boosting, logistic_regression
from bigger_boat.ml.intent_export import SavedIntentModel, export_intent
from bigger_boat.ml.intent_features import encode_sessions, intent_frame
from bigger_boat.ml.intent_metrics import auc, pr_auc
from bigger_boat.ml.intent_model import IntentChoice, IntentConfig, fit_intent, refit
from bigger_boat.ml.intent_network import AHEAD, ProductTable, ahead_loss, derive
from bigger_boat.ml.intent_training import addends

SKUS = [f"S{index:02d}" for index in range(12)]
EMBEDDINGS = SimpleNamespace(
    skus=SKUS, counts=np.arange(12, 0, -1), vectors=np.random.default_rng(0).normal(size=(12, 6)).astype(np.float32)
)
CONFIG = replace(IntentConfig.quick(seed=3), epochs=10, learning_rate=1e-2, dropout=0.1, batch_size=32)


def planted(count: int, seed: int) -> pl.DataFrame:
    """Sessions at cut 6: a buyer searches before it removes, others the other way round; one in ten mislabelled."""
    generator = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        buys = generator.random() < 0.4
        middle = ["search", "remove"] if buys else ["remove", "search"]
        actions = ["view", "detail", "add", "view", *middle, "view", "view", "view"]
        sku = str(generator.choice(SKUS))
        skus = [sku if action in ("detail", "add", "remove") else "" for action in actions]
        times = np.cumsum(generator.integers(1_000, 60_000, len(actions))).tolist()
        day, label = date(2026, 1, 1 + index % 28), bool(buys ^ (generator.random() < 0.1))
        rows.append((f"{seed}-{index}", day, datetime(2026, 1, 1), 6, actions, skus, times, label))
    names = ["session_id", "session_date", "started_at", "cut", "actions", "skus", "timestamps_ms", "label"]
    return pl.DataFrame(rows, schema=names, orient="row")


@pytest.fixture(scope="module")
def train():
    return planted(400, 1)


@pytest.fixture(scope="module")
def validation():
    return planted(150, 2)


@pytest.fixture(scope="module")
def model(train, validation):
    return fit_intent(train, validation, EMBEDDINGS, CONFIG)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("intent") / "1"
    export_intent(model, directory)
    return directory


def test_order_is_learned_where_counts_say_nothing(model, train):
    test = planted(300, 9)
    labels = test["label"].to_numpy()
    for counts in (logistic_regression, gradient_boosting):
        assert 0.4 < auc(labels, counts(train).predict(test)) < 0.6
    assert auc(labels, model.predict(test)) > 0.8
    assert model.report(test).pooled.calibration_error < 0.1
    linear = addends(model.network, encode_sessions(test, model.sku_ids, 100))[:, 0]
    assert auc(labels, linear) < 0.65, "the running totals do not tell either: it is the LSTM that does"


def test_base_rate_is_the_share_of_buyers_of_the_cut(train):
    found = BaseRate.fit(train)
    assert found.predict(train.head(2)) == pytest.approx([train["label"].mean()] * 2)
    assert pr_auc(train["label"].to_numpy(), found.predict(train)) == pytest.approx(train["label"].mean())


def test_sparse_requests_get_sensible_answers(model):
    bare = [{"action": action} for action in ("start", "view", "detail", "add", "view", "end")]
    odd = [{"action": "teleport"}, {"action": "add", "sku": "never seen", "timestamp_ms": 0}]
    huge = [{"action": "add", "sku": "S01", "timestamp_ms": 10**15 * index} for index in range(500)]
    answers = model.offline_predictions([bare, odd, huge, [], [{"action": "purchase"}]])
    for answer in answers:
        assert 0.01 < answer["purchase_probability"] < 0.99
    assert [answer["unknown_actions"] for answer in answers] == [[], ["teleport"], [], [], []]
    assert 0.1 < answers[0]["purchase_probability"] < 0.8


def test_an_empty_session_gets_the_base_rate(model, train):
    assert model.predict([[]])[0] == pytest.approx(train["label"].mean())


def test_padding_and_company_change_nothing(model):
    long = planted(1, 5)["actions"][0].to_list() * 9
    alone = model.predict([{"actions": ["view", "add"]}])
    together = model.predict([{"actions": ["view", "add"]}, {"actions": long}, []])
    assert alone[0] == pytest.approx(together[0], abs=1e-6)


def test_no_feature_looks_ahead(validation):
    """What is derived at an event is the same whatever follows: nothing knows where the session ends."""
    table = ProductTable.of(EMBEDDINGS.vectors, EMBEDDINGS.counts)
    encoded = encode_sessions(validation.head(20), {sku: i for i, sku in enumerate(SKUS, 3)}, 100)
    whole = encoded.padded(np.arange(20), 8)
    for length in (1, 4, 6):
        short = {name: values[:, :length] for name, values in whole.items()}
        for before, after in zip(
            derive(short, table.vectors, table.popularity), derive(whole, table.vectors, table.popularity), strict=True
        ):
            np.testing.assert_allclose(np.asarray(before), np.asarray(after)[:, :length], atol=1e-5)


def test_how_the_product_relates_to_the_session_by_hand():
    """Shown: S00, a page, S00 again, S01, S00 into the cart, S00 once more, a product without a vector twice."""
    skus = ["S00", "", "S00", "S01", "S00", "S00", "new", "new"]
    actions = ["detail", "view", "detail", "detail", "add", "detail", "detail", "detail"]
    table = ProductTable.of(np.array([[1.0, 0.0], [0.6, 0.8]]), np.array([2, 1]))
    frame = intent_frame([{"actions": actions, "skus": skus}])
    inputs = encode_sessions(frame, {"S00": 3, "S01": 4}, 100).padded(np.array([0]), 9)
    _, steps, _, relation = derive(inputs, table.vectors, table.popularity)
    assert np.asarray(relation)[0].tolist() == [1, 0, 2, 1, 2, 3, 1, 2, 0]
    same_as_last, cosine_to_last = np.asarray(steps)[0, :, -5], np.asarray(steps)[0, :, -4]
    assert same_as_last.tolist() == [0, 0, 1, 0, 0, 1, 0, 1, 0]
    assert cosine_to_last == pytest.approx([0, 0, 1, 0.6, 0.6, 1, 0, 0, 0], abs=1e-6)


def test_what_comes_next_is_judged_by_hand():
    """Two events and padding: one step to look ahead, of three heads each certain or not."""
    inputs = {
        "actions": np.array([[3, 4, 0]]),
        "log_gaps": np.array([[0.0, 2.0, 0.0]], np.float32),
        "has_gap": np.array([[0.0, 1.0, 0.0]], np.float32),
    }
    relation = np.array([[1, 2, 0]])
    actions, gaps, relations = AHEAD
    knows_nothing = np.zeros((1, 3, sum(AHEAD)), np.float32)
    blank = np.log(actions) + np.log(gaps) + np.log(relations)
    assert float(ahead_loss([knows_nothing], inputs, relation)) == pytest.approx(blank, rel=1e-5)
    sure = knows_nothing.copy()
    sure[0, 0, [4, actions + 5, actions + gaps + 2]] = 50.0  # action 4; log gap 2.0 is bin 5; seen before
    assert float(ahead_loss([sure], inputs, relation)) == pytest.approx(0, abs=1e-5)
    assert float(ahead_loss([sure, knows_nothing], inputs, relation)) == pytest.approx(blank / 2, rel=1e-5)
    wrong = sure.copy()
    wrong[0, 1:] = 50.0 * np.eye(sum(AHEAD), dtype=np.float32)[0]  # what is said of padding does not count
    assert float(ahead_loss([wrong], inputs, relation)) == pytest.approx(0, abs=1e-5)


@pytest.mark.slow
def test_half_precision_learns_the_same(train, validation, tmp_path):
    """On a CPU, where half precision is slower: what is exported from it is float32 and answers alike."""
    fast = fit_intent(train, validation, EMBEDDINGS, replace(CONFIG, epochs=6, precision="mixed_float16"))
    test = planted(300, 9)
    assert auc(test["label"].to_numpy(), fast.predict(test)) > 0.8
    export_intent(fast, tmp_path / "1")
    np.testing.assert_allclose(SavedIntentModel(tmp_path / "1").predict(test), fast.predict(test), atol=1e-2)


@pytest.mark.slow
def test_each_epoch_is_told_also_those_before_a_kill(train, validation, tmp_path):
    class Killed(Exception):
        pass

    def until_two(losses, epoch):
        told.append((epoch, losses))
        if epoch == 2:
            raise Killed

    told = []
    with pytest.raises(Killed):
        fit_intent(train, validation, EMBEDDINGS, CONFIG, checkpoint_dir=tmp_path, on_epoch=until_two)
    before, told = told, []
    config = replace(CONFIG, epochs=3)
    model = fit_intent(
        train,
        validation,
        EMBEDDINGS,
        config,
        checkpoint_dir=tmp_path,
        on_epoch=lambda losses, e: told.append((e, losses)),
    )
    assert told[:2] == before
    assert told == [(log.epoch, log.losses) for log in model.history]
    assert [epoch for epoch, _ in told] == [1, 2, 3]


def test_refit_keeps_the_choice_through_json(model, train, validation):
    choice = IntentChoice.from_dict(json.loads(json.dumps(model.choice.as_dict())))
    assert choice == model.choice
    again = refit(choice, pl.concat([train, validation]), EMBEDDINGS)
    assert again.choice == choice
    assert len(again.history) == choice.epochs
    test = planted(100, 9)
    assert auc(test["label"].to_numpy(), again.predict(test)) > 0.8


def test_a_configuration_of_an_older_bundle_is_read():
    written = json.loads(json.dumps({**asdict(CONFIG), "jit": False}))
    assert IntentConfig.from_dict(written) == CONFIG
    with pytest.raises(TypeError, match="layers"):
        IntentConfig.from_dict({**written, "layers": 3})


def test_an_interrupted_fit_goes_on_and_ends_the_same(model, train, validation, tmp_path):
    class Killed(Exception):
        pass

    def kill(_what, done, _total):
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        fit_intent(train, validation, EMBEDDINGS, CONFIG, progress=kill, checkpoint_dir=tmp_path)
    seen = []
    resumed = fit_intent(
        train, validation, EMBEDDINGS, CONFIG, progress=lambda _w, done, _t: seen.append(done), checkpoint_dir=tmp_path
    )
    assert seen[0] == 4
    assert resumed.history == model.history
    test = planted(50, 9)
    np.testing.assert_allclose(resumed.predict(test), model.predict(test), atol=1e-6)
    assert not list(tmp_path.iterdir())


def test_too_little_to_learn_from_is_said(train, validation):
    with pytest.raises(TrainingError, match="of 0 examples 0 buy"):
        fit_intent(train.head(0), validation, EMBEDDINGS, CONFIG)
    with pytest.raises(TrainingError, match="sessions that buy"):
        fit_intent(train.filter(~pl.col("label")), validation, EMBEDDINGS, CONFIG)
    with pytest.raises(TrainingError, match="there are none"):
        fit_intent(train, validation.head(0), EMBEDDINGS, CONFIG)
    with pytest.raises(TrainingError, match="examples that buy"):
        logistic_regression(train.head(0))


def awkward_sessions() -> pl.DataFrame:
    """Everything the graph must encode as training does: markers in between, unknowns, missing times, long sessions."""
    generator = np.random.default_rng(4)
    names = ["view", "detail", "add", "remove", "purchase", "search", "click", "pageview", "start", "end", "odd", ""]
    sessions = []
    for length in [0, 1, 2, 7, 30, 99, 100, 101, 160] * 3:
        times = np.cumsum(generator.integers(-500, 4_000_000, length))
        times = np.where(generator.random(length) < 0.3, -1, times)
        skus = generator.choice([*SKUS[:5], "new", ""], length)
        actions = generator.choice(names, length)
        sessions.append(
            {"actions": actions.tolist(), "skus": skus.tolist(), "timestamps_ms": np.maximum(times, -1).tolist()}
        )
    return intent_frame(sessions)


def test_the_graph_answers_as_offline(model, exported):
    served = SavedIntentModel(exported)
    for frame in (planted(60, 9), awkward_sessions()):
        np.testing.assert_allclose(served.predict(frame), model.predict(frame), atol=1e-4)


ALONE = """
import json, sys
import numpy as np
import tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
sessions = json.load(sys.stdin)
def ask(actions, skus, times):
    shape = (len(actions), len(actions[0]))
    values = {"actions": (actions, tf.string), "skus": (skus, tf.string), "timestamps_ms": (times, tf.int64)}
    found = serve(**{name: tf.reshape(tf.constant(value, kind), shape) for name, (value, kind) in values.items()})
    return [found["purchase_probability"].numpy().tolist(), found["unknown"].numpy().tolist()]
none = ask([["", ""]], [["", ""]], [[-1, -1]])
empty = ask([[], []], [[], []], [[], []])
assert not any(name.startswith("bigger_boat") for name in sys.modules)
print("ANSWER" + json.dumps([ask(*sessions), none, empty]))
"""


def test_the_saved_model_needs_tensorflow_alone(model, exported, train):
    sessions = [
        [["view", "add", "blip", ""], ["detail", "add", "view", "view"]],
        [["", "S01", "", ""], ["S02"] * 4],
        [[-1] * 4] * 2,
    ]
    run = subprocess.run(
        [sys.executable, "-c", ALONE, str(exported)], input=json.dumps(sessions), capture_output=True, text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, cwd=exported,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    answered, none, empty = json.loads(run.stdout.split("ANSWER")[1])
    rows = [{"actions": a, "skus": s, "timestamps_ms": t} for a, s, t in zip(*sessions, strict=True)]
    np.testing.assert_allclose(answered[0], model.predict(rows), atol=1e-4)
    assert answered[1] == [[False, False, True, False], [False] * 4]
    base_rate = pytest.approx(train["label"].mean(), abs=1e-6)
    assert none == [[base_rate], [[False, False]]]
    assert empty == [[base_rate, base_rate], [[], []]]


AGAIN = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("planted", sys.argv[1])
tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tests)
model = tests.fit_intent(tests.planted(400, 1), tests.planted(150, 2), tests.EMBEDDINGS, tests.CONFIG)
print("ANSWER" + json.dumps(model.predict(tests.planted(50, 9)).tolist()))
"""


@pytest.mark.slow
def test_another_process_fits_the_same_model(model):
    run = subprocess.run(
        [sys.executable, "-c", AGAIN, __file__], capture_output=True, text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    np.testing.assert_allclose(json.loads(run.stdout.split("ANSWER")[1]), model.predict(planted(50, 9)), atol=1e-3)
