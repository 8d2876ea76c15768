"""ProdB: its lessons, its arithmetic offline beside Keras', what it learns, resuming."""

import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no test folder on the path

from ring_shop import PLACES, ring_shop

from bigger_boat.ml.baselines import Popularity
from bigger_boat.ml.catalogue import Catalogue
from bigger_boat.ml.prod2vec import Prod2VecConfig, train_prod2vec
from bigger_boat.ml.prodb_network import HIDDEN_ROW, NUMPY, build_network, encode
from bigger_boat.ml.prodb_recommender import ProdbConfig, ProdbModel, fit_prodb, lessons
from bigger_boat.ml.recommender_evaluation import evaluate

CONFIG = ProdbConfig(units=16, layers=2, batch_size=64, epochs=8, learning_rate=1e-2, patience=3, dropout=0.1)


@pytest.fixture(scope="module")
def embeddings():
    return train_prod2vec(ring_shop(400, 0), Prod2VecConfig(dim=8, window=2, epochs=3))


def test_it_learns_what_follows(embeddings):
    fitted = fit_prodb(ring_shop(400, 0), embeddings, CONFIG, validation=ring_shop(100, 1))
    test = ring_shop(150, 2)
    assert evaluate(fitted.model, test).mrr_above(evaluate(Popularity.fit(ring_shop(400, 0)), test)).low > 0.2
    assert fitted.history[-1].loss < fitted.history[0].loss


def test_a_lesson_hides_what_it_asks_for():
    rows = np.array([[1, 2, 3, 4, 5], [6, 7, -1, -1, -1]] * 200, dtype=np.int32)
    given = lessons(rows, replace(CONFIG, next_share=0.4, hidden_share=0.3), np.random.default_rng(0))
    shown, targets = given["rows"], given["targets"]
    hidden = targets >= 0
    assert (hidden.sum(axis=1) > 0).all()
    assert (shown[hidden] == HIDDEN_ROW).all()
    assert (shown[~hidden] != HIDDEN_ROW).all()
    sessions = [np.where(hidden, targets, shown)[n][::-1] for n in range(len(rows))]
    for session, whole in zip(sessions, rows, strict=True):
        held = session[session >= 0]
        assert held.tolist() == whole[: len(held)].tolist()  # a beginning of the session, in its order
        assert len(held) > 1
    ahead = [n for n, one in enumerate(sessions) if (one >= 0).sum() < (rows[n] >= 0).sum()]
    assert all(hidden[n].tolist() == [True, False, False, False, False] for n in ahead)  # cut: only what comes last
    assert len(ahead) > 20


def test_a_lesson_of_what_comes_next_is_asked_as_the_model_is():
    rows = np.array([[1, 2, -1]], dtype=np.int32)
    given = lessons(rows, replace(CONFIG, next_share=1.0), np.random.default_rng(0))
    assert (given["rows"].tolist(), given["targets"].tolist()) == ([[HIDDEN_ROW, 1, -1]], [[2, -1, -1]])


def test_the_arrays_encode_as_the_network_does(embeddings):
    from keras import ops

    network = build_network(embeddings.unit_vectors, embeddings.counts, Catalogue.unknown(PLACES), CONFIG)
    encoder = {name: np.array(weight.value) for name, weight in network.body.learned.items()}
    recent = np.array([[3, 1, 4, -1, -1], [2, -1, -1, -1, -1], [5, 6, 7, 8, 9]], dtype=np.int32)
    rows = np.pad(recent, ((0, 0), (1, 0)), constant_values=HIDDEN_ROW)
    expected = ops.convert_to_numpy(network.queries({"rows": rows}))
    hidden, held = (rows == HIDDEN_ROW).astype(np.float32), (rows != -1).astype(np.float32)
    found = encode(NUMPY, encoder, embeddings.unit_vectors[np.maximum(rows, 0)], hidden, held)
    assert found[held > 0] == pytest.approx(expected[held > 0], abs=1e-5)
    model = ProdbModel(embeddings.vocabulary, embeddings.unit_vectors, np.zeros(PLACES), encoder, longest=20)
    assert model.queries(recent) == pytest.approx(expected[:, 0], abs=1e-5)


def test_padding_changes_nothing(embeddings):
    network = build_network(embeddings.unit_vectors, embeddings.counts, Catalogue.unknown(PLACES), CONFIG)
    encoder = {name: np.array(weight.value) for name, weight in network.body.learned.items()}
    model = ProdbModel(embeddings.vocabulary, embeddings.unit_vectors, np.zeros(PLACES), encoder, longest=20)
    short, padded = np.array([[3, 1]], dtype=np.int32), np.array([[3, 1, -1, -1]], dtype=np.int32)
    assert model.scores(short) == pytest.approx(model.scores(padded), abs=1e-6)


@pytest.mark.slow
def test_an_interrupted_training_ends_as_an_undisturbed_one(embeddings, tmp_path):
    config = replace(CONFIG, epochs=3, full_softmax_up_to=0, samples=10)
    sessions, path = ring_shop(150, 0), tmp_path / "prodb.npz"

    def stop(_numbers, epoch):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_prodb(sessions, embeddings, config, epochs=3, checkpoint=path, on_epoch=stop)
    resumed = fit_prodb(sessions, embeddings, config, epochs=3, checkpoint=path)
    undisturbed = fit_prodb(sessions, embeddings, config, epochs=3)
    recent = np.array([[3, 1, -1], [0, -1, -1]], dtype=np.int32)
    assert resumed.model.scores(recent) == pytest.approx(undisturbed.model.scores(recent), abs=1e-5)


def test_a_configuration_that_names_times_which_it_never_saw_is_read():
    assert ProdbConfig.from_dict({**asdict(CONFIG), "forget_times": 0.2}) == CONFIG
    with pytest.raises(TypeError, match="colour"):
        ProdbConfig.from_dict({"colour": 1})


def test_heads_share_the_width_evenly():
    with pytest.raises(ValueError, match="multiple of heads"):
        ProdbConfig(units=10, heads=3)
