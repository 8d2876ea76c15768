"""The predictor over real (tiny) SavedModels, against answers computed apart from the graph."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import (
    PRODUCTS,
    copy_bundle,
    export_intent,
    intent_golden,
    make_bundle,
    purchase_probability,
    rank_offline,
)

from bigger_boat.errors import BundleError, ServerError
from bigger_boat.ml.golden import compare_golden
from bigger_boat.serving.contract import PredictionRequest, Session, parse_request
from bigger_boat.serving.predictor import Predictor
from bigger_boat.serving.server import replay_golden


@pytest.fixture(scope="module")
def recommender(bundles):
    return Predictor.load(bundles["first"].directory)


@pytest.fixture(scope="module")
def intent(bundles):
    return Predictor.load(bundles["intent"].directory)


def predict(predictor, **request):
    return predictor.predict(parse_request(request))


def test_golden_answers_are_reproduced(recommender, intent):
    replay_golden(recommender)
    replay_golden(intent)


@pytest.mark.parametrize("k", [1, 2, 5, 1000])
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_rankings_equal_the_offline_ones(recommender, k, exclude_seen):
    sessions = [
        ["sku-a"],
        [],
        ["sku-b", "sku-b", "sku-é"],
        ["nobody"],
        ["nobody", "sku-d", "other", "nobody"],
        PRODUCTS,
    ]
    answers = predict(recommender, sessions=sessions, k=k, exclude_seen=exclude_seen)
    expected = [rank_offline(session, k, exclude_seen) for session in sessions]
    assert compare_golden(expected, answers) == []
    assert all("" not in answer["skus"] for answer in answers)
    assert answers[4]["unknown_skus"] == ["nobody", "other"]
    if exclude_seen:
        assert (answers[5]["skus"], answers[5]["scores"]) == ([], [])


def test_probabilities_equal_the_offline_ones(intent):
    sessions = [[], [{"action": "add"}], [{"action": "add"}, {"action": "zoom"}, {"action": "remove"}]]
    answers = predict(intent, sessions=sessions)
    expected = [(0, 0, []), (1, 0, []), (1, 1, ["zoom"])]
    for answer, (adds, removes, unknown) in zip(answers, expected, strict=True):
        assert answer["purchase_probability"] == pytest.approx(purchase_probability(adds, removes), abs=1e-6)
        assert answer["unknown_actions"] == unknown


def test_no_sessions_no_predictions(recommender):
    assert predict(recommender, sessions=[]) == []


def test_a_batch_equals_its_rows_in_order(recommender):
    sessions = [[PRODUCTS[(row * step) % 5] for step in range(row % 7)] for row in range(64)]
    together = predict(recommender, sessions=sessions)
    apart = [predict(recommender, sessions=[session])[0] for session in sessions]
    assert compare_golden(apart, together) == []


def test_one_long_session_does_not_pad_the_batch(recommender):
    """255 short sessions and one of 10,000 events: 2.56 M padded cells in one call, 0.01 M in two."""
    sessions = [["sku-a"]] * 128 + [["sku-b"] * 10_000] + [["sku-c"]] * 127
    shapes = []
    call = recommender._call

    def watch(rows, *more):
        shapes.append((len(rows), max(map(len, rows))))
        return call(rows, *more)

    recommender._call = watch
    try:
        answers = predict(recommender, sessions=sessions, k=1)
    finally:
        recommender._call = call
    assert shapes == [(64, 1), (64, 1), (64, 1), (63, 1), (1, 10_000)]
    wanted = [rank_offline([session[0]], 1)["skus"] for session in sessions]
    assert [answer["skus"] for answer in answers] == wanted


def test_a_model_that_disagrees_with_its_golden_answers_is_no_good(bundles):
    with pytest.raises(BundleError, match="differ from the offline ones"):
        replay_golden(Predictor.load(bundles["disagrees"].directory))


def test_a_graph_that_cannot_be_read(tmp_path):
    def export(directory: Path) -> None:
        directory.mkdir()
        (directory / "saved_model.pb").write_bytes(b"no graph at all")

    bundle = make_bundle(tmp_path, "intent", export, intent_golden())
    with pytest.raises(BundleError, match="cannot be loaded"):
        Predictor.load(bundle.directory)


def test_a_graph_with_another_signature(tmp_path):
    bundle = make_bundle(
        tmp_path, "recommendation", export_intent, [{"request": {"sessions": [[]]}, "predictions": []}]
    )
    with pytest.raises(BundleError, match="fallback, scores, skus"):
        Predictor.load(bundle.directory)


def test_an_altered_bundle_is_not_loaded(bundles, tmp_path):
    directory = copy_bundle(bundles["first"], tmp_path / "altered")
    shutil.rmtree(directory / "1" / "variables")
    with pytest.raises(BundleError, match="lacks 1/variables"):
        Predictor.load(directory)


def test_nan_is_never_an_answer(tmp_path):
    bundle = make_bundle(tmp_path, "intent", lambda path: export_intent(path, float("nan")), intent_golden())
    predictor = Predictor.load(bundle.directory)
    with pytest.raises(ServerError, match="no number"):
        predictor.predict(PredictionRequest([Session(["add"], [""], [-1])], [-1]))


SERVES_THEN_IMPORTS = """
import sys
from pathlib import Path
from bigger_boat.serving.contract import parse_request
from bigger_boat.serving.graph import load_runtime, serve_only
from bigger_boat.serving.predictor import Predictor
serve_only()
load_runtime()
predictor, asked = Predictor.load(Path(sys.argv[1])), parse_request({"sessions": [["sku-a"], []]})
before = predictor.predict(asked)
assert "keras" not in sys.modules and "tensorflow" not in sys.modules
import keras
import tensorflow as tf
model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
assert model.predict(tf.ones((1, 2)), verbose=0) == 2
assert tf.function(lambda x: x + 1)(tf.constant(1)) == 2
assert Predictor.load(Path(sys.argv[1])).predict(asked) == predictor.predict(asked) == before
"""


def test_serving_needs_neither_tensorflows_names_nor_keras_and_both_can_be_imported_later(bundles):
    command = [sys.executable, "-c", SERVES_THEN_IMPORTS, str(bundles["first"].directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
