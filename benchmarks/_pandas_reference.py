"""The peer of data_preparation.py: the intent data set row by row over pandas, as one would write it.

A program of its own, so that its memory can be told:
python benchmarks/_pandas_reference.py SHOP OUT.parquet session_by_session|in_one_pass

It knows nothing of ``bigger_boat``: what a session is, which events count and where examples are cut stands here again.
"""

import ast
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd

CUTS = (0, 2, 4, 6, 8, 10)
TIEBREAK = {"search": 1, "click": 2, "view": 3, "detail": 4, "add": 5, "remove": 6, "purchase": 7}
ONE_DAY = timedelta(days=1)


def read_shop(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return browsing and search rows as they stand in the files."""
    browsing = pd.read_csv(folder / "browsing_train.csv").fillna("")
    columns = ["session_id_hash", "clicked_skus_hash", "server_timestamp_epoch_ms"]
    search = pd.read_csv(folder / "search_train.csv", usecols=columns).fillna("")
    return browsing, search


def session_by_session(browsing: pd.DataFrame, search: pd.DataFrame) -> Iterator[tuple[str, list[tuple]]]:
    """Yield each id with its events (time, action, SKU, URL): a group of rows at a time, as most would write it."""
    searches = dict(iter(search.groupby("session_id_hash")))
    for session_id, rows in browsing.groupby("session_id_hash"):
        events = [browsing_event(row) for _, row in rows.iterrows()]
        for _, row in searches.pop(session_id, search.head(0)).iterrows():
            events += search_events(row)
        yield session_id, events
    for session_id, rows in searches.items():
        yield session_id, [event for _, row in rows.iterrows() for event in search_events(row)]


def in_one_pass(browsing: pd.DataFrame, search: pd.DataFrame) -> Iterator[tuple[str, list[tuple]]]:
    """Yield the same, from one loop over all rows: the fastest that rows in Python get."""
    events = defaultdict(list)
    for row in browsing.itertuples(index=False):
        events[row.session_id_hash].append(browsing_event(row))
    for row in search.itertuples(index=False):
        events[row.session_id_hash] += search_events(row)
    yield from events.items()


def browsing_event(row) -> tuple:
    action = "view" if row.event_type == "pageview" else row.product_action
    return row.server_timestamp_epoch_ms, action, row.product_sku_hash, row.hashed_url


def search_events(row) -> list[tuple]:
    """Return the search, and a click per product that was clicked."""
    clicked = ast.literal_eval(row.clicked_skus_hash) if row.clicked_skus_hash else []
    at = row.server_timestamp_epoch_ms
    return [(at, "search", "", ""), *((at, "click", sku, "") for sku in clicked)]


def intent_rows(sessions: Iterable[tuple[str, list[tuple]]]) -> list[dict]:
    """Return an example per session and cut, ordered by day, start and session."""
    examples = [example for session_id, events in sessions for example in session_examples(session_id, events)]
    return sorted(examples, key=lambda row: (row["session_date"], row["started_at"], row["session_id"], row["cut"]))


def session_examples(session_id: str, events: list[tuple]) -> Iterator[dict]:
    """Yield the examples of everything that ever happened under one id."""
    products = {(at, url) for at, action, _, url in events if action not in ("view", "search", "click")}
    days = defaultdict(list)
    for at, action, sku, url in set(events):
        if action == "view" and (at, url) in products:
            continue
        days[datetime.fromtimestamp(at // 1000, UTC).date()].append((at, TIEBREAK[action], sku, action))
    for day in days:
        if day - ONE_DAY not in days:
            ordered = sorted(days[day] + days.get(day + ONE_DAY, []))
            yield from cut_examples(session_id, day, ordered)


def cut_examples(session_id: str, day, events: list[tuple]) -> Iterator[dict]:
    """Yield the beginnings of a session that end so many events after its first add, and before any purchase."""
    actions = [event[3] for event in events]
    bought = "purchase" in actions
    shown = actions[: actions.index("purchase")] if bought else actions
    if "add" not in shown:
        return
    for cut in CUTS:
        length = shown.index("add") + cut + 1
        if length <= len(shown):
            yield {
                "session_id": session_id,
                "session_date": day,
                "started_at": datetime.fromtimestamp(events[0][0] / 1000, UTC).replace(tzinfo=None),
                "cut": cut,
                "actions": actions[:length],
                "skus": [event[2] for event in events[:length]],
                "timestamps_ms": [event[0] for event in events[:length]],
                "label": bought,
            }


def main() -> None:
    """Read, make the rows, write them; print how long each took."""
    shop, out, sessions_of = Path(sys.argv[1]), Path(sys.argv[2]), globals()[sys.argv[3]]
    started = time.perf_counter()
    browsing, search = read_shop(shop)
    read = time.perf_counter()
    examples = intent_rows(sessions_of(browsing, search))
    made = time.perf_counter()
    pd.DataFrame(examples).to_parquet(out)
    print(json.dumps({"read_s": read - started, "rows_s": made - read, "examples": len(examples)}))


if __name__ == "__main__":
    main()
