"""The next-item LSTM: its arithmetic beside Keras', what it learns, what it says of new products, resuming."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no test folder on the path

from ring_shop import PLACES, ring_shop

from bigger_boat.errors import TrainingError
from bigger_boat.ml.baselines import Popularity
from bigger_boat.ml.catalogue import Catalogue, Products
from bigger_boat.ml.item_network import REPEAT_SCALE
from bigger_boat.ml.item_sequences import TimedSequences
from bigger_boat.ml.lstm_network import build_network
from bigger_boat.ml.lstm_recommender import LstmConfig, LstmModel, LstmWeights, calibrate, fit_lstm, in_time_order
from bigger_boat.ml.network_fitting import Judge, Sampler
from bigger_boat.ml.prod2vec import Prod2VecConfig, train_prod2vec
from bigger_boat.ml.recommender_evaluation import evaluate
from bigger_boat.ml.repeat_calibration import RepeatCalibration
from bigger_boat.ml.repeats import REPEAT_CLASSES, seen_classes
from bigger_boat.ml.time_gaps import GAP_BUCKETS, gap_buckets

CONFIG = LstmConfig(units=16, batch_size=64, epochs=8, learning_rate=2e-2, patience=3, dropout=0.1)
CATALOGUE = Products(
    {f"p{place:02d}": {"category": f"c{place // 4}", "price_bucket": place % 4} for place in range(PLACES)}
    | {"new": {"category": "c1", "price_bucket": 2}, "bare": {"category": None, "price_bucket": None}}
)


@pytest.fixture(scope="module")
def embeddings():
    return train_prod2vec(ring_shop(400, 0), Prod2VecConfig(dim=8, window=2, epochs=3))


@pytest.fixture(scope="module")
def fitted(embeddings):
    return fit_lstm(ring_shop(400, 0), embeddings, CONFIG, validation=ring_shop(100, 1), products=CATALOGUE)


def test_it_learns_what_follows(fitted):
    test = ring_shop(150, 2)
    own = evaluate(fitted.model, test)
    assert own.mrr_above(evaluate(Popularity.fit(ring_shop(400, 0)), test)).low > 0.2
    assert fitted.epochs == max(fitted.history, key=lambda log: log.score).epoch
    assert fitted.history[-1].loss < fitted.history[0].loss


def test_returns_are_calibrated_where_that_helps(fitted):
    """Nobody goes back on the ring: a network that expects it is put right, one that does not is left alone."""
    judge = Judge(fitted.model.vocabulary, ring_shop(100, 1), CONFIG)
    weights, recent = fitted.model.weights, np.array([[3, 1, 4], [0, 5, 2]], dtype=np.int32)

    def expecting(worth):
        return LstmModel(fitted.model.vocabulary, replace(weights, repeats=weights.repeats + worth), longest=20)

    wrong, right = expecting(30), expecting(-30)
    before = judge.score(wrong)
    calibrate(wrong, judge)
    assert judge.score(wrong) > before + 0.2
    change = wrong.scores(recent) - wrong.logits(recent)
    assert (np.take_along_axis(change, recent, axis=1) < 0).all()
    np.put_along_axis(change, recent, 0, axis=1)
    assert not change.any()
    calibrate(right, judge)
    assert right.repeats.as_dict() == RepeatCalibration.none().as_dict()
    assert fitted.also == {"repeats": fitted.model.repeats.as_dict()}


def test_a_product_of_no_session_gets_a_vector_from_its_category(fitted):
    vocabulary, vectors = fitted.model.vocabulary, fitted.model.weights.item_vectors
    assert vocabulary.skus[-1] == "new"
    assert "bare" not in vocabulary.rows
    assert vocabulary.counts[-1] == 0
    assert np.abs(vectors[-1]).max() > 0
    skus, _ = fitted.model.rank([["p05", "new"]], k=PLACES + 1)
    assert set(skus[0]) == {*vocabulary.skus}


def test_the_arrays_score_as_the_network_does(embeddings):
    from keras import ops

    vocabulary = CATALOGUE.with_new(embeddings.vocabulary)
    start = np.random.default_rng(0).normal(size=(len(vocabulary), 8)).astype(np.float32)
    network = build_network(start, vocabulary.counts, CATALOGUE.of(vocabulary), CONFIG)
    network.body.gap_vectors.assign(np.random.default_rng(1).normal(size=(GAP_BUCKETS, 8)))
    network.repeats.assign(np.arange(REPEAT_CLASSES) + 1.0)
    model = LstmModel(vocabulary, LstmWeights.of(network, len(vocabulary)), longest=5)
    recent = np.array([[3, 1, 4, -1, -1, -1], [2, -1, -1, -1, -1, -1], [5, 6, 7, 8, 9, 10]], dtype=np.int32)
    times_ms = np.array([[70_000, 9_000, 4_000, -1, -1, -1], [5, -1, -1, -1, -1, -1], [9, 8, -1, 6, 5, 4]])
    rows, gaps, lengths = in_time_order(recent[:, :5], gap_buckets(times_ms)[:, :5])
    assert rows.tolist() == [[4, 1, 3, -1, -1], [2, -1, -1, -1, -1], [9, 8, 7, 6, 5]]
    assert gaps.tolist() == [[0, 3, 6, 0, 0], [0] * 5, [1, 1, 0, 0, 1]]
    queries = ops.convert_to_numpy(network.queries({"rows": rows, "gaps": gaps}))[np.arange(3), lengths - 1]
    vectors = ops.convert_to_numpy(network.item_vectors(np.arange(len(vocabulary))))
    expected = queries @ vectors.T + ops.convert_to_numpy(network.bias.value)
    for row, ages in enumerate(({3: 0, 1: 1, 4: 2}, {2: 0}, {5: 0, 6: 1, 7: 2, 8: 3, 9: 4})):
        for item, age in ages.items():
            expected[row, item] += REPEAT_SCALE * (age + 1)
    assert model.scores_in_time(recent, times_ms) == pytest.approx(expected, abs=1e-5)
    assert model.scores(recent) == pytest.approx(model.scores_in_time(recent, np.full(recent.shape, -1)))
    assert not np.allclose(model.scores(recent)[0], expected[0], atol=1e-3)


def timed_shop(sessions, seed):
    """Whoever stays long at a product goes on to the next, whoever leaves at once goes back to the one before."""
    generator, items, times_ms = np.random.default_rng(seed), [], []
    for _ in range(sessions):
        place, pauses = int(generator.integers(PLACES)), generator.choice([1, 120], size=5)
        steps = np.where(pauses > 60, 1, -1)
        places = (place + np.concatenate([[0], [1], steps[:-1] + 1]).cumsum()) % PLACES
        items.append([f"p{each:02d}" for each in places])
        times_ms.append(np.concatenate([[0], pauses]).cumsum() * 1000)
    return TimedSequences(items, np.concatenate(times_ms))


def test_it_learns_from_pauses(embeddings):
    """Two steps on after a long pause, none after a short one: without the times that is a coin's toss."""
    config = replace(CONFIG, epochs=10, forget_times=0.0)
    model = fit_lstm(timed_shop(400, 0), embeddings, config, epochs=10).model
    test = timed_shop(150, 1)
    timed, bare = evaluate(model, test), evaluate(model, test.items)
    assert timed.mrr_above(bare).low > 0.1


