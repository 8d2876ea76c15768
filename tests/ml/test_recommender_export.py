"""The exported graph, asked in a process that has only TensorFlow, answers as the offline numbers do."""

import json
import subprocess
import sys
import time
from dataclasses import fields

import numpy as np
import pytest

from bigger_boat.errors import TrainingError
from bigger_boat.ml.hybrid_export import load_lstm
from bigger_boat.ml.hybrid_recommender import CONTEXTS, PARTS, HybridConfig, HybridModel
from bigger_boat.ml.item_sequences import ItemVocabulary
from bigger_boat.ml.knn_recommender import KnnConfig, KnnModel
from bigger_boat.ml.lstm_recommender import LstmModel, LstmWeights
from bigger_boat.ml.prod2vec import ProductEmbeddings
from bigger_boat.ml.prodb_network import shapes
from bigger_boat.ml.prodb_recommender import ProdbConfig, ProdbModel
from bigger_boat.ml.ranking import EventSession
from bigger_boat.ml.recommender_evaluation import evaluate
from bigger_boat.ml.recommender_export import SavedModelRanker, _top_k
from bigger_boat.ml.recommender_kinds import KINDS
from bigger_boat.ml.repeat_calibration import RepeatCalibration
from bigger_boat.ml.repeats import REPEAT_CLASSES
from bigger_boat.ml.session_index import IndexConfig
from bigger_boat.ml.time_gaps import GAP_BUCKETS

SKUS = [f"sku-{i:03d}" for i in range(60)]
COUNTS = np.repeat(np.arange(30, 0, -1), 2)
CONFIG = KnnConfig(decay=0.4, popularity_weight=0.1, last_bonus=-0.3, revisit_bonus=0.3, revisit_decay=0.7)

FRESH_PROCESS = """
import json, sys
sys.path[:] = [path for path in sys.path if path != ""]
import numpy as np, tensorflow as tf
assert not any(name.startswith("bigger_boat") for name in sys.modules)
model = tf.saved_model.load(sys.argv[1])
serve = model.signatures["serving_default"]
answers = []
for request in json.load(sys.stdin):
    width = max([len(actions) for actions, *_ in request["sessions"]], default=0)
    padded = [[row + [""] * (width - len(row)) for row in session[:2]] for session in request["sessions"]]
    strings = np.array(padded, dtype=str).reshape(len(padded), 2, width)
    out = serve(
        actions=tf.constant(strings[:, 0], tf.string), skus=tf.constant(strings[:, 1], tf.string),
        timestamps_ms=tf.constant(np.array(
            [times + [-1] * (width - len(times)) for *_, times in request["sessions"]], dtype=np.int64
        ).reshape(len(padded), width)),
        k=tf.constant(request["k"]), exclude_seen=tf.constant(request["exclude_seen"]),
    )
    answers.append({
        "skus": [[sku.decode() for sku in row] for row in out["skus"].numpy()],
        "scores": out["scores"].numpy().tolist(), "fallback": out["fallback"].numpy().tolist(),
        "unknown": out["unknown"].numpy().tolist(),
    })
json.dump(answers, sys.stdout)
"""


@pytest.mark.parametrize("width", [4_096, 5_000])
@pytest.mark.parametrize("k", [1, 20, 1_000, 4_096])
def test_the_fast_top_k_is_top_k_ties_included(width, k):
    """Values in few steps, so that nearly everything ties; rows of one value, and of excluded products."""
    generator = np.random.default_rng(k)
    values = generator.integers(0, 40, (5, width)).astype(np.float32)
    values[1] = 7.0
    values[2, generator.integers(0, width, 3_000)] = np.finfo(np.float32).min
    values[3] = generator.normal(size=width)
    top, places = (part.numpy() for part in _top_k(values, k, width))
    expected = np.argsort(-values, axis=1, kind="stable")[:, :k]  # ties: the lower column first
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(top, np.take_along_axis(values, expected, axis=1))


