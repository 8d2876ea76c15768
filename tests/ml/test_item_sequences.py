"""Item rules, vocabulary order and ragged prefixes."""

import numpy as np
import pytest

from bigger_boat.data.vocabulary import FIRST_SKU_ID, sku_ids
from bigger_boat.errors import TrainingError
from bigger_boat.ml.item_sequences import ItemVocabulary, TimedSequences, session_items


@pytest.mark.parametrize(
    ("events", "items"),
    [
        ([("detail", "a"), ("view", ""), ("detail", "b")], ["a", "b"]),
        ([("detail", "a"), ("detail", "a")], ["a", "a"]),  # repeats kept
        ([("search", ""), ("click", "a"), ("view", ""), ("detail", "a")], ["a"]),  # one item with its click
        ([("click", "a"), ("detail", "a"), ("detail", "a")], ["a", "a"]),  # the second look is one of its own
        ([("click", "a"), ("click", "b"), ("detail", "a")], ["a", "b", "a"]),  # not right after
        ([("click", "a"), ("click", "a")], ["a", "a"]),
        ([("detail", "a"), ("click", "a")], ["a", "a"]),
        ([("add", "a"), ("remove", "a"), ("purchase", "a")], []),
        ([("detail", ""), ("start", ""), ("strange", "x")], []),
        ([], []),
    ],
)
def test_items_of_a_session(events, items):
    assert session_items([action for action, _ in events], [sku for _, sku in events]) == items


def test_rows_are_ids_without_the_special_tokens():
    sequences = [["b", "a"], ["b", "c"], ["c", "z"]]
    vocabulary = ItemVocabulary.of(sequences)
    assert vocabulary.skus == ["b", "c", "a", "z"]  # falling counts, ties by SKU
    assert vocabulary.counts.tolist() == [2, 2, 1, 1]
    assert {sku: row + FIRST_SKU_ID for sku, row in vocabulary.rows.items()} == sku_ids(
        {"a": 1, "b": 2, "c": 2, "z": 1}
    )


def test_no_items_is_an_error_with_a_hint():
    with pytest.raises(TrainingError, match="found none"):
        ItemVocabulary.of([[], []])


def test_encoding_gives_each_unknown_product_its_own_negative_row():
    encoded = ItemVocabulary.of([["a", "a", "b"]]).encode([["b", "x", "a"], [], ["y", "x"]])
    assert encoded.rows.tolist() == [1, -1, 0, -2, -1]
    assert encoded.offsets.tolist() == [0, 3, 3, 5]


def test_prefixes_hold_the_known_items_before_each_next_one():
    encoded = ItemVocabulary.of([["a", "a", "a", "b", "b", "c"]]).encode([["a", "x", "b", "c"], ["c"], [], ["x", "a"]])
    histories, positions = encoded.prefixes()
    assert positions.tolist() == [1, 2, 3, 6]
    assert histories.lengths.tolist() == [1, 1, 2, 0]
    recent = histories.recent_first(np.arange(4))
    assert recent.tolist() == [[0, -1], [0, -1], [1, 0], [-1, -1]]


def test_times_go_where_their_items_go():
    sessions = TimedSequences([["a", "x", "b"], [], ["b"], ["x", "a"]], np.array([10, 20, 30, 40, 50, 60]))
    assert list(sessions[1:]) == [[], ["b"], ["x", "a"]]
    assert sessions[1:].times_ms.tolist() == [40, 50, 60]
    assert sessions.longer_than(1).times_ms.tolist() == [10, 20, 30, 50, 60]
    known = sessions.of_known({"a", "b"})
    assert (list(known), known.times_ms.tolist()) == ([["a", "b"], [], ["b"], ["a"]], [10, 30, 40, 60])
    vocabulary = ItemVocabulary.of([["a", "a", "b"]])
    whole = vocabulary.encode(sessions).whole()
    assert whole.recent_first(np.arange(4)).tolist() == [[1, 0], [-1, -1], [1, -1], [0, -1]]
    assert whole.recent_times(np.arange(4)).tolist() == [[30, 10], [-1, -1], [40, -1], [60, -1]]
    assert vocabulary.encode(list(sessions)).whole().recent_times(np.arange(4)) is None
    with pytest.raises(ValueError, match="5 times were given for 6 items"):
        TimedSequences(sessions.items, sessions.times_ms[1:])


def test_whole_histories_without_any_known_item():
    histories = ItemVocabulary.of([["a"]]).encode([["x"], []]).whole()
    assert histories.recent_first(np.arange(2)).tolist() == [[-1], [-1]]


def test_batches_cover_each_history_once():
    histories, _ = ItemVocabulary.of([["a", "b"]]).encode([["a", "b"] * n for n in range(1, 9)]).prefixes()
    batches = list(histories.batches(5))
    assert max(map(len, batches)) <= 5
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(histories)))
