"""Whom the leaderboard compares: bundles of this data, the others with the reason."""

from pathlib import Path

import pytest

from bigger_boat.errors import TrainingError
from bigger_boat.ml.bundle import Bundle
from bigger_boat.ml.recommender_choice import of_this_data


def bundle(dataset: str) -> Bundle:
    info = {"data_versions": {"recommendation_dataset": dataset}}
    return Bundle(Path("nowhere"), 1, "recommendation", "kind", "version", "today", info, {}, [])


def test_bundles_of_this_data_from_the_simplest_to_the_richest():
    made = {"hybrid": bundle("new"), "knn": bundle("new"), "prodb": bundle("new"), "lstm": bundle("new")}
    candidates, left_out = of_this_data(made, "new")
    assert list(candidates) == ["knn", "lstm", "prodb", "hybrid"]
    assert left_out == []


def test_what_is_of_other_data_or_was_not_made_is_left_out_with_the_reason():
    candidates, left_out = of_this_data({"knn": bundle("new"), "lstm": bundle("old")}, "new")
    assert list(candidates) == ["knn"]
    assert left_out == [
        "lstm_recommender is left out: The model was fitted on other data: recommendation_dataset old instead of new.",
        "prodb_recommender is left out: It has not been made.",
        "hybrid_recommender is left out: It has not been made.",
    ]


@pytest.mark.parametrize("made", [{}, {"knn": bundle("old")}])
def test_without_a_candidate_there_is_nothing_to_choose(made):
    with pytest.raises(TrainingError, match=r"found none\. knn_recommender is left out: ") as error:
        of_this_data(made, "new")
    assert "bigger-boat run --select" in error.value.hint
