"""What a session without a product gets: first products, of late."""

import numpy as np
import pytest

from bigger_boat.ml.baselines import Popularity
from bigger_boat.ml.item_sequences import ItemVocabulary, TimedSequences
from bigger_boat.ml.openings import FADE_MS, OF_ALL, judge_openings, openings

SESSIONS = [["a", "c", "c"], ["b"], [], ["a", "c"], ["ghost", "b"]]
VOCABULARY = ItemVocabulary(["c", "a", "b"], np.array([3, 2, 1]))


def test_first_products_count_and_all_products_have_a_place():
    expected = (1 - OF_ALL) * np.array([0, 2 / 3, 1 / 3]) + OF_ALL * np.array([3, 2, 1]) / 6
    assert openings(SESSIONS, VOCABULARY) == pytest.approx(expected)
    assert openings([[], ["ghost"]], VOCABULARY) == pytest.approx(VOCABULARY.popularity)


def test_the_last_days_count_more():
    times_ms = np.array([0, 1, 2, FADE_MS, 0, 1, FADE_MS, FADE_MS])
    shares = (openings(TimedSequences(SESSIONS, times_ms), VOCABULARY) - OF_ALL * VOCABULARY.popularity) / (1 - OF_ALL)
    old, new = 2 * np.exp(-1), 1
    assert shares == pytest.approx([0, old / (old + new), new / (old + new)])


def test_a_time_that_is_not_known_makes_nothing_old():
    times_ms = np.array([-1, 1, 2, FADE_MS, -1, 1, 5, 6])
    assert openings(TimedSequences(SESSIONS, times_ms), VOCABULARY) == pytest.approx(openings(SESSIONS, VOCABULARY))


def test_the_first_product_of_each_session_is_looked_for():
    found = judge_openings(np.array([0.1, 0.7, 0.2]), VOCABULARY, SESSIONS, k=2)
    assert found == {"predictions": 4, "hit_rate": 0.75, "mrr": (1 + 0.5 + 1) / 4}
    assert np.isnan(judge_openings(np.ones(3), VOCABULARY, [[]])["mrr"])


def test_a_ranker_answers_with_it():
    ranker = Popularity(VOCABULARY)
    assert ranker.rank([["ghost"]])[0].tolist() == [["c", "a", "b"]]
    ranker.opening = openings(SESSIONS, VOCABULARY)
    assert ranker.rank([[], ["ghost"]])[0].tolist() == [["a", "b", "c"]] * 2
    assert ranker.rank([["a"]])[0].tolist() == [["c", "a", "b"]]