def random_sessions(count, products, seed):
    generator = np.random.default_rng(seed)
    sessions = [EventSession([], []), EventSession(["view"], [""], [5])]
    sessions.append(EventSession(["detail"], ["ghost"], [-1]))
    for _ in range(count):
        length = int(generator.integers(1, 14))
        actions = generator.choice(
            ["view", "detail", "click", "add", "search", "odd"], length, p=[0.1, 0.4, 0.3, 0.1, 0.05, 0.05]
        )
        skus = [
            f"sku-{i:03d}" if i < products else "ghost" for i in generator.integers(0, products + 2, length) // 4 * 4
        ]
        skus = [sku if action not in ("view", "search") else "" for action, sku in zip(actions, skus, strict=True)]
        times_ms = generator.integers(0, 90_000, length + 2).cumsum()
        times_ms[generator.random(length + 2) < 0.2] = -1
        sessions.append(EventSession(actions.tolist(), skus, times_ms[2:].tolist()))
        skus = [*["sku-004"] * 2, *skus]
        sessions.append(EventSession(["click", "detail", *actions.tolist()], skus, times_ms.tolist()))
    return sessions


@pytest.fixture(scope="module", params=["knn", "lstm", "prodb", "hybrid"])
def model(request):
    """60 products, among them pairs of equal vectors and counts: exact ties, also of what sessions begin with."""
    model = {"knn": knn, "lstm": lstm, "prodb": prodb, "hybrid": hybrid}[request.param]()
    model.opening = np.random.default_rng(4).integers(0, 30, 60).astype(np.float32)
    return model


def knn():
    generator = np.random.default_rng(0)
    vectors = np.repeat(generator.normal(size=(30, 12)), 2, axis=0).astype(np.float32)
    return KnnModel(ProductEmbeddings(SKUS, COUNTS, vectors), CONFIG)


def lstm(units=7, dim=5):
    """Any weights will do; the histories are longer than the four items it looks at."""
    generator = np.random.default_rng(1)
    cell = [(dim, 4 * units), (units, 4 * units), (4 * units,)]
    shapes = [(60, dim), (60,), (REPEAT_CLASSES,), (dim,), (GAP_BUCKETS, dim), *cell, (units, dim), (dim,)]
    weights = [generator.normal(size=shape).astype(np.float32) for shape in shapes]
    weights[0][1::2], weights[1][1::2] = weights[0][::2], weights[1][::2]
    repeats = RepeatCalibration(*generator.normal(size=(2, REPEAT_CLASSES)).astype(np.float32))
    return LstmModel(ItemVocabulary(SKUS, COUNTS), LstmWeights(*weights), longest=4, repeats=repeats)


def prodb():
    """Any weights will do, two layers of three heads; the histories are longer than the four items it looks at."""
    generator, config = np.random.default_rng(3), ProdbConfig(units=6, heads=3, layers=2, longest=4)
    encoder = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes(5, config).items()}
    vectors, bias = generator.normal(size=(30, 5)).astype(np.float32), generator.normal(size=30).astype(np.float32)
    vocabulary = ItemVocabulary(SKUS, COUNTS)
    return ProdbModel(vocabulary, np.repeat(vectors, 2, axis=0), np.repeat(bias, 2), encoder, config.longest)


def hybrid():
    """Past sessions so long, and so many of each product, that every bound of the index cuts something off."""
    generator = np.random.default_rng(2)
    past = [[SKUS[i] for i in generator.integers(0, 60, generator.integers(1, 12))] for _ in range(90)]
    index = IndexConfig(longest=3, sessions_per_item=4, sessions=50, items_per_session=5, rules_per_item=3)
    weights = generator.normal(size=(CONTEXTS, len(PARTS)))
    return HybridModel.of(past, lstm(), HybridConfig(index=index), weights)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp(model.name) / "1"
    import tensorflow  # noqa: F401  (its import is not the export's time)

    start = time.process_time()
    KINDS[model.name.removesuffix("_recommender")].export(model, directory)
    assert time.process_time() - start < 10  # 1 to 2 s of work; generous for a slow machine
    return directory


