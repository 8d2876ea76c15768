"""Landing: what has arrived. External to the graph: ``bigger-boat land`` writes it; here it is only observed."""

from collections.abc import Iterator

import dagster as dg

from bigger_boat.assets.common import DATA_OWNERS
from bigger_boat.data.landing_index import CATALOG, LandingIndex
from bigger_boat.partitions import daily_partitions
from bigger_boat.resources.landing_zone import LandingZone

DATA_VERSION_TAG = "dagster/data_version"
TABLES = {"landing_browsing": "browsing", "landing_search": "search"}


SPECS = [
    dg.AssetSpec(
        name,
        group_name="landing",
        owners=DATA_OWNERS,
        kinds={"parquet"},
        partitions_def=partitions,
        description=description,
        skippable=True,
    )
    for name, partitions, description in (
        ("landing_browsing", daily_partitions, "Browsing events that have landed: page views and product events."),
        ("landing_search", daily_partitions, "Searches that have landed, with what was shown and clicked."),
        ("landing_catalog", None, "The catalogue's files: category, price bucket and vectors of products."),
    )
]


@dg.multi_observable_source_asset(specs=SPECS, can_subset=True, name="observe_landing")
def landing(context: dg.OpExecutionContext, landing_zone: LandingZone) -> Iterator[dg.ObserveResult]:
    """Look at the landing zone's index; days whose content is not the last observed get an observation each."""
    for observation in new_observations(context.instance, landing_zone.index()):
        context.log_event(observation)
    yield from ()


def new_observations(instance: dg.DagsterInstance, index: LandingIndex) -> Iterator[dg.AssetObservation]:
    """Yield an observation, with row counts, of each day (and the catalogue) whose content is not the last observed."""
    for name, table in TABLES.items():
        seen = instance.event_log_storage.get_latest_tags_by_partition(
            dg.AssetKey(name), dg.DagsterEventType.ASSET_OBSERVATION, [DATA_VERSION_TAG]
        )
        for day, entry in sorted(index.days.items()):
            version = entry.fingerprints.get(table, "")
            if version and seen.get(day, {}).get(DATA_VERSION_TAG) != version:
                rows = entry.rows.get(table, 0)
                metadata = {"dagster/partition_row_count": rows, "rejected": entry.rows.get("rejected", 0)}
                yield _observation(name, version, metadata, day)
    if index.catalog and _last_version(instance, "landing_catalog") != index.catalog.fingerprint:
        metadata = {"dagster/row_count": index.catalog.rows.get(CATALOG, 0)}
        yield _observation("landing_catalog", index.catalog.fingerprint, metadata)


def _last_version(instance: dg.DagsterInstance, name: str) -> str | None:
    records = instance.fetch_observations(dg.AssetKey(name), limit=1).records
    return records[0].asset_observation.tags.get(DATA_VERSION_TAG) if records else None


def _observation(name: str, version: str, metadata: dict, day: str | None = None) -> dg.AssetObservation:
    return dg.AssetObservation(name, metadata=metadata, partition=day, tags={DATA_VERSION_TAG: version})
