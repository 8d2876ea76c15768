"""Dagster's runs and events in a team's PostgreSQL, where runs on several machines make a pool at the same moment.

Dagster's own storage inserts the pool's limit, and where another run was first it goes on in the same transaction,
which PostgreSQL has ended: the step fails. SQLite ends none for that.
"""

from dagster._core.storage.config import PostgresStorageConfig
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage
from dagster_postgres.utils import get_token_provider_from_config
from sqlalchemy.exc import InternalError


class TeamEventLog(PostgresEventLogStorage):
    """The event log in which a pool may be made twice. All else is inherited."""

    def initialize_concurrency_limit_to_default(self, concurrency_key: str) -> bool:
        """Make a pool with the default limit; return whether the storage has pools."""
        try:
            return super().initialize_concurrency_limit_to_default(concurrency_key)
        except InternalError:  # the insert waited for another's, which is there now, its slots with it
            if concurrency_key not in self.get_concurrency_keys():
                raise
            return True


class TeamStorage(DagsterPostgresStorage):
    """Dagster's PostgreSQL storage with the event log above."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: PostgresStorageConfig
    ) -> DagsterPostgresStorage:
        storage = super().from_config_value(inst_data, config_value)
        storage._event_log_storage = TeamEventLog(
            storage.postgres_url,
            storage.should_autocreate_tables,
            token_provider=get_token_provider_from_config(config_value),
        )
        return storage
