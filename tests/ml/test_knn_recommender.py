"""The kNN's score by hand, and what tuning on validation may and may not look at."""

import math

import numpy as np
import pytest

from bigger_boat.ml.baselines import Popularity, SessionPopularity
from bigger_boat.ml.knn_recommender import KnnConfig, KnnModel, fit_knn
from bigger_boat.ml.prod2vec import Prod2VecConfig, ProductEmbeddings, train_prod2vec
from bigger_boat.ml.recommender_evaluation import evaluate

PLAIN = KnnConfig(decay=0.5, popularity_weight=0.0, last_bonus=0.0, revisit_bonus=0.0, revisit_decay=1.0)
EMBEDDINGS = ProductEmbeddings(
    ["a", "b", "c"], np.array([3, 2, 1]), np.array([[2, 0], [0, 3], [-1, 1]], dtype=np.float32)
)


def scores_of(config, history):
    skus, scores = KnnModel(EMBEDDINGS, config).rank([history])
    return dict(zip(skus[0].tolist(), scores[0].tolist(), strict=True))


def test_the_query_weighs_by_age_and_cosines_ignore_length():
    # b is last: q = (0, 1) + 0.5 * (1, 0), of length sqrt(1.25)
    length = math.sqrt(1.25)
    expected = {"b": 1 / length, "a": 0.5 / length, "c": (1 - 0.5) / math.sqrt(2) / length}
    assert scores_of(PLAIN, ["a", "ghost", "b"]) == pytest.approx(expected)


def test_decay_zero_looks_at_the_last_item_only():
    config = KnnConfig(**{**PLAIN.as_dict(), "decay": 0.0})
    assert scores_of(config, ["a", "b"]) == pytest.approx({"b": 1, "a": 0, "c": 1 / math.sqrt(2)})


def test_popularity_and_revisits_add_to_the_cosine():
    config = KnnConfig(decay=0.0, popularity_weight=0.1, last_bonus=-2.0, revisit_bonus=0.4, revisit_decay=0.5)
    # ages: b 0, a 1, b 2, a 3
    expected = {
        "a": 0 + 0.1 * 1 + 0.4 * (1 + 0.25),
        "b": 1 + 0.1 * math.log(3) / math.log(4) - 2.0 + 0.4 * 0.5,
        "c": 1 / math.sqrt(2) + 0.1 * math.log(2) / math.log(4),
    }
    assert scores_of(config, ["a", "b", "a", "b"]) == pytest.approx(expected, abs=1e-6)


def test_opposite_items_cancel_without_nan():
    embeddings = ProductEmbeddings(["a", "b"], np.array([1, 1]), np.array([[1, 0], [-1, 0]], dtype=np.float32))
    model = KnnModel(embeddings, KnnConfig(**{**PLAIN.as_dict(), "decay": 1.0}))
    assert model.rank([["a", "b"]])[1].tolist() == [[0, 0]]


def shop(sessions, seed):
    """Shoppers walk around a ring of 60 products, one or two steps at a time, and sometimes go back."""
    generator = np.random.default_rng(seed)
    result = []
    for _ in range(sessions):
        place, items = generator.integers(60), []
        for _ in range(generator.integers(2, 8)):
            items.append(f"p{place:02d}")
            place = (place + generator.integers(1, 3)) % 60
            if len(items) > 1 and generator.random() < 0.2:
                items.append(items[-2])
        result.append(items)
    return result


@pytest.fixture(scope="module")
def embeddings():
    return train_prod2vec(shop(1200, 0), Prod2VecConfig(dim=16, window=2, epochs=15))


def test_tuned_on_validation_it_beats_the_baselines_on_later_sessions(embeddings):
    model = fit_knn(embeddings, validation=shop(300, 1))
    test = shop(300, 2)
    own = evaluate(model, test)
    for baseline in (Popularity, SessionPopularity):
        assert own.mrr_above(evaluate(baseline.fit(shop(1200, 0)), test)).low > 0
    default = evaluate(KnnModel(embeddings, KnnConfig()), test)
    assert own.metrics["mrr"] >= default.metrics["mrr"]


def test_tuning_is_repeatable_and_its_configuration_can_be_taken_over(embeddings):
    validation = shop(200, 3)
    first = fit_knn(embeddings, validation=validation)
    assert fit_knn(embeddings, validation=validation).config == first.config
    assert fit_knn(embeddings, KnnConfig(**first.config.as_dict())).config == first.config


def test_shops_without_repeats_learn_not_to_show_what_was_seen(embeddings):
    onward = [[f"p{(start + step) % 60:02d}" for step in range(6)] for start in range(60)]
    model = fit_knn(embeddings, validation=onward)
    skus, _ = model.rank([["p10", "p11", "p12"]], k=3)
    assert not {"p10", "p11", "p12"} & set(skus[0])


def test_validation_without_anything_known_keeps_the_given_configuration(embeddings):
    config = KnnConfig(decay=0.7)
    assert fit_knn(embeddings, config, validation=[["x", "y"], ["p01"], []]).config == config
