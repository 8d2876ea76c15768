"""Where an answer came from: from its line in the log to version, runs, data sets, days and landed files.

What is known is put together from what each part keeps: the log, the description of every version that was ever
published, Dagster's history, the data sets' manifests, the landing zone's versions. What belongs elsewhere: showing it
(``cli/explain.py``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from bigger_boat.assets.verdicts import days_between
from bigger_boat.automation.sweep import DATA_VERSION
from bigger_boat.data.dataset_manifest import MANIFEST_FILE
from bigger_boat.data.landing_history import versions
from bigger_boat.data.landing_index import read_index
from bigger_boat.errors import DatasetError
from bigger_boat.resources.prediction_logs import PredictionLogs
from bigger_boat.resources.retention import kept_manifest
from bigger_boat.serving.published import read_json

DATASETS = "datasets"
MOST_RECORDS = 1000


@dataclass(frozen=True)
class MadeBy:
    """A run that made something: what, in which run, when (s since 1970)."""

    what: str
    run_id: str
    at: float


@dataclass(frozen=True)
class DatasetUsed:
    """A version of a data set. ``days`` and ``inputs`` are empty where neither it nor its record is there any more."""

    name: str
    version: str
    created_at: str
    data_version: str
    days: Mapping[str, Any]
    inputs: Mapping[str, str]
    is_there: bool


@dataclass(frozen=True)
class LandedDay:
    """A day's files in force when the data set was made; ``changed``: others are in force now."""

    day: str
    version: int
    files: tuple[str, ...]
    changed: bool


def find(logs: PredictionLogs, tables: Path, request_id: str) -> list[dict[str, Any]]:
    """Return the predictions of a request, the newest day's that has any, from the days' tables or the log's files.

    Raises DatasetError that says what is kept, and since when.
    """
    in_tables = {path.stem.removeprefix("date="): path for path in tables.glob("date=*.parquet")}
    in_files = {*logs.days()}
    days = sorted({*in_files, *in_tables}, reverse=True)
    if logs.is_far:
        days.sort(key=lambda day: day not in in_tables)
        in_files -= in_tables.keys()
    for day in days:
        found = logs.find(request_id, day) if day in in_files else []
        if not found and day in in_tables:
            found = _in_table(in_tables[day], request_id)
        if found:
            return found
    kept = f"it holds answers of {len(days)} days, {min(days)} to {max(days)}" if days else "it holds no answers yet"
    raise DatasetError(
        f"No answer with the id {request_id!r} is in the log: {kept}.",
        f"Give the request_id of an answer (or its header X-Request-Id). The log holds {logs.holds}; an answer is "
        "there a moment after it was given, or some minutes after where SageMaker captures it.",
    )


def runs_of(instance: dg.DagsterInstance, described: Mapping[str, Any]) -> list[MadeBy]:
    """Return the runs that trained the candidate, fitted it again on all days, and published it, in order of time."""
    name, version = described["name"], described["version"]
    candidate = described["info"].get("candidate") or {}
    found = [
        *_runs(instance, candidate.get("asset", ""), candidate.get("version", ""), "trained the candidate"),
        *_runs(instance, f"{name}_champion", version, "fitted it again on all days"),
        *_runs(instance, f"{name}_endpoint", version, "published it"),
    ]
    return sorted(found, key=lambda made: made.at)


def datasets_of(instance: dg.DagsterInstance, data_dir: Path, described: Mapping[str, Any]) -> list[DatasetUsed]:
    """Return the data sets that a version was fitted on, from their manifests or else from their records."""
    used = described["info"].get("data_versions") or {}
    return [_dataset(instance, data_dir, name, version) for name, version in sorted(used.items())]


def landed_days(landing: Path, first: str, last: str, at: datetime) -> list[LandedDay]:
    """Return the landed days from first to last as they stood at a time, each with its files."""
    index = read_index(landing)
    found = []
    for day in days_between(first, last):
        if day not in index.days:
            continue
        stood = [m for m in versions(landing, day, index.days[day].version) if datetime.fromisoformat(m.time) <= at]
        if stood:
            files = tuple(file.path for table in stood[-1].files.values() for file in table)
            found.append(LandedDay(day, stood[-1].version, files, index.days[day].version != stood[-1].version))
    return found


def _in_table(path: Path, request_id: str) -> list[dict[str, Any]]:
    import polars as pl

    return pl.scan_parquet(path).filter(pl.col("request_id") == request_id).collect().to_dicts()


def _runs(instance: dg.DagsterInstance, asset: str, version: str, what: str) -> Iterator[MadeBy]:
    """Yield the first and the last run that made this version of an asset: it may have been made again, the same."""
    if not asset or not version:
        return
    records = [
        record
        for record in instance.fetch_materializations(dg.AssetKey(asset), limit=MOST_RECORDS).records
        if (record.asset_materialization.tags or {}).get(DATA_VERSION) == version
    ]
    for record in records[-1:] + records[:-1][:1]:
        yield MadeBy(f"{what} ({asset})", record.run_id, record.timestamp)


def _dataset(instance: dg.DagsterInstance, data_dir: Path, name: str, version: str) -> DatasetUsed:
    folder = data_dir / DATASETS / name / version
    record = _record_of(instance, name, f"{DATASETS}/{name}/{version}")
    data_version = (record.asset_materialization.tags or {}).get(DATA_VERSION, "") if record else ""
    if told := read_json(folder / MANIFEST_FILE) or read_json(kept_manifest(folder)):
        there = folder.is_dir()
        return DatasetUsed(name, version, told["created_at"], data_version, told["days"], told["inputs"], there)
    made = datetime.fromtimestamp(record.timestamp, UTC).isoformat(timespec="seconds") if record else ""
    return DatasetUsed(name, version, made, data_version, {}, {}, False)


def _record_of(instance: dg.DagsterInstance, asset: str, address: str) -> dg.EventLogRecord | None:
    for record in instance.fetch_materializations(dg.AssetKey(asset), limit=MOST_RECORDS).records:
        told = record.asset_materialization.metadata.get("address")
        if told and told.value == address:
            return record
    return None
