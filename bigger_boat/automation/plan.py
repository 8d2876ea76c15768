"""What a run has to do: which assets, on which days, and why. It only asks; ``runner.py`` acts.

A day of a partitioned asset is up to date when its last materialization was made from the landing zone's present
content of that day (and of the days beside it, where sessions reach over midnight) by the present code, its blocking
checks have passed since, and the day is up to date above it. An unpartitioned asset is up to date when nothing above it
was made after it, and its code and size are the present ones.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import date, timedelta

import dagster as dg
from dagster import AssetKey, DagsterEventType, DagsterInstance

from bigger_boat.assets.verdicts import evaluation_of
from bigger_boat.data.fingerprint import FINGERPRINT, catalog_fingerprint, landed_content, source_fingerprint
from bigger_boat.data.landing_index import LandingIndex

CODE_VERSION_TAG = "dagster/code_version"
SIZE = "size"
"""Metadata key of assets whose result depends on the size (quick or full)."""

RECORDS_PER_QUERY = 500


@dataclass(frozen=True)
class Plan:
    """``days``: those on which at least one of ``partitioned`` is to be made; ``reasons``: per asset, in words.

    ``independent``: those of ``unpartitioned`` that no table by day stands behind (the catalogue's), to be made first.
    """

    days: tuple[str, ...]
    partitioned: tuple[AssetKey, ...]
    unpartitioned: tuple[AssetKey, ...]
    independent: tuple[AssetKey, ...] = ()
    reasons: Mapping[AssetKey, str] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not (self.partitioned or self.unpartitioned)

    def blocks(self) -> list[tuple[str, str]]:
        """Return the days as ranges (first, last); days at most a week apart share one range."""
        ranges: list[tuple[str, str]] = []
        for day in sorted(self.days):
            if ranges and date.fromisoformat(day) - date.fromisoformat(ranges[-1][1]) <= timedelta(days=7):
                ranges[-1] = (ranges[-1][0], day)
            else:
                ranges.append((day, day))
        return ranges


def make_plan(
    graph,  # dagster's AssetGraph; its class is not public
    instance: DagsterInstance,
    selected: Set[AssetKey],
    index: LandingIndex,
    size: str,
    days: Iterable[str] | None = None,
    force: bool = False,
    since: float | None = None,
) -> Plan:
    """Return what has to be made of ``selected``. ``days`` limits the days; ``force`` makes all of it again.

    With ``since`` (seconds since 1970), ``force`` leaves what was made after it and is up to date. A landed day that is
    none of the graph's (today, before START_DATE, after END_DATE) is left out.
    """
    landed = sorted(index.days) if days is None else sorted(days)
    wanted: list[str] = []
    made_in = _MadeIn(instance, graph)
    stale_days: dict[AssetKey, set[str]] = {}
    stale: set[AssetKey] = set()
    reasons: dict[AssetKey, str] = {}
    for key in graph.toposorted_asset_keys:
        node = graph.get(key)
        if key not in selected or not node.is_executable or not node.is_materializable:
            continue
        if node.partitions_def is not None:
            wanted = wanted or [day for day in landed if node.partitions_def.has_partition_key(day)]
            if force and since is None:
                behind = set(wanted)
            else:
                behind = _days_behind(instance, key, node, index, wanted, made_in(key), since if force else None)
                # a fingerprint says what was loaded; that the table above was built from it first, the order says
                above = [made_in(parent) for parent in node.parent_keys]
                behind |= {day for day in wanted if any(a.get(day, 0) > made_in(key).get(day, 0) for a in above)}
            behind |= {day for parent in node.parent_keys for day in stale_days.get(parent, ())}
            behind |= _days_in_doubt(instance, graph.get_check_keys_for_assets({key}), set(wanted) - behind)
            if behind:
                stale_days[key] = behind
                stale.add(key)
                reasons[key] = f"{len(behind)} of {len(wanted)} days"
        else:
            reason = _why_behind(instance, key, node, graph, stale, index, size)
            if force and not (since and not reason and _made_after(instance, key, since)):
                reason = "forced"
            if reason:
                stale.add(key)
                reasons[key] = reason
    ordered = [key for key in graph.toposorted_asset_keys if key in stale]
    return Plan(
        days=tuple(sorted(set().union(*stale_days.values()))) if stale_days else (),
        partitioned=tuple(key for key in ordered if key in stale_days),
        unpartitioned=tuple(key for key in ordered if key not in stale_days),
        independent=tuple(key for key in ordered if key not in stale_days and not _by_day_above(graph, key)),
        reasons=reasons,
    )


def _by_day_above(graph, key: AssetKey) -> bool:
    return any(
        graph.get(parent).partitions_def or _by_day_above(graph, parent) for parent in graph.get(key).parent_keys
    )


def _days_behind(
    instance: DagsterInstance,
    key: AssetKey,
    node,
    index: LandingIndex,
    wanted: list[str],
    made_in: Mapping[str, int],
    since: float | None,
) -> set[str]:
    """Return the days of ``wanted`` that are missing, made from other content, by other code, or before ``since``."""
    made = {storage_id: day for day, storage_id in made_in.items() if day in set(wanted)}
    behind = set(wanted) - set(made.values())
    content = landed_content(index)
    ids = sorted(made)
    for start in range(0, len(ids), RECORDS_PER_QUERY):
        chunk = ids[start : start + RECORDS_PER_QUERY]
        wanted_records = dg.AssetRecordsFilter(key, storage_ids=chunk)
        for record in instance.fetch_materializations(wanted_records, limit=len(chunk)).records:
            event, day = record.asset_materialization, record.partition_key
            made_from = event.metadata.get(FINGERPRINT)
            expected = source_fingerprint(content, key.path[-1], day)
            if _other_code(event, node) or made_from is None or made_from.value != expected:
                behind.add(day)
            if since and record.timestamp < since:
                behind.add(day)
    return behind


class _MadeIn:
    """Tells, per table by day, in which of the instance's records each day was made last: higher is later."""

    def __init__(self, instance: DagsterInstance, graph):
        self._instance, self._graph = instance, graph
        self._known: dict[AssetKey, Mapping[str, int]] = {}

    def __call__(self, key: AssetKey) -> Mapping[str, int]:
        node = self._graph.get(key)
        if key not in self._known and node.partitions_def is not None and node.is_materializable:
            self._known[key] = self._instance.event_log_storage.get_latest_storage_id_by_partition(
                key, DagsterEventType.ASSET_MATERIALIZATION
            )
        return self._known.get(key, {})


def _made_after(instance: DagsterInstance, key: AssetKey, since: float) -> bool:
    record = instance.get_latest_materialization_event(key)
    return record is not None and record.timestamp >= since


def _days_in_doubt(instance: DagsterInstance, checks: Set[dg.AssetCheckKey], days: Set[str]) -> set[str]:
    """Return the days that were made, but did not pass their blocking checks since: a run may have died in between."""
    if not checks or not days:
        return set()
    from bigger_boat.assets.quality import days_in_doubt

    return days_in_doubt(instance, checks, days)


def _why_behind(instance: DagsterInstance, key: AssetKey, node, graph, stale: Set[AssetKey], index, size: str) -> str:
    """Return in words why an unpartitioned asset has to be made, or '' where it is up to date."""
    record = instance.get_latest_materialization_event(key)
    if record is None:
        return "not made yet"
    event = record.asset_materialization
    if _other_code(event, node):
        return "its code changed"
    if SIZE in event.metadata and (event.metadata[SIZE].value, size) == ("quick", "full"):
        return f"made at size {event.metadata[SIZE].value}"
    if FINGERPRINT in event.metadata and event.metadata[FINGERPRINT].value != catalog_fingerprint(index):
        return "new files have landed"
    above = [parent for parent in node.parent_keys if parent in stale]
    if above:
        return f"{above[0].to_user_string()} changes"
    made = _storage_id(instance, key)
    newer = [parent for parent in node.parent_keys if _newest(instance, graph, parent) > made]
    if newer:
        return f"{newer[0].to_user_string()} is newer"
    checks = graph.get_check_keys_for_assets({key})
    return next(filter(None, (_doubt(instance, c, graph.get(c).blocking, record.run_id) for c in checks)), "")


def _other_code(event: dg.AssetMaterialization, node) -> bool:
    """Whether an asset that names its code version was made by another one."""
    return node.code_version is not None and (event.tags or {}).get(CODE_VERSION_TAG) != node.code_version


def _storage_id(instance: DagsterInstance, key: AssetKey) -> int:
    records = instance.fetch_materializations(key, limit=1).records
    return records[0].storage_id if records else 0


def _newest(instance: DagsterInstance, graph, key: AssetKey) -> int:
    return _storage_id(instance, key) if graph.get(key).is_materializable else 0


def _doubt(instance: DagsterInstance, check: dg.AssetCheckKey, blocking: bool, made_in: str) -> str:
    """Return why a check does not clear what the run ``made_in`` made, or '' where it does.

    A run that was killed leaves checks that were planned and never made: they say nothing, unless it made the asset.
    """
    for record in instance.event_log_storage.get_asset_check_execution_history(check, limit=RECORDS_PER_QUERY):
        evaluation = evaluation_of(record)
        if evaluation:
            return f"its check {check.name} failed" if evaluation.blocking and not evaluation.passed else ""
        if blocking and record.run_id == made_in:
            return f"its check {check.name} was not made"
    return ""
