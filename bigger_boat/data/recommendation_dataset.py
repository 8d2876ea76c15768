"""The products a session looked at, in order: what comes next is the recommendation task.

Items are ``detail`` events and search ``click`` events, repeats kept; a click and the detail it opens are one item.
Adds, removes and purchases are no items. What belongs elsewhere: encoding into arrays (``ml/``), the checks on the
files (``dataset_checks.py``).
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigger_boat.data.arrow_lists import FlatLists, flatten, require_aligned, take_lists
from bigger_boat.data.intent_dataset import EVENT_LISTS, SESSION_COLUMNS
from bigger_boat.data.split_files import SplitFiles, session_batches
from bigger_boat.data.splits import Splits
from bigger_boat.data.vocabulary import ITEM_ACTIONS

RECOMMENDATION_COLUMNS = pa.schema(
    [
        ("session_id", pa.string()),
        ("session_date", pa.date32()),
        ("started_at", pa.timestamp("us")),
        ("items", pa.list_(pa.string())),
        ("item_timestamps_ms", pa.list_(pa.int64())),
        ("item_actions", pa.list_(pa.string())),
    ]
)
"""What is written: a row per session with at least one item; the three lists are aligned."""

RECOMMENDATION_ORDER = ("session_date", "started_at", "session_id")


def build_recommendation_dataset(reader: Iterable[pa.RecordBatch], splits: Splits, directory: Path) -> dict[str, int]:
    """Write ``train``, ``validation`` and ``test.parquet`` (``RECOMMENDATION_COLUMNS``); return the rows of each.

    ``reader`` yields ``sessions`` in the order (session_date, started_at, session_id), in batches of any size; memory
    is bounded by the batch. The same sessions give the same bytes. Raises DatasetError if they are not in order, not
    aligned, or of a day outside of the splits.
    """
    with SplitFiles(directory, splits, RECOMMENDATION_COLUMNS) as files:
        for batch in session_batches(reader, SESSION_COLUMNS):
            files.write(item_sequences(batch))
    return files.rows


def item_sequences(sessions: pa.RecordBatch) -> pa.RecordBatch:
    """Return the items (``RECOMMENDATION_COLUMNS``) of those sessions (``SESSION_COLUMNS``) that have any."""
    lists = {name: flatten(sessions.column(name), name) for name in EVENT_LISTS}
    require_aligned(lists)
    session_rows = lists["actions"].rows()
    indices = _item_indices(lists["actions"], lists["skus"], session_rows)
    counts = np.bincount(session_rows[indices], minlength=sessions.num_rows)
    kept = np.flatnonzero(counts)
    offsets = np.concatenate([[0], np.cumsum(counts[kept])])
    taken = sessions.select(["session_id", "session_date", "started_at"]).take(pa.array(kept))
    return pa.RecordBatch.from_arrays(
        [
            *taken.columns,
            take_lists(lists["skus"], indices, offsets),
            take_lists(lists["timestamps_ms"], indices, offsets),
            take_lists(lists["actions"], indices, offsets),
        ],
        schema=RECOMMENDATION_COLUMNS,
    )


def _item_indices(actions: FlatLists, skus: FlatLists, session_rows: np.ndarray) -> np.ndarray:
    """Return the flat indices of the events that are items, (items,)."""
    is_item = pc.and_(
        pc.is_in(actions.values, value_set=pa.array(ITEM_ACTIONS)), pc.not_equal(skus.values, "")
    ).to_numpy(zero_copy_only=False)
    indices = np.flatnonzero(is_item)
    if not len(indices):
        return indices
    item_skus = skus.values.take(pa.array(indices))
    is_click = pc.equal(actions.values.take(pa.array(indices)), "click").to_numpy(zero_copy_only=False)
    same_session = session_rows[indices[1:]] == session_rows[indices[:-1]]
    same_sku = pc.equal(item_skus.slice(1), item_skus.slice(0, len(indices) - 1)).to_numpy(zero_copy_only=False)
    opened_by_click = np.zeros(len(indices), dtype=bool)
    opened_by_click[1:] = is_click[:-1] & ~is_click[1:] & same_session & same_sku
    return indices[~opened_by_click]
