"""Is what arrives what a shop sends? Checks by day over the landing index and counts that the warehouse answers.

Thresholds, plain sentences, one number to plot per check, and SQL for at most five examples of what is wrong. Standard
library only at import: the asset graph reads the specs. What belongs elsewhere: running the queries and showing results
(``assets/arrival.py``), which rows land at all (``source_rows.py``).
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from statistics import median

from bigger_boat.data.check_specs import CheckSpec
from bigger_boat.data.landing_index import EVENT_TABLES, DayEntry, LandingIndex

MAX_EXAMPLES = 5
SHOWN_CHARACTERS = 100
FRESH_DAYS = 2
"""How many days the last landed day may be behind the last day that is over."""
WEEKS_BEFORE = 4
USUAL_VOLUME = (0.5, 2.0)
WARN_REJECTED, BLOCK_REJECTED = 0.01, 0.2
WARN_DUPLICATES = 0.05
WARN_WITHOUT_METADATA = 0.6
"""Real shops know nothing of two products in five, and the products of one day are no better known."""
SESSION_LIMIT_S = 1800
WARN_BEYOND_LIMIT = 0.15
USUAL_LENGTH = (4, 10)
FEW = 100
"""Shares and means of fewer rows than that say nothing: they are shown, but never warn."""
UNKNOWN_ACTION_REASONS = ("event_type_unknown", "product_action_unknown")

ARRIVES = CheckSpec("days_have_arrived", f"The last landed day is at most {FRESH_DAYS} days behind.", blocking=False)
VOLUME = CheckSpec("volume_is_usual", "A day has 50 % to 200 % of the rows of its weekday before.", blocking=False)
FEW_REJECTS = CheckSpec("few_rows_rejected", "Less than 1 % of a day's rows were rejected.", blocking=False)
REJECTS = CheckSpec("rejects_below_a_fifth", "Less than a fifth of a day's rows were rejected when they landed.")
KNOWN_ACTIONS = CheckSpec("actions_are_known", "Every row names an action that we know.", blocking=False)
DUPLICATES = CheckSpec("few_duplicates", "At most 5 % of a day's rows repeat another one exactly.", blocking=False)
METADATA = CheckSpec("products_have_metadata", "The catalogue knows 40 % of a day's products or more.", blocking=False)
DURATION = CheckSpec("durations_not_negative", "No session ends before it starts.")
NOT_EMPTY = CheckSpec("sessions_have_an_action", "Every session has at least one action.")
LIMIT = CheckSpec("few_sessions_beyond_30_minutes", "At most 15 % of sessions last over 30 minutes.", blocking=False)
LENGTH = CheckSpec("session_length_is_usual", "Sessions have 4 to 10 events in the mean.", blocking=False)

Examples = Callable[[str, Collection[str]], Sequence[str]]
"""(day or ``unknown``, reasons or none for all) -> at most five rejected rows in words."""


@dataclass(frozen=True)
class DayFinding:
    """What a check found on one day: its number (None: nothing to judge), of how many rows, and why it fails, or ""."""

    value: float | None
    rows: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Finding:
    """What a check found: by day, the number that is plotted, and ``also``: what is wrong with no single day."""

    spec: CheckSpec
    days: Mapping[str, DayFinding]
    value: float | None
    also: str = ""

    @property
    def passed(self) -> bool:
        """True if nothing is wrong."""
        return not self.also and not any(day.reason for day in self.days.values())


def days_have_arrived(index: LandingIndex, days: Iterable[str], last_over: str) -> Finding:
    """Is something there for every day up to the last landed one, and is that not too long ago?

    ``last_over`` is the last day that is over and expected. The number is how many days the last landed day is behind.
    """
    first, last = index.first_day, index.last_day
    if first is None or last is None:
        return Finding(ARRIVES, {}, None, "Nothing has landed yet")
    found = {}
    for day in (day for day in days if first <= day <= last):
        rows = _rows(index.days.get(day))
        found[day] = DayFinding(rows, rows, "" if rows else "no row is in force for this day")
    behind = max(0, (date.fromisoformat(last_over) - date.fromisoformat(last)).days)
    late = f"The last landed day is {last}, {behind} days before {last_over}" if behind > FRESH_DAYS else ""
    return Finding(ARRIVES, found, behind, late)


def volume_is_usual(index: LandingIndex, days: Iterable[str]) -> Finding:
    """Compare each landed day's rows with the median of the same weekday up to four weeks before.

    The number is the day's share of it, in a range of days the one furthest from 1. Without such a day: nothing to say.
    """
    found = {}
    for day in (day for day in days if day in index.days):
        rows = _rows(index.days[day])
        weeks = [_days_before(day, 7 * week) for week in range(1, WEEKS_BEFORE + 1)]
        before = [count for count in (_rows(index.days.get(week)) for week in weeks) if count]
        usual = median(before) if before else 0
        share = rows / usual if usual else None
        is_odd = share is not None and usual >= FEW and not USUAL_VOLUME[0] <= share <= USUAL_VOLUME[1]
        reason = f"{rows:,} rows are {share:.0%} of the {usual:,.0f} usual on this weekday" if is_odd else ""
        found[day] = DayFinding(share, rows, reason)
    shares = [finding.value for finding in found.values() if finding.value is not None]
    return Finding(VOLUME, found, max(shares, key=lambda share: max(share, 1 / max(share, 1e-9)), default=None))


def rejected_rows(index: LandingIndex, days: Iterable[str], examples: Examples, spec: CheckSpec) -> Finding:
    """Share of a day's rows, of all its tables, that did not land; ``spec`` is FEW_REJECTS or REJECTS.

    Rows whose time is at fault belong to no day: of them FEW_REJECTS speaks as a share of all rows ever read.
    """
    limit = BLOCK_REJECTED if spec is REJECTS else WARN_REJECTED
    parts, found = index.parts, {}
    for day in days:
        entry = parts.get(day)
        rejected = entry.rows.get("rejected", 0) if entry else 0
        read = _rows(entry) + rejected
        share = rejected / read if read else 0.0
        reason = ""
        if share >= limit:
            reason = f"{rejected:,} of {read:,} rows ({share:.1%}) were rejected, such as:" + listed(examples(day, ()))
        found[day] = DayFinding(share, read, reason)
    also = _undated(index, examples) if spec is FEW_REJECTS else ""
    return Finding(spec, found, _worst(found), also)


def actions_are_known(index: LandingIndex, days: Iterable[str], examples: Examples) -> Finding:
    """Count the rejected rows whose event type or action is none of ours."""
    parts, found = index.parts, {}
    for day in (day for day in days if day in parts):
        unknown = sum(parts[day].reasons.get(reason, 0) for reason in UNKNOWN_ACTION_REASONS)
        reason = ""
        if unknown:
            shown = listed(examples(day, UNKNOWN_ACTION_REASONS))
            reason = f"{unknown:,} rows have an unknown event type or action, such as:{shown}"
        found[day] = DayFinding(unknown, _rows(parts[day]), reason)
    return Finding(KNOWN_ACTIONS, found, float(sum(finding.value or 0 for finding in found.values())))


def rejected_examples(files: Iterable[Path], reasons: Collection[str] = ()) -> list[str]:
    """Return at most five rejected rows in words, of as many different reasons as there are."""
    import polars as pl

    frames = [pl.read_parquet(file, columns=["file", "line", "reason", "raw"]) for file in files]
    if not frames:
        return []
    rows = pl.concat(frames)
    if reasons:
        rows = rows.filter(pl.col("reason").is_in(list(reasons)))
    place = pl.int_range(pl.len()).over("reason", order_by=["file", "line"]).alias("place")
    shown = rows.with_columns(place).sort("place", "file", "line").head(MAX_EXAMPLES)
    return [f"{file} line {line}: {reason} ({_cells(raw)})" for file, line, reason, raw, _ in shown.iter_rows()]


def _cells(raw: str) -> str:
    """Return the cells of a rejected row (JSON, or the text of a torn row), as much as fits on a line."""
    try:
        text = ",".join("" if cell is None else str(cell) for cell in json.loads(raw).values())
    except (ValueError, AttributeError):
        text = raw
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]} ..."


def _undated(index: LandingIndex, examples: Examples) -> str:
    rejected = index.undated.rows.get("rejected", 0) if index.undated else 0
    read = rejected + sum(_rows(entry) + entry.rows.get("rejected", 0) for entry in index.days.values())
    if not rejected or rejected / read < WARN_REJECTED:
        return ""
    shown = listed(examples("unknown", ()))
    return f"{rejected:,} of all {read:,} rows ({rejected / read:.1%}) have no usable time, such as:{shown}"


def _rows(entry: DayEntry | None) -> int:
    return sum(entry.rows.get(table, 0) for table in EVENT_TABLES) if entry else 0


def _days_before(day: str, days: int) -> str:
    return (date.fromisoformat(day) - timedelta(days=days)).isoformat()


def _worst(found: Mapping[str, DayFinding]) -> float | None:
    return max((day.value for day in found.values() if day.value is not None), default=None)


def listed(examples: Sequence[str]) -> str:
    """Return examples to put after a sentence, each on a line of its own."""
    return "".join(f"\n    {example}" for example in examples) or " (no example is left)"
