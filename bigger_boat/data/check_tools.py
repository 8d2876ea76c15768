"""What the checks of data sets share: how a check becomes an outcome, and finding broken rows batch by batch.

What belongs elsewhere: the rules themselves (``dataset_checks.py``, ``leakage_checks.py``).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa

from bigger_boat.data.check_specs import SPECS
from bigger_boat.data.dataset_manifest import CheckOutcome
from bigger_boat.data.schemas import MAX_EXAMPLES
from bigger_boat.data.split_files import split_batches

Finding = tuple[list[str], str, float | None]
"""What is wrong, in sentences (nothing: the check passed); the sentence for when nothing is; the main number."""


def check(function: Callable[..., Finding]) -> Callable[..., CheckOutcome]:
    """Make a function that returns a Finding into the check of its name in ``SPECS``.

    Files that cannot be read that way (a column missing, a wrong type) fail the check; they do not raise.
    """
    spec = SPECS[function.__name__]

    @functools.wraps(function)
    def checked(*args: object, **kwargs: object) -> CheckOutcome:
        try:
            faults, passed_sentence, value = function(*args, **kwargs)
        except (pl.exceptions.PolarsError, pa.ArrowException, KeyError, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            faults, passed_sentence, value = [f"It could not be computed: {reason}."], "", None
        description = " ".join(faults) if faults else passed_sentence
        number = None if value is None else float(value)
        return CheckOutcome(spec.name, not faults, spec.blocking, description, number)

    return checked


def broken_rules(directory: Path, split: str, columns: Sequence[str], rules: Mapping[str, pl.Expr]) -> list[str]:
    """Return a sentence for each rule that rows of a split break; a rule's key goes on from "3 rows of train ...".

    A rule is an expression that is true for a broken row. It may look at the row before (``shift``), across row groups
    too, and counts as false where it is null. ``columns`` must hold session_id and session_date.
    """
    counts, examples, last = dict.fromkeys(rules, 0), {rule: [] for rule in rules}, None
    for batch in split_batches(directory, split, columns):
        new_rows = pl.from_arrow(batch)
        frame = new_rows if last is None else pl.concat([last, new_rows])
        broken = frame.select(rule.fill_null(False).alias(name) for name, rule in rules.items()).tail(new_rows.height)
        for rule in rules:
            wrong = new_rows.filter(broken[rule])
            counts[rule] += wrong.height
            examples[rule].append(wrong.head(MAX_EXAMPLES))
        last = new_rows.tail(1)
    return [
        f"{count:,} rows of {split} {rule}: {examples_of(pl.concat(examples[rule]))}."
        for rule, count in counts.items()
        if count
    ]


def examples_of(sessions: pl.DataFrame) -> str:
    """Return at most five sessions in words: "session a of 2026-01-31, ..."."""
    rows = sessions.head(MAX_EXAMPLES).select("session_id", "session_date").iter_rows()
    return ", ".join(f"session {session} of {day}" for session, day in rows)
