"""Which version an endpoint's events say serves: deployed by its asset, or promoted or rolled back to by a person.

What belongs elsewhere: what really serves (``resources/endpoint_host.py``), who writes the events (``endpoints.py``,
``automation/control.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import dagster as dg

EVENTS_LOOKED_AT = 50


@dataclass(frozen=True)
class ServingEvent:
    """The last event that let a version serve; ``deployed_*``: of its version (record, s since 1970)."""

    version: str
    metadata: Mapping[str, dg.MetadataValue]
    deployed_as: int
    deployed_at: float


def serving_event(instance: dg.DagsterInstance, endpoint: str) -> ServingEvent | None:
    """Return the last event that let a version of an endpoint serve, None if none did."""
    key = dg.AssetKey(f"{endpoint}_endpoint")
    deployed = instance.fetch_materializations(key, limit=EVENTS_LOOKED_AT).records
    changed = instance.fetch_observations(key, limit=EVENTS_LOOKED_AT).records
    told = [(record, record.asset_materialization.metadata) for record in deployed]
    told += [(record, record.asset_observation.metadata) for record in changed]
    told = [(record, metadata) for record, metadata in told if "version" in metadata]  # a challenger's has none
    if not told:
        return None
    last, metadata = max(told, key=lambda one: one[0].storage_id)
    version = metadata["version"].value
    deployments = (
        r for r in deployed if getattr(r.asset_materialization.metadata.get("version"), "value", "") == version
    )
    deployment = next(deployments, last)
    return ServingEvent(str(version), metadata, deployment.storage_id, _since(deployment))


def _since(deployment: dg.EventLogRecord) -> float:
    """Return since when a deployed version serves: as the server said, where none was up when it was deployed."""
    event = deployment.asset_materialization or deployment.asset_observation
    try:
        return datetime.fromisoformat(str(event.metadata["since"].value)).timestamp()  # type: ignore[union-attr]
    except (KeyError, ValueError):
        return deployment.timestamp
