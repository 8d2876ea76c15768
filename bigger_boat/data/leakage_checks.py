"""Checks that no example of ``intent_dataset`` knows what it is asked: the purchase to come, or where the session ends.

They share no code with the builder. What belongs elsewhere: the other checks (``dataset_checks.py``).
"""

from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from bigger_boat.data.check_tools import Finding, broken_rules, check, examples_of
from bigger_boat.data.intent_dataset import EVENT_LISTS, INTENT_COLUMNS
from bigger_boat.data.split_files import split_batches, split_path
from bigger_boat.data.vocabulary import INTENT_CUTS, SPLITS

SESSION = ["session_id", "session_date"]

CART_SESSION_COLUMNS = (*SESSION, "actions", "timestamps_ms", "first_add_index", "bought")
"""What is read of ``cart_sessions`` to check labels; the last two are counted by the warehouse's SQL."""

FACTS = {
    "session_id": pl.String,
    "session_date": pl.Date,
    "first_add_index": pl.Int64,
    "bought": pl.Boolean,
    "events_before_purchase": pl.Int64,
    "purchase_ms": pl.Int64,
    "expected": pl.Int64,
}
"""What the warehouse says of a session: ``expected`` is the number of cuts it reaches; ``purchase_ms`` may be null."""


@check
def events_end_before_label(directory: Path) -> Finding:
    actions = pl.col("actions")
    add_at = actions.list.len().cast(pl.Int64) - 1 - pl.col("cut")
    add_in_place = (add_at >= 0) & (actions.list.get(add_at, null_on_oob=True) == "add").fill_null(False)
    rules = {
        "show a purchase": actions.list.contains("purchase"),
        "do not end at their cut, counted from the first add": ~add_in_place
        | actions.list.head(pl.max_horizontal(add_at, 0)).list.contains("add"),
    }
    faults, rows = [], 0
    for split in SPLITS:
        rows += pq.read_metadata(split_path(directory, split)).num_rows
        faults += broken_rules(directory, split, [*SESSION, "cut", "actions"], rules)
    return faults, f"None of {rows:,} examples shows a purchase; each ends at its cut after the first add.", len(faults)


@check
def no_end_of_session_hint(directory: Path) -> Finding:
    """Exactly the agreed columns; no time but that of the first event; the cuts of a session come without a gap, each
    a continuation of the one before, with one label.
    """
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift() for name in SESSION).fill_null(False)
    place = pl.col("cut").replace_strict({cut: index for index, cut in enumerate(INTENT_CUTS)}, default=-1)
    next_place = pl.when(same).then(place.shift() + 1).otherwise(0)
    rules = {
        "have a started_at that is not the first event's time": pl.col("started_at").dt.epoch("ms")
        != pl.col("timestamps_ms").list.first(),
        "leave out a cut before them": place != next_place,
        "do not continue the example before them": same & ~pl.all_horizontal(map(_continues, EVENT_LISTS)),
        "have another label than the example before them": same & (pl.col("label") != pl.col("label").shift()),
    }
    faults, rows = [], 0
    for split in SPLITS:
        columns = pq.read_schema(split_path(directory, split)).names
        if columns != INTENT_COLUMNS.names:
            extra = sorted(set(columns) - set(INTENT_COLUMNS.names)) or "none too many"
            faults.append(f"{split} should have the columns {INTENT_COLUMNS.names}; it has {columns} ({extra}).")
            continue
        faults += broken_rules(directory, split, columns, rules)
        rows += pq.read_metadata(split_path(directory, split)).num_rows
    passed = f"No column beside the {len(INTENT_COLUMNS)} agreed ones; no gap in the cuts of {rows:,} rows."
    return faults, passed, len(faults)


def _continues(column: str) -> pl.Expr:
    before = pl.col(column).shift()
    return pl.col(column).list.head(before.list.len()) == before


@check
def labels_match_sessions(directory: Path, cart_sessions: Iterable[pa.RecordBatch]) -> Finding:
    """``cart_sessions`` (``CART_SESSION_COLUMNS``, any order): what the warehouse says of each session with a cart."""
    facts = _session_facts(cart_sessions)
    examples = pl.concat(_example_ends(directory, split) for split in SPLITS)
    joined = examples.join(facts, on=SESSION, how="left")
    rules = {
        "are of no session with a cart": pl.col("bought").is_null(),
        "have a label that is not the session's": pl.col("label") != pl.col("bought"),
        "do not end at their cut": pl.col("events") != pl.col("first_add_index") + 1 + pl.col("cut"),
        "show an event at or after the purchase": (pl.col("events") > pl.col("events_before_purchase"))
        | (pl.col("last_ms") > pl.col("purchase_ms")),
    }
    faults = []
    for rule, broken in rules.items():
        wrong = joined.filter(broken.fill_null(False))
        if wrong.height:
            faults.append(f"{wrong.height:,} examples {rule}: {examples_of(wrong)}.")
    found = examples.group_by(SESSION).agg(found=pl.len())
    missing = facts.join(found, on=SESSION, how="left").filter(
        pl.col("found").fill_null(0).cast(pl.Int64) != pl.col("expected")
    )
    if missing.height:
        faults.append(
            f"{missing.height:,} sessions have not as many examples as they reach cuts: {examples_of(missing)}."
        )
    passed = f"{examples.height:,} examples agree with {facts.height:,} sessions with a cart in label, cut and end."
    return faults, passed, examples.height


def _session_facts(cart_sessions: Iterable[pa.RecordBatch]) -> pl.DataFrame:
    actions = pl.col("actions")
    purchase = actions.list.eval(pl.element().eq("purchase").arg_max()).list.first()
    before = pl.when(actions.list.contains("purchase")).then(purchase).otherwise(actions.list.len()).cast(pl.Int64)
    reached = [pl.col("first_add_index") + 1 + cut <= pl.col("events_before_purchase") for cut in INTENT_CUTS]
    frames = [pl.DataFrame(schema=FACTS)]
    for batch in cart_sessions:
        frame = pl.from_arrow(pa.Table.from_batches([batch.select(CART_SESSION_COLUMNS)]))
        frame = frame.with_columns(events_before_purchase=before).with_columns(
            purchase_ms=pl.col("timestamps_ms").list.get(pl.col("events_before_purchase"), null_on_oob=True),
            expected=pl.sum_horizontal(reached),
        )
        frames.append(frame.select(*FACTS).cast(FACTS))
    return pl.concat(frames)


def _example_ends(directory: Path, split: str) -> pl.DataFrame:
    times = pl.col("timestamps_ms").list
    columns = [*SESSION, "cut", "timestamps_ms", "label"]
    header = pl.from_arrow(pq.read_schema(split_path(directory, split)).empty_table()).select(columns)
    frames = (header, *map(pl.from_arrow, split_batches(directory, split, columns)))
    return pl.concat(
        frame.select(*SESSION, "cut", "label", events=times.len().cast(pl.Int64), last_ms=times.last())
        for frame in frames
    )
