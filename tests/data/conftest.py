"""Sessions written by hand, for the tests of the data sets."""

import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no test folder on the path

from bigger_boat.data.splits import Splits, split_days

FIRST_DAY = date(2026, 1, 1)

CART_SESSIONS = pa.schema(
    [
        ("session_id", pa.string()),
        ("session_date", pa.date32()),
        ("started_at", pa.timestamp("us")),
        ("ended_at", pa.timestamp("us")),
        ("actions", pa.list_(pa.string())),
        ("skus", pa.list_(pa.string())),
        ("timestamps_ms", pa.list_(pa.int64())),
        ("first_add_index", pa.int32()),
        ("bought", pa.bool_()),
    ]
)


def session(name: str, day: int, story: str, second: int = 0) -> dict:
    """A session of day ``day`` (0: the first) from words: ``view``, ``add:A``, ``click:A@7`` (7 s after its start).

    Without a time an event comes a second after the one before it. ``second`` is the start, in s after midnight.
    """
    actions, skus, times = [], [], []
    for place, word in enumerate(story.split()):
        event, _, at = word.partition("@")
        action, _, sku = event.partition(":")
        after_s = int(at) if at else (times[-1] + 1 if place else 0)
        actions.append(action), skus.append(sku), times.append(after_s)
    session_date = FIRST_DAY + timedelta(days=day)
    start = datetime(session_date.year, session_date.month, session_date.day, tzinfo=UTC) + timedelta(seconds=second)
    start_ms = int(start.timestamp()) * 1000
    first_add = actions.index("add") if "add" in actions else None
    return {
        "session_id": name,
        "session_date": session_date,
        "started_at": start.replace(tzinfo=None),
        "ended_at": start.replace(tzinfo=None) + timedelta(seconds=times[-1] if times else 0),
        "actions": actions,
        "skus": skus,
        "timestamps_ms": [start_ms + after_s * 1000 for after_s in times],
        "first_add_index": first_add,
        "bought": first_add is not None and "purchase" in actions[first_add:],
    }


def batches(sessions: list[dict], rows: int = 1000) -> list[pa.RecordBatch]:
    """Sessions as the warehouse hands them out: in their total order, ``rows`` to a batch."""
    ordered = sorted(sessions, key=lambda row: (row["session_date"], row["started_at"], row["session_id"]))
    return pa.Table.from_pylist(ordered, CART_SESSIONS).to_batches(max_chunksize=rows)


@pytest.fixture(scope="session")
def make_session() -> Callable[..., dict]:
    return session


@pytest.fixture(scope="session")
def to_batches() -> Callable[..., list[pa.RecordBatch]]:
    return batches


@pytest.fixture(scope="session")
def four_days() -> Splits:
    """Days 0 and 1 train, day 2 validates, day 3 tests."""
    return split_days([FIRST_DAY + timedelta(days=offset) for offset in range(4)])
