from datetime import date, timedelta

import pytest

from bigger_boat.data.splits import split_days
from bigger_boat.errors import DatasetError


def days(count):
    return [date(2026, 1, 1) + timedelta(days=offset) for offset in range(count)]


@pytest.mark.parametrize(
    ("count", "train", "held_out"),
    # 15 % of the days, to the nearest day, at least one: 15 % of 10 is 1.5, so 2; of 9 is 1.35, so 1; of 90 is 13.5
    [(3, 1, 1), (4, 2, 1), (7, 5, 1), (9, 7, 1), (10, 6, 2), (14, 10, 2), (20, 14, 3), (90, 62, 14), (100, 70, 15)],
)
def test_the_last_days_test_and_those_before_them_validate(count, train, held_out):
    splits = split_days(days(count))
    assert splits.train == tuple(days(count)[:train])
    assert splits.validation == tuple(days(count)[train : train + held_out])
    assert splits.test == tuple(days(count)[train + held_out :])
    assert splits.days == tuple(days(count))


def test_days_come_in_any_order_with_gaps_and_twice():
    first, last = date(2026, 1, 1), date(2026, 3, 1)
    splits = split_days([last, first, date(2026, 2, 1), last])
    assert (splits.train, splits.validation, splits.test) == ((first,), (date(2026, 2, 1),), (last,))
    # a day in a gap belongs to the split whose days are around it
    assert splits.split_of(date(2026, 1, 20)) == "train"
    assert splits.split_of(date(2026, 2, 20)) == "validation"


def test_every_day_is_in_the_split_that_lists_it():
    splits = split_days(days(30))
    for split in ("train", "validation", "test"):
        assert {splits.split_of(day) for day in splits.days_of(split)} == {split}
        assert splits.range_of(split) == (splits.days_of(split)[0], splits.days_of(split)[-1])


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_days_are_refused_in_words(count):
    with pytest.raises(DatasetError, match=rf"at least 3 days, one each to train, validate and test; found {count}"):
        split_days(days(count))


@pytest.mark.parametrize("day", [date(2025, 12, 31), date(2026, 1, 5)])
def test_a_day_outside_has_no_split(day):
    with pytest.raises(DatasetError, match="outside of the data set's days, 2026-01-01 to 2026-01-04"):
        split_days(days(4)).split_of(day)
