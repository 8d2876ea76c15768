"""Dagster's runs and events in SQLite, a batch of events in one transaction.

A backfill of a year tells Dagster of 365 days for each table. Dagster can hand such events over together
(``DAGSTER_EVENT_BATCH_SIZE``), but its SQLite storage then still commits each of them twice, about 20 ms a day.
"""

import os
from collections.abc import Sequence
from typing import Any

from dagster import EventLogEntry
from dagster._core.events import ASSET_EVENTS
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData


class BatchedEventLog(SqliteEventLogStorage):
    """The event log whose batches of asset events are one transaction in each file. All else is inherited."""

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store ``events`` of one run, those of assets in their order, then what else is among them one by one."""
        of_assets = [event for event in events if event.dagster_event_type in ASSET_EVENTS]
        if of_assets:
            self._store_asset_events(of_assets)
        for event in events:
            if event.dagster_event_type not in ASSET_EVENTS:
                self.store_event(event)

    def _store_asset_events(self, events: Sequence[EventLogEntry]) -> None:
        (run_id,) = {event.run_id for event in events}
        rows = [self.prepare_insert_event(event) for event in events]
        with self.run_connection(run_id) as connection:
            for row in rows:
                connection.execute(row)
        with self.index_transaction() as connection:
            ids = [connection.execute(row).inserted_primary_key[0] for row in rows]
            self._store_asset_event_tags(connection, events, ids)
            # an asset has one row in the table of assets, which keeps its last event of each type
            last = {(event.dagster_event.asset_key, event.dagster_event_type): at for at, event in enumerate(events)}
            for at in sorted(last.values()):
                self._store_asset_event(connection, events[at], ids[at])


class BatchedStorage(DagsterSqliteStorage):
    """Dagster's SQLite storage with the event log above; it asks this process's instance for batches."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None):
        super().__init__(base_dir, inst_data)
        self._event_log_storage = BatchedEventLog(os.path.join(base_dir, "history", "runs", ""))
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Any) -> "BatchedStorage":
        return cls.from_local(inst_data=inst_data, **config_value)
