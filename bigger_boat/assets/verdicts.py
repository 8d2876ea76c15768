"""How a check says which days it speaks for: written into its metadata here, read by ``quality.py``.

Two forms: a verdict for each day (``days``, JSON), or one for every day of a range (``first_day``, ``last_day``).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES,
    AssetCheckExecutionRecord,
)

DAYS, FIRST_DAY, LAST_DAY = "days", "first_day", "last_day"
PARTITION_TAG = "dagster/partition"
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
"""Tags by which Dagster says which days a run makes."""


@dataclass(frozen=True)
class DayVerdict:
    """What a check found on one day: ``reason`` is "" where it passed, ``value`` the number it judged, if any."""

    passed: bool
    reason: str = ""
    rows: int = 0
    value: float | None = None


def days_between(first: str, last: str) -> list[str]:
    """Return the days from first to last, both included, as ``YYYY-MM-DD``."""
    start, end = date.fromisoformat(first), date.fromisoformat(last)
    return [(start + timedelta(days=offset)).isoformat() for offset in range((end - start).days + 1)]


def with_neighbours(first: str, last: str) -> tuple[str, str]:
    """Return the range one day wider on either side: what a change of its days rebuilds."""
    one = timedelta(days=1)
    return (date.fromisoformat(first) - one).isoformat(), (date.fromisoformat(last) + one).isoformat()


def range_metadata(first: str, last: str) -> dict[str, dg.MetadataValue]:
    """Return metadata that says: this verdict is for every day from first to last."""
    return {FIRST_DAY: dg.MetadataValue.text(first), LAST_DAY: dg.MetadataValue.text(last)}


def day_metadata(verdicts: Mapping[str, DayVerdict]) -> dict[str, dg.MetadataValue]:
    """Return metadata with a verdict for each day."""
    span = range_metadata(min(verdicts), max(verdicts)) if verdicts else {}
    return {DAYS: dg.MetadataValue.json({day: asdict(verdict) for day, verdict in sorted(verdicts.items())}), **span}


def check_result(
    verdicts: Mapping[str, DayVerdict],
    *,
    asset_key: dg.AssetKey | None = None,
    check_name: str | None = None,
    fact: str = "",
    also: str = "",
    value: float | None = None,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetCheckResult:
    """Return the result of a check that looked at each day; it fails if a day fails, and says which and why.

    ``fact`` is what it says where nothing is wrong, ``also`` what is wrong with no single day, ``value`` its number to
    plot over the runs.
    """
    failed = {day: verdict.reason for day, verdict in sorted(verdicts.items()) if not verdict.passed}
    rows = sum(verdict.rows for verdict in verdicts.values())
    passed = fact or f"{len(verdicts)} days with {rows:,} rows are as they should be."
    faults = [*([also] if also else []), *(f"{day}: {reason}" for day, reason in list(failed.items())[:5])]
    more = [f"and {len(failed) - 5} more days"] if len(failed) > 5 else []
    return dg.AssetCheckResult(
        passed=not faults,
        asset_key=asset_key,
        check_name=check_name,
        severity=severity,
        description="; ".join([*faults, *more]) or passed,
        metadata=day_metadata(verdicts) | ({} if value is None else {"value": dg.MetadataValue.float(float(value))}),
    )


def evaluation_of(record: AssetCheckExecutionRecord) -> dg.AssetCheckEvaluation | None:
    if record.status not in COMPLETED_ASSET_CHECK_EXECUTION_RECORD_STATUSES or not record.event:
        return None
    return record.event.asset_check_evaluation


def read_verdict(
    metadata: Mapping[str, dg.MetadataValue], passed: bool, description: str, day: str
) -> DayVerdict | None:
    """Return what an evaluation says about a day; None if it did not look at it."""
    if DAYS in metadata:
        found: dict[str, Any] | None = metadata[DAYS].value.get(day)  # type: ignore[union-attr]
        return DayVerdict(**found) if found else None
    if FIRST_DAY in metadata and metadata[FIRST_DAY].value <= day <= metadata[LAST_DAY].value:  # type: ignore[operator]
        return DayVerdict(passed, "" if passed else description)
    return None


def run_range(tags: Mapping[str, str]) -> tuple[str, str] | None:
    """Return first and last day of a run from its tags; None for a run without partitions."""
    if PARTITION_TAG in tags:
        return tags[PARTITION_TAG], tags[PARTITION_TAG]
    first, last = (tags.get(tag) for tag in (RANGE_START, RANGE_END))
    return (first, last) if first and last else None
