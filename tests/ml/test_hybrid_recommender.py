"""The hybrid: its score is the weighted sum of its parts, and validation decides what each is worth."""

from dataclasses import replace

import numpy as np
import pytest

from bigger_boat.ml.baselines import SequentialRules, SessionPopularity
from bigger_boat.ml.hybrid_recommender import CONTEXTS, PARTS, HybridConfig, HybridModel, fit_hybrid
from bigger_boat.ml.item_sequences import ItemVocabulary
from bigger_boat.ml.lstm_recommender import LstmModel, LstmWeights
from bigger_boat.ml.recommender_evaluation import evaluate
from bigger_boat.ml.repeats import REPEAT_CLASSES
from bigger_boat.ml.session_index import IndexConfig
from bigger_boat.ml.time_gaps import GAP_BUCKETS

PLACES = 30


def shop(sessions, seed):
    """Shoppers walk around a ring in steps of one or two, and every third step goes back to what was seen before."""
    generator = np.random.default_rng(seed)
    result = []
    for _ in range(sessions):
        place, items = int(generator.integers(PLACES)), []
        for step in range(generator.integers(2, 8)):
            items.append(f"p{place:02d}" if step % 3 < 2 or step < 3 else items[-2])
            place = (place + int(generator.integers(1, 3))) % PLACES
        result.append(items)
    return result


def untrained(sequences, seed=0):
    """An LSTM that has learned nothing: the blend has to find that out."""
    vocabulary = ItemVocabulary.of(sequences)
    generator = np.random.default_rng(seed)
    items = [(len(vocabulary), 4), (len(vocabulary),), (REPEAT_CLASSES,), (4,), (GAP_BUCKETS, 4)]
    shapes = [*items, (4, 12), (3, 12), (12,), (3, 4), (4,)]
    weights = LstmWeights(*(generator.normal(size=s).astype(np.float32) for s in shapes))
    # what was seen says something also by weights at random
    weights = replace(weights, near=np.zeros_like(weights.near), repeats=np.zeros_like(weights.repeats))
    return LstmModel(vocabulary, weights, 5)


@pytest.fixture(scope="module")
def model():
    train = shop(500, 0)
    return fit_hybrid(train, untrained(train), HybridConfig(judged_predictions=800), shop(200, 1))


def test_the_score_is_the_sum_of_parts_by_what_is_known_of_the_session(model):
    recent = np.array([[3, 1, 3, -1], [0, -1, -1, -1]], dtype=np.int32)
    parts, context = model.parts(recent), model.context(recent)
    counts = model.vocabulary.counts
    assert context[0].tolist() == pytest.approx([1, 1 / 3, np.log1p(counts[3]) / np.log1p(counts.max())])
    for row in range(2):
        expected = sum((context[row] @ model.weights[:, n]) * parts[name][row] for n, name in enumerate(PARTS))
        assert model.scores(recent)[row] == pytest.approx(expected, abs=1e-4)
    assert (parts["seen_last"][0, 3], parts["seen_second"][0, 1], parts["seen_third"][0].sum()) == (1, 1, 0)
    assert parts["seen_again"][0, 3] == pytest.approx(np.log(2))
    assert parts["seen_again"].sum() == pytest.approx(np.log(2))


def test_it_is_better_than_each_simple_method_it_is_made_of(model):
    train, test = shop(500, 0), shop(300, 2)
    own = evaluate(model, test)
    for simple in (SequentialRules, SessionPopularity):
        assert own.mrr_above(evaluate(simple.fit(train), test)).low > 0


def test_an_lstm_that_has_learned_nothing_is_hardly_trusted(model):
    trust = dict(zip(PARTS, np.abs(model.weights).sum(axis=0), strict=True))
    spread = {name: float(np.std(part)) for name, part in model.parts(np.array([[3, 1], [7, 2]], np.int32)).items()}
    assert trust["lstm"] * spread["lstm"] < 0.2 * trust["rules"] * spread["rules"]


def test_a_part_can_be_left_out_and_the_choice_taken_over():
    train = shop(200, 0)
    lstm = untrained(train)
    config = HybridConfig(judged_predictions=200, without=("lstm", "near"))
    fitted = fit_hybrid(train, lstm, config, shop(60, 1))
    assert not fitted.weights[:, [PARTS.index("lstm"), PARTS.index("near")]].any()
    again = HybridModel.of(train, lstm, config, fitted.weights)
    recent = np.array([[3, 1, -1]], dtype=np.int32)
    assert (again.scores(recent) == fitted.scores(recent)).all()
    other_weights = HybridModel.of(train, untrained(train, seed=9), config, fitted.weights)
    assert other_weights.scores(recent) == pytest.approx(fitted.scores(recent), abs=1e-6)


def test_a_configuration_survives_json():
    import json
    from dataclasses import asdict

    config = HybridConfig(index=IndexConfig(sessions_per_item=7), without=("near",))
    assert HybridConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config
    assert HybridModel.of([["a", "b"]], untrained([["a", "b"]]), config).weights.shape == (CONTEXTS, len(PARTS))