def test_the_sampled_loss_estimates_the_full_one(embeddings):
    """With every product sampled many times, log-q makes the sampled softmax the full one."""
    rows = np.array([[0, 3, 0], [7, 2, -1]], dtype=np.int32)
    counts, inputs = embeddings.counts, {"rows": rows, "gaps": np.zeros_like(rows), "seen": seen_classes(rows)}
    inputs["targets"] = np.array([[3, 0, 3], [2, 9, -1]], dtype=np.int32)  # with two returns
    nothing, worth = Catalogue.unknown(len(counts)), np.linspace(-0.2, 0.2, REPEAT_CLASSES)

    def losses(config, given):
        network = build_network(embeddings.unit_vectors, counts, nothing, config)
        network.repeats.assign(worth)
        return network, np.asarray(network(given))

    network, full = losses(CONFIG, inputs)
    few = replace(CONFIG, full_softmax_up_to=0, samples=40_000)
    drawn = Sampler(counts, few.samples, few.sample_power).draw(np.random.default_rng(0))
    _, sampled = losses(few, {**inputs, **drawn})
    model = LstmModel(embeddings.vocabulary, LstmWeights.of(network, len(counts)), longest=5)
    scores = model.scores(np.array([[0, -1, -1], [3, 0, -1], [0, 3, 0]], dtype=np.int32))
    by_hand = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(3), [3, 0, 3]]
    assert full[0] == pytest.approx(by_hand, abs=1e-4)
    assert full[1, 2] == sampled[1, 2] == 0
    assert sampled == pytest.approx(full, abs=0.05)


@pytest.mark.slow
def test_an_interrupted_training_ends_as_an_undisturbed_one(embeddings, tmp_path):
    config = replace(CONFIG, epochs=3, full_softmax_up_to=0, samples=10)
    sessions, path = ring_shop(150, 0), tmp_path / "lstm.npz"

    def stop_after(number):
        def on_epoch(_numbers, epoch):
            if epoch == number:
                raise KeyboardInterrupt

        return on_epoch

    with pytest.raises(KeyboardInterrupt):
        fit_lstm(sessions, embeddings, config, epochs=3, checkpoint=path, on_epoch=stop_after(2))
    seen = []
    resumed = fit_lstm(
        sessions, embeddings, config, epochs=3, checkpoint=path, on_epoch=lambda _, epoch: seen.append(epoch)
    )
    undisturbed = fit_lstm(sessions, embeddings, config, epochs=3)
    assert seen == [3]
    assert not path.exists()
    recent = np.array([[3, 1, -1], [0, -1, -1]], dtype=np.int32)
    assert resumed.model.scores(recent) == pytest.approx(undisturbed.model.scores(recent), abs=1e-5)


def test_sessions_of_one_product_teach_nothing(embeddings):
    with pytest.raises(TrainingError, match="two products"):
        fit_lstm([["p01"], ["p02"]], embeddings, CONFIG, epochs=1)
