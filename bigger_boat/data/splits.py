"""Which day belongs to training, validation or test: by time only, never by chance.

What belongs elsewhere: reading and writing rows (``intent_dataset.py``, ``recommendation_dataset.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from bigger_boat.data.vocabulary import SPLITS
from bigger_boat.errors import DatasetError

HELD_OUT_PERCENT = 15
"""Share of the days in the test split, and the same again in the validation split before it."""

MIN_DAYS = len(SPLITS)


@dataclass(frozen=True)
class Splits:
    """The days of the data in time order, cut in three: training, then validation, then test."""

    train: tuple[date, ...]
    validation: tuple[date, ...]
    test: tuple[date, ...]

    @property
    def days(self) -> tuple[date, ...]:
        return self.train + self.validation + self.test

    def days_of(self, split: str) -> tuple[date, ...]:
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]

    def range_of(self, split: str) -> tuple[date, date]:
        """Return the first and the last day of a split, both inside it."""
        days = self.days_of(split)
        return days[0], days[-1]

    def split_of(self, day: date) -> str:
        """Return the split of a day. Raises DatasetError for a day before the first or after the last."""
        if not self.train[0] <= day <= self.test[-1]:
            raise DatasetError(
                f"Day {day} is outside of the data set's days, {self.train[0]} to {self.test[-1]}.",
                "Read only sessions of the days that the splits were made from.",
            )
        if day >= self.test[0]:
            return "test"
        return "validation" if day >= self.validation[0] else "train"


def split_days(days: Sequence[date]) -> Splits:
    """Cut the distinct days (in any order, gaps allowed): last 15 % test, 15 % before validation, each at least a day.

    Shares are rounded to the nearest day. Raises DatasetError if there are fewer than three days.
    """
    ordered = sorted(set(days))
    if len(ordered) < MIN_DAYS:
        found = ", ".join(map(str, ordered)) or "none"
        raise DatasetError(
            f"A data set needs at least {MIN_DAYS} days, one each to train, validate and test; found {len(ordered)} "
            f"({found}).",
            "Land more days (bigger-boat land DIR) and bring them to the warehouse, then build the data set again.",
        )
    held_out = max(1, (len(ordered) * HELD_OUT_PERCENT + 50) // 100)
    train_end = len(ordered) - 2 * held_out
    return Splits(
        train=tuple(ordered[:train_end]),
        validation=tuple(ordered[train_end : train_end + held_out]),
        test=tuple(ordered[train_end + held_out :]),
    )
