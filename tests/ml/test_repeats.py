"""Where in the session a product was seen last, and how far back."""

import numpy as np

from bigger_boat.ml.repeats import NOT_SEEN, REPEAT_CLASSES, first_places, seen_classes


def test_each_product_counts_once_where_it_was_seen_last():
    classes = seen_classes(np.array([[5, 7, 5, -1]]))[0]
    no = NOT_SEEN
    assert classes.tolist() == [[0, no, no, no], [1, 0, no, no], [no, 1, 0, no], [no, 2, 1, no]]


def test_what_is_far_back_is_one_class():
    classes = seen_classes(np.arange(REPEAT_CLASSES + 3)[None])[0]
    assert classes[-1].tolist() == [REPEAT_CLASSES - 1] * 4 + [*range(REPEAT_CLASSES - 2, -1, -1)]


def test_it_says_the_same_as_the_history_last_item_first():
    rows = np.random.default_rng(0).integers(0, 4, (20, 7))
    for time in range(7):
        recent = rows[:, time::-1]
        seen = (seen_classes(rows)[:, time, : time + 1] != NOT_SEEN)[:, ::-1]
        assert (seen == first_places(recent)).all()
