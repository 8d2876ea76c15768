"""Slices and behaviour of rankers whose lists can be told in advance."""

import numpy as np
import pytest

from bigger_boat.ml.baselines import Markov, Popularity
from bigger_boat.ml.behaviour import behave, popularity_tiers, slices
from bigger_boat.ml.catalogue import Catalogue, Products
from bigger_boat.ml.item_sequences import ItemVocabulary
from bigger_boat.ml.recommender_evaluation import evaluate

PAST = [["a", "b", "c"], ["a", "b"], ["a", "b"], ["a", "d"]]
# counts: a 4, b 3, c 1, d 1 of 9; before them stand 0, .44, .78 and .89 of all interactions


def test_tiers_by_the_share_of_interactions_before_a_product():
    assert popularity_tiers(np.array([4, 3, 1, 1, 0])).tolist() == [0, 0, 1, 2, 3]


def test_slices_add_up_and_say_where_popularity_fails():
    ranker = Popularity.fit(PAST)
    sessions = [["a", "b", "ghost"], ["c", "d"], ["b", "a"]]
    evaluation = evaluate(ranker, sessions, k=2)  # always a, b: hits are b, a; misses ghost, d
    catalogue = Catalogue(np.array([1, 1, 2, 0]), np.array([1, 2, 3, 0]), np.zeros((4, 0), np.float32))
    rows = {
        (row["by"], row["slice"]): row
        for row in slices(ranker.vocabulary, sessions, evaluation, catalogue, [3, 13, 20])
    }
    assert rows["items seen", "1 seen"] | {"mrr": 0} == {
        "by": "items seen",
        "slice": "1 seen",
        "predictions": 3,
        "hit_rate": pytest.approx(2 / 3),
        "mrr": 0,
    }
    assert rows["items seen", "1 seen"]["mrr"] == pytest.approx((1 / 2 + 0 + 1) / 3)
    assert (rows["items seen", "2 to 3 seen"]["predictions"], rows["items seen", "2 to 3 seen"]["hit_rate"]) == (1, 0)
    popularity = {name: row["hit_rate"] for (by, name), row in rows.items() if by == "popularity of the target"}
    assert popularity == {"head": 1, "tail": 0, "unseen": 0}
    hours = {name: row["predictions"] for (by, name), row in rows.items() if by == "hour"}
    assert hours == {"night (0 to 6)": 2, "afternoon (12 to 18)": 1, "evening": 1}
    categories = {name: row["predictions"] for (by, name), row in rows.items() if by == "category"}
    assert categories == {"number 1": 2, "unknown": 2}


def test_slices_of_other_sessions_are_refused():
    ranker = Popularity.fit(PAST)
    with pytest.raises(ValueError, match="1 predictions of 2"):
        slices(ranker.vocabulary, [["a", "b", "c"]], evaluate(ranker, [["a", "b"]]))


def test_popularity_never_changes_its_mind_and_is_symmetric_only_at_the_top():
    vocabulary = Products({"new": {"category": "x", "price_bucket": 1}}).with_new(ItemVocabulary.of(PAST))
    found = behave(Popularity(vocabulary), PAST, Catalogue.unknown(5), k=2)
    assert (found["overlap_removed"], found["overlap_repeated"]) == (1, 1)
    # after a: b, after the others: a; a is in the list a, b of each, b too, c and d are in none
    assert found["symmetry"] == pytest.approx(2 / 4)
    assert found["new_products_answered"] == 0
    assert np.isnan(found["same_category"])


def test_what_only_looks_at_the_last_item_does_not_mind_a_removed_one():
    found = behave(Markov.fit(PAST), PAST, Catalogue.unknown(4), k=2)
    assert (found["overlap_removed"], found["overlap_repeated"]) == (1, 1)
    assert np.isnan(found["new_products_answered"])


def test_misses_are_less_wrong_in_the_right_category():
    past = [["a", "b"]] * 3 + [["c", "d"]] * 2 + [["c", "e"]] + [["f"]] * 9
    ranker = Markov.fit(past)
    products = Products(
        {
            sku: {"category": "warm" if sku in "cde" else "cold", "price_bucket": price}
            for sku, price in zip("abcdef", range(6), strict=True)
        }
    )
    found = behave(ranker, [["c", "e"]] * 3, products.of(ranker.vocabulary), k=1)
    # after c it says d: a miss, but of the same category and one price step away; f, the most popular, is cold
    assert (found["misses"], found["same_category"]) == (3, 1)
    assert found["same_category_of_popular"] == 0
    assert (found["price_steps"], found["price_steps_of_popular"]) == (1, 1)