def test_a_fresh_process_with_tensorflow_only_gives_the_offline_answers(model, exported, tmp_path):
    sessions = random_sessions(60, products=60, seed=1)
    requests = [
        {"sessions": [[*map(list, s)] for s in batch], "k": k, "exclude_seen": exclude_seen}
        for batch, k, exclude_seen in [
            (sessions, 20, False),
            (sessions, 20, True),
            (sessions, 500, True),
            (sessions[:1], 3, False),
            ([], 20, False),
            (sessions[-2:], 0, False),
        ]
    ]
    out = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, str(exported)],
        input=json.dumps(requests),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert out.returncode == 0, out.stderr[-2000:]
    for request, answer in zip(requests, json.loads(out.stdout), strict=True):
        events = [EventSession(*session) for session in request["sessions"]]
        offline = model.offline_predictions(events, request["k"], request["exclude_seen"])
        assert len(answer["skus"]) == len(offline)
        for row, expected in enumerate(offline):
            skus = [sku for sku in answer["skus"][row] if sku]
            assert skus == expected["skus"]
            assert answer["scores"][row][: len(skus)] == pytest.approx(expected["scores"], rel=1e-6, abs=1e-5)
            assert np.isfinite(answer["scores"][row]).all()
            assert answer["fallback"][row] == expected["fallback"]
            flagged = {s for s, bad in zip(events[row].skus, answer["unknown"][row], strict=False) if bad}
            assert flagged == set(expected["unknown_skus"])


def test_an_lstm_is_read_back_as_it_was_and_another_graph_is_refused(exported, model):
    if not isinstance(model, LstmModel):
        with pytest.raises(TrainingError, match="Expected the 10 arrays of an LSTM"):
            load_lstm(exported, 4)
        return
    again = load_lstm(exported, 4)
    assert again.vocabulary.skus == model.vocabulary.skus
    for one in fields(LstmWeights):
        np.testing.assert_array_equal(getattr(again.weights, one.name), getattr(model.weights, one.name))


def test_padding_columns_and_neighbours_in_the_batch_change_nothing(exported, model):
    import tensorflow as tf

    serve = tf.saved_model.load(str(exported)).signatures["serving_default"]

    def ask(rows):
        return (
            serve(
                actions=tf.constant([["detail" if sku else "" for sku in row] for row in rows]),
                skus=tf.constant(rows),
                timestamps_ms=tf.fill([len(rows), len(rows[0])], tf.constant(-1, tf.int64)),
                k=tf.constant(5),
                exclude_seen=tf.constant(False),
            )["skus"]
            .numpy()[0]
            .tolist()
        )

    alone = ask([["sku-001", "sku-009"]])
    assert ask([["sku-001", "sku-009", "", "", ""], ["sku-003"] * 5]) == alone


def test_a_ranker_around_the_saved_model_evaluates_to_the_same_numbers(exported, model):
    generator = np.random.default_rng(5)
    sessions = [[f"sku-{i:03d}" for i in generator.integers(0, 62, generator.integers(1, 9))] for _ in range(80)]
    served = SavedModelRanker(exported)
    assert served.vocabulary.skus == model.vocabulary.skus
    assert (served.vocabulary.counts == model.vocabulary.counts).all()
    recent = np.array([[3, 1, -1], [0, -1, -1]], dtype=np.int32)
    assert served.scores(recent) == pytest.approx(model.scores(recent), abs=1e-5)
    for exclude_seen in (False, True):
        through_graph = evaluate(served, sessions, exclude_seen=exclude_seen)
        offline = evaluate(model, sessions, exclude_seen=exclude_seen)
        assert through_graph.metrics == pytest.approx(offline.metrics)
        assert (through_graph.reciprocal_ranks == offline.reciprocal_ranks).all()


def test_a_served_model_can_be_judged_on_another_vocabulary(exported):
    wider = ItemVocabulary.of([["new"] * 3, [f"sku-{i:03d}" for i in range(58)]])
    served = SavedModelRanker(exported, wider)
    own = SavedModelRanker(exported).rank([["sku-004"]], k=60)[0][0].tolist()
    judged = ["" if sku in ("sku-058", "sku-059") else sku for sku in own]
    assert served.rank([["new", "sku-004"]], k=60)[0][0].tolist() == judged[:59]
    scores = served.scores(np.array([[wider.rows["sku-004"], 0]], dtype=np.int32))[0]
    assert scores.shape == (59,)
    assert scores.argmin() == wider.rows["new"]


def test_the_saved_model_keeps_no_product_that_training_did_not_see(exported, model):
    skus, _ = SavedModelRanker(exported).rank([["sku-000"]], k=60)
    assert sorted(skus[0]) == model.vocabulary.skus
