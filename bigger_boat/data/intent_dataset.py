"""Labelled beginnings of sessions with a cart: will a purchase come later?

A session is cut off before its first purchase; one example ends n events after its first add, for each n of
``INTENT_CUTS`` that the session reaches. No column tells where the session ends: knowing that alone would give the
label away. What belongs elsewhere: encoding into arrays (``ml/``), the checks on the files (``dataset_checks.py``).
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bigger_boat.data.arrow_lists import first_positions, flatten, prefix_indices, require_aligned, take_lists
from bigger_boat.data.split_files import SplitFiles, session_batches
from bigger_boat.data.splits import Splits
from bigger_boat.data.vocabulary import INTENT_CUTS

SESSION_COLUMNS = pa.schema(
    [
        ("session_id", pa.string()),
        ("session_date", pa.date32()),
        ("started_at", pa.timestamp("us")),
        ("actions", pa.list_(pa.string())),
        ("skus", pa.list_(pa.string())),
        ("timestamps_ms", pa.list_(pa.int64())),
    ]
)
"""What is read of ``cart_sessions``; lists are aligned, in the order of events."""

INTENT_COLUMNS = pa.schema(
    [
        ("session_id", pa.string()),
        ("session_date", pa.date32()),
        ("started_at", pa.timestamp("us")),
        ("cut", pa.int8()),
        ("actions", pa.list_(pa.string())),
        ("skus", pa.list_(pa.string())),
        ("timestamps_ms", pa.list_(pa.int64())),
        ("label", pa.bool_()),
    ]
)
"""What is written: a row per session and cut; timestamps in epoch milliseconds, ``started_at`` in UTC."""

INTENT_ORDER = ("session_date", "started_at", "session_id", "cut")

EVENT_LISTS = ("actions", "skus", "timestamps_ms")


def build_intent_dataset(reader: Iterable[pa.RecordBatch], splits: Splits, directory: Path) -> dict[str, int]:
    """Write ``train``, ``validation`` and ``test.parquet`` (``INTENT_COLUMNS``); return the rows of each.

    ``reader`` yields ``cart_sessions`` in the order (session_date, started_at, session_id), in batches of any size;
    memory is bounded by the batch. The same sessions give the same bytes. Raises DatasetError if they are not in order,
    not aligned, or of a day outside of the splits.
    """
    with SplitFiles(directory, splits, INTENT_COLUMNS) as files:
        for batch in session_batches(reader, SESSION_COLUMNS):
            files.write(intent_examples(batch))
    return files.rows


def intent_examples(sessions: pa.RecordBatch) -> pa.RecordBatch:
    """Return the examples (``INTENT_COLUMNS``) of sessions (``SESSION_COLUMNS``), ordered by session, then cut."""
    lists = {name: flatten(sessions.column(name), name) for name in EVENT_LISTS}
    require_aligned(lists)
    actions = lists["actions"]
    first_add = first_positions(_is(actions.values, "add"), actions)
    first_purchase = first_positions(_is(actions.values, "purchase"), actions)

    # An example of length n shows the events 0 to n - 1; the first purchase, if any, is at n or later.
    lengths = first_add[:, None] + np.array(INTENT_CUTS) + 1  # (sessions, cuts)
    rows, cuts = np.nonzero(lengths <= first_purchase[:, None])
    indices, offsets = prefix_indices(actions, rows, lengths[rows, cuts])
    bought = first_purchase < actions.lengths
    taken = sessions.select(["session_id", "session_date", "started_at"]).take(pa.array(rows))
    return pa.RecordBatch.from_arrays(
        [
            *taken.columns,
            pa.array(np.array(INTENT_CUTS, dtype=np.int8)[cuts]),
            *(take_lists(lists[name], indices, offsets) for name in EVENT_LISTS),
            pa.array(bought[rows]),
        ],
        schema=INTENT_COLUMNS,
    )


def _is(values: pa.Array, action: str) -> np.ndarray:
    return pc.equal(values, action).to_numpy(zero_copy_only=False)
