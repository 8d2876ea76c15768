"""Checks of a data set's files against the rules of its contract, read back from what was written.

Each returns a ``CheckOutcome`` whose description is a plain sentence with the numbers. They go through the files in
batches and share no code with the builders. What belongs elsewhere: checks against leakage (``leakage_checks.py``), the
manifest that carries the outcomes (``dataset_manifest.py``).
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from bigger_boat.data.check_tools import Finding, broken_rules, check, examples_of
from bigger_boat.data.dataset_manifest import CheckOutcome
from bigger_boat.data.leakage_checks import events_end_before_label, labels_match_sessions, no_end_of_session_hint
from bigger_boat.data.read_ahead import side_by_side
from bigger_boat.data.schemas import MAX_EXAMPLES, intent_schema, recommendation_schema, schema_failures
from bigger_boat.data.split_files import ORDER, read_split, split_batches, split_path
from bigger_boat.data.splits import Splits
from bigger_boat.data.vocabulary import SPLITS

MIN_COVERAGE = 0.6
"""Below this share of known products among the events of a later split, training looks too old or too small."""


def intent_checks(directory: Path, splits: Splits, cart_sessions: Iterable[pa.RecordBatch]) -> list[CheckOutcome]:
    """Return the outcomes of all checks of ``intent_dataset``, in the order of ``INTENT_CHECKS``.

    ``cart_sessions`` are the sessions it was built from, read once more, with the warehouse's own ``first_add_index``
    and ``bought``, in any order.
    """
    return side_by_side(
        [
            lambda: rows_match_schema(directory, intent_schema),
            lambda: events_end_before_label(directory),
            lambda: labels_match_sessions(directory, cart_sessions),
            lambda: no_end_of_session_hint(directory),
            lambda: splits_in_time_order(directory, splits),
            lambda: sessions_disjoint(directory),
            lambda: class_balance(directory),
            lambda: vocabulary_coverage(directory, "skus"),
        ]
    )


def recommendation_checks(directory: Path, splits: Splits) -> list[CheckOutcome]:
    """Return the outcomes of all checks of ``recommendation_dataset``, in the order of ``RECOMMENDATION_CHECKS``."""
    return side_by_side(
        [
            lambda: rows_match_schema(directory, recommendation_schema),
            lambda: splits_in_time_order(directory, splits),
            lambda: sessions_disjoint(directory),
            lambda: sessions_have_next_items(directory),
            lambda: vocabulary_coverage(directory, "items"),
        ]
    )


@check
def rows_match_schema(directory: Path, make_schema: Callable) -> Finding:
    """``make_schema`` returns the schema (``schemas.intent_schema``); rows are validated by row group."""
    schema, rows, failures, examples = make_schema(), 0, 0, []
    for split in SPLITS:
        header = pl.from_arrow(pq.read_schema(split_path(directory, split)).empty_table())
        for frame in (header, *map(pl.from_arrow, split_batches(directory, split))):
            found = schema_failures(schema, frame)
            rows, failures = rows + frame.height, failures + found.count
            examples += [f"{split}: {example}" for example in found.examples]
    faults = [f"{failures:,} failures in {rows:,} rows: {'; '.join(examples[:MAX_EXAMPLES])}."] if failures else []
    return faults, f"All {rows:,} rows follow the schema of {len(schema.columns)} columns.", failures


@check
def splits_in_time_order(directory: Path, splits: Splits) -> Finding:
    faults, parts, rows = [], [], 0
    for split in SPLITS:
        first, last = splits.range_of(split)
        columns = pq.read_schema(split_path(directory, split)).names
        order = [*ORDER, "cut"] if "cut" in columns else [*ORDER]
        days = read_split(directory, split, ["session_date"])["session_date"]
        if days.is_empty():
            faults.append(f"The {split} split ({first} to {last}) has no row.")
            continue
        rows += len(days)
        parts.append(f"{split} {first} to {last} ({len(days):,} rows)")
        if days.min() < first or days.max() > last:
            faults.append(f"{split} should hold {first} to {last}, and holds {days.min()} to {days.max()}.")
        rule = f"do not come after the row before them, by {', '.join(order)}"
        faults += broken_rules(directory, split, order, {rule: ~_rises(order)})
    return faults, f"Days do not overlap and rows are in order: {', '.join(parts)}.", rows


def _rises(order: list[str]) -> pl.Expr:
    """True where a row comes after the one before it, by the first of ``order`` that differs; null at the first row."""
    first, *others = (pl.col(name) for name in order)
    later = first > first.shift()
    return (
        later | ((first == first.shift()) & _rises([each.meta.output_name() for each in others])) if others else later
    )


@check
def sessions_disjoint(directory: Path) -> Finding:
    keys, faults = [], []
    for split in SPLITS:
        columns = pq.read_schema(split_path(directory, split)).names
        grain = ["session_id", "session_date", *(["cut"] if "cut" in columns else [])]
        rows = read_split(directory, split, grain)
        twice = rows.filter(pl.struct(grain).is_duplicated()).select("session_id", "session_date").unique()
        if twice.height:
            faults.append(
                f"{twice.height:,} sessions of {split} come twice by {', '.join(grain)}: {examples_of(twice)}."
            )
        keys.append(rows.select("session_id", "session_date").unique())
    sessions = pl.concat(keys)
    shared = sessions.filter(pl.struct("session_id", "session_date").is_duplicated()).unique()
    if shared.height:
        faults.append(f"{shared.height:,} sessions are in more than one split: {examples_of(shared)}.")
    counts = ", ".join(f"{split} {frame.height:,}" for split, frame in zip(SPLITS, keys, strict=True))
    return faults, f"The {sessions.height:,} sessions are each in one split: {counts}.", shared.height


@check
def class_balance(directory: Path) -> Finding:
    faults, parts, share = [], [], None
    for split in SPLITS:
        labels = read_split(directory, split, ["label"])["label"]
        bought = int(labels.sum())
        if bought in (0, len(labels)):
            missing = "with" if bought == 0 else "without"
            faults.append(
                f"{split} has {len(labels):,} examples, and none {missing} a purchase: nothing can be learnt."
            )
        else:
            parts.append(f"{split} {bought / len(labels):.1%} of {len(labels):,}")
            share = bought / len(labels) if share is None else share
    return faults, f"Share of examples with a purchase to come: {', '.join(parts)}.", share


@check
def sessions_have_next_items(directory: Path) -> Finding:
    faults, parts, total = [], [], 0
    for split in SPLITS:
        lengths = read_split(directory, split, ["items"]).select(pl.col("items").list.len())["items"]
        long_enough = int((lengths > 1).sum())
        if not long_enough:
            faults.append(f"None of the {len(lengths):,} sessions of {split} has a second item to recommend.")
        total += long_enough
        parts.append(f"{split} {long_enough:,} of {len(lengths):,}")
    return faults, f"Sessions with at least two items: {', '.join(parts)}.", total


@check
def vocabulary_coverage(directory: Path, column: str) -> Finding:
    """``column`` is the list of SKUs; '' is no product. Counted by event, so that frequent products weigh more."""
    known = pl.Series([], dtype=pl.String)
    for products in _products(directory, "train", column):
        known = pl.concat([known, products]).unique()
    faults, shares = [], []
    for split in SPLITS[1:]:
        events, seen = 0, 0
        for products in _products(directory, split, column):
            events, seen = events + len(products), seen + int(products.is_in(known.implode()).sum())
        share = seen / events if events else 0.0
        shares.append(share)
        if share < MIN_COVERAGE:
            faults.append(
                f"Training knows {share:.1%} of the {events:,} products of {split}, less than {MIN_COVERAGE:.0%}: "
                "models answer the rest from popularity."
            )
    numbers = " and ".join(f"{share:.1%} of {split}" for split, share in zip(SPLITS[1:], shares, strict=True))
    return faults, f"The {len(known):,} products of training cover {numbers}, by events.", min(shares)


def _products(directory: Path, split: str, column: str) -> Iterable[pl.Series]:
    for batch in split_batches(directory, split, [column]):
        products = pl.from_arrow(batch.column(column).flatten())
        yield products.filter(products != "")
