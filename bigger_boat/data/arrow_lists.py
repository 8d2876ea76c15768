"""List columns as flat values and offsets: the arithmetic of data sets without a Python object per row.

What belongs elsewhere: what the lists mean (``intent_dataset.py``, ``recommendation_dataset.py``).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from bigger_boat.errors import DatasetError


@dataclass(frozen=True)
class FlatLists:
    """``values`` of all lists behind one another; list r is ``values[offsets[r]:offsets[r + 1]]``."""

    values: pa.Array
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def rows(self) -> np.ndarray:
        """Return for each value the row of its list, shape (values,)."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.lengths)


def flatten(column: pa.ListArray, name: str) -> FlatLists:
    """Return a list column, possibly a slice, as flat values. Raises DatasetError for a missing list or value."""
    offsets = np.asarray(column.offsets, dtype=np.int64)
    values = column.values.slice(offsets[0], offsets[-1] - offsets[0])
    if column.null_count or values.null_count:
        raise DatasetError(
            f"Column {name} has {column.null_count} missing lists and {values.null_count} missing values.",
            "Lists of a session have a value for each event; run the warehouse's days again.",
        )
    return FlatLists(values, offsets - offsets[0])


def require_aligned(lists: dict[str, FlatLists]) -> None:
    """Raise DatasetError unless all columns have lists of the same lengths, row by row."""
    (first_name, first), *others = lists.items()
    for name, other in others:
        if not np.array_equal(first.offsets, other.offsets):
            row = int(np.flatnonzero(first.lengths != other.lengths)[0])
            raise DatasetError(
                f"Columns {first_name} and {name} are not aligned: row {row} has {first.lengths[row]} and "
                f"{other.lengths[row]} values.",
                "Each event has an action, a SKU and a time; run the warehouse's days again.",
            )


def first_positions(flags: np.ndarray, lists: FlatLists) -> np.ndarray:
    """Return the place in each list of the first true flag, or the list's length where none is, shape (rows,)."""
    hits = np.flatnonzero(flags)
    rows = np.searchsorted(lists.offsets, hits, side="right") - 1
    is_first = np.ones(len(hits), dtype=bool)
    is_first[1:] = rows[1:] != rows[:-1]
    positions = lists.lengths
    positions[rows[is_first]] = hits[is_first] - lists.offsets[rows[is_first]]
    return positions


def prefix_indices(lists: FlatLists, rows: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return flat indices and offsets of the first ``lengths[i]`` values of list ``rows[i]``, for all i."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    shift = lists.offsets[rows] - offsets[:-1]
    return np.arange(offsets[-1]) + np.repeat(shift, lengths), offsets


def take_lists(lists: FlatLists, indices: np.ndarray, offsets: np.ndarray) -> pa.ListArray:
    """Return lists of the values at flat ``indices``, cut at ``offsets``."""
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), lists.values.take(pa.array(indices)))
