"""The encoding of sessions, on sessions small enough to encode by hand."""

import numpy as np
import polars as pl
import pytest

from bigger_boat.data.vocabulary import ACTION_IDS, UNKNOWN_ID
from bigger_boat.ml.intent_features import (
    COUNT_FEATURES,
    WIDTHS,
    batches,
    count_features,
    encode_sessions,
    intent_frame,
    with_random_gaps,
)

SKU_IDS = {"A": 3, "B": 4}
VIEW, DETAIL, ADD = (ACTION_IDS[action] for action in ("view", "detail", "add"))


def encode(*sessions, max_events=100):
    return encode_sessions(intent_frame(sessions), SKU_IDS, max_events)


def test_one_session_by_hand():
    found = encode(
        {
            "actions": ["start", "pageview", "detail", "odd", "add", "purchase", "detail"],
            "skus": ["", "", "A", "", "A", "Z", "Z"],
            "timestamps_ms": [0, 1_000, 2_000, -1, 5_000, 4_000, 9_999_999],
        }
    )
    assert found.actions.tolist() == [VIEW, DETAIL, UNKNOWN_ID, ADD, UNKNOWN_ID, DETAIL]
    assert found.products.tolist() == [0, 3, 0, 3, 1, 1]
    assert found.firsts.tolist() == [-1, 1, -1, 1, 4, 4]
    assert found.has_gap.tolist() == [0, 1, 0, 0, 1, 1]
    assert found.log_gaps == pytest.approx([0, np.log(2), 0, 0, 0, np.log(3601)])


def test_the_contracts_events_and_aligned_lists_are_the_same_session():
    events = encode(["A", {"action": "add", "sku": "A", "timestamp_ms": 5}, {"action": "view"}])
    lists = encode({"actions": ["detail", "add", "view"], "skus": ["A", "A", ""], "timestamps_ms": [-1, 5, -1]})
    for name in ("actions", "products", "firsts", "log_gaps", "has_gap"):
        assert getattr(events, name).tolist() == getattr(lists, name).tolist()


def test_only_the_last_events_count_and_positions_start_there():
    found = encode(["A", "B", "A", "B"], max_events=3)
    assert found.products.tolist() == [4, 3, 4]
    assert found.firsts.tolist() == [0, 1, 0]


def test_empty_sessions_keep_their_row():
    found = encode([], ["A"], {"actions": ["end"]})
    assert found.lengths.tolist() == [0, 1, 0]
    padded = found.padded(np.array([0, 1]), 2)
    assert padded["actions"].tolist() == [[0, 0], [DETAIL, 0]]
    assert padded["firsts"].tolist() == [[-1, -1], [0, -1]]
    assert encode([]).padded(np.array([0]), 1)["actions"].tolist() == [[0]]


def test_a_batch_is_filled_up_with_empty_sessions():
    padded = encode(["A"], ["B", "A"]).padded(np.array([1]), 2, height=3)
    assert padded["products"].tolist() == [[4, 3], [0, 0], [0, 0]]
    assert padded["actions"].tolist() == [[DETAIL, DETAIL], [0, 0], [0, 0]]
    assert padded["firsts"].tolist() == [[0, 1], [-1, -1], [-1, -1]]
    assert padded["has_gap"].sum() == 0


def test_selected_sessions_are_those_that_were_encoded():
    sessions = [["A"], [], ["B", "A"], ["A", "A", "B"]]
    found, alone = encode(*sessions).select(np.array([3, 1, 0])), encode(sessions[3], sessions[1], sessions[0])
    for name in ("offsets", "actions", "products", "firsts", "log_gaps", "has_gap"):
        assert getattr(found, name).tolist() == getattr(alone, name).tolist()


def test_batches_hold_each_session_once_at_a_fixed_width():
    lengths = np.random.default_rng(1).integers(0, 300, 500)
    for generator in (None, np.random.default_rng(2)):
        found = list(batches(lengths, 64, generator))
        assert sorted(np.concatenate([rows for rows, _ in found])) == list(range(500))
        for rows, width in found:
            assert lengths[rows].max() <= width
            assert width in WIDTHS or width % WIDTHS[-1] == 0


def test_sorting_by_length_leaves_little_padding():
    lengths = np.random.default_rng(1).geometric(1 / 12, 5000)
    padded = sum(len(rows) * width for rows, width in batches(lengths, 128, np.random.default_rng(2)))
    assert padded < 1.7 * lengths.sum() < 0.2 * len(lengths) * lengths.max()


def test_random_gaps_take_whole_sessions_and_leave_repeats_of_forgotten_products():
    encoded = encode(*[["A", "B", "A", {"action": "add", "sku": "A", "timestamp_ms": 1}]] * 400)
    generator = np.random.default_rng(0)
    found = with_random_gaps(encoded, generator, drop_skus=0.25, drop_times=0, forget_products=0.1, forget_actions=0.1)
    products = found.products.reshape(400, 4)
    blank = (products == 0).all(axis=1)
    assert 0.15 < blank.mean() < 0.35
    assert (products[~blank] > 0).all()
    assert 0.05 < (products[~blank] == UNKNOWN_ID).mean() < 0.15
    assert found.firsts.reshape(400, 4)[~blank].tolist() == [[0, 1, 0, 0]] * (~blank).sum()
    assert (found.actions.reshape(400, 4)[:, 3] == ADD).all(), "the add is never forgotten: training counts from it"


def test_counts_by_hand():
    frame = intent_frame([{"actions": ["view", "detail", "detail", "add"], "timestamps_ms": [0, 500, 1_000, 2_000]}])
    found = count_features(frame.with_columns(pl.lit(2).alias("cut")))
    expected = {"view_count": 1, "detail_count": 2, "add_count": 1, "event_count": 4, "duration_s": 2, "cut": 2}
    assert dict(zip(COUNT_FEATURES, found[0], strict=True)) == dict.fromkeys(COUNT_FEATURES, 0) | expected
