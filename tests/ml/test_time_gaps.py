"""Pauses between items, as classes."""

import numpy as np

from bigger_boat.ml.time_gaps import GAP_BUCKETS, GAP_EDGES_S, NO_GAP, flat_gap_buckets, gap_buckets


def test_a_pause_belongs_to_the_item_behind_it():
    times_ms = np.array([[100_000, 60_000, 58_000, 57_001, -1], [7, -1, 3, 9, -1]])  # last item first
    assert gap_buckets(times_ms).tolist() == [[6, 2, 1, NO_GAP, NO_GAP], [NO_GAP, NO_GAP, 1, NO_GAP, NO_GAP]]


def test_the_edges_belong_to_the_longer_class():
    assert [int(gap_buckets(np.array([[edge * 1000, 0]]))[0, 0]) for edge in GAP_EDGES_S] == [*range(2, GAP_BUCKETS)]


def test_sessions_one_behind_the_other_have_the_same_classes():
    times_ms = np.array([0, 3_000, 90_000, 5, 6, -1])
    assert flat_gap_buckets(times_ms, np.array([0, 3, 5, 6])).tolist() == [NO_GAP, 2, 7, NO_GAP, 1, NO_GAP]
    for start, end in ((0, 3), (3, 5)):
        reversed_ms = times_ms[start:end][::-1][None]
        expected = gap_buckets(reversed_ms)[0][::-1].tolist()
        assert flat_gap_buckets(times_ms[start:end], np.array([0])).tolist() == expected
