"""A day of the warehouse, made a second time on DuckDB from the same landed files, to hold against the first."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
from pydantic import Field

from bigger_boat.resources.dbt import DbtInProcess
from bigger_boat.resources.duckdb_warehouse import DATABASE_FILE, DuckDBWarehouse
from bigger_boat.resources.landing_zone import LandingZone


class DuckDBTwin(dg.ConfigurableResource):
    """Builds a day in a DuckDB file that is deleted afterwards."""

    project_dir: str = Field(description="The dbt project.")
    memory_limit: str = Field("2GB", description="What DuckDB may use.")

    @contextmanager
    def build(self, landing_zone: LandingZone, day: str = "", catalog: bool = False) -> Iterator[DuckDBWarehouse]:
        """Make a day's tables, the catalogue's, or both, and hand out the warehouse they are in."""
        with TemporaryDirectory(prefix="bigger-boat-twin-") as folder:
            warehouse = DuckDBWarehouse(path=str(Path(folder) / DATABASE_FILE), memory_limit=self.memory_limit)
            warehouse.prepare()
            if day:
                for table, source in (("browsing_train", "browsing"), ("search_train", "search")):
                    warehouse.load_days(table, landing_zone.files_by_day(source, _reach(day)))
            if catalog:
                warehouse.load_catalog([str(file) for file in landing_zone.catalog_files()])
            models = [*(["+cart_sessions"] if day else []), *(["+products"] if catalog else [])]
            dbt = DbtInProcess(
                project_dir=self.project_dir,
                state_dir=str(Path(folder) / "dbt"),
                environment=warehouse.dbt_environment(),
            )
            days = {"first_day": day, "last_day": day}
            error = dbt.cli(["run", "--select", *models, "--vars", json.dumps(days)]).get_error()
            if error:
                raise error
            yield warehouse


def _reach(day: str) -> list[str]:
    """Return the day and those on either side, which its sessions reach into."""
    middle = date.fromisoformat(day)
    return [(middle + timedelta(days=offset)).isoformat() for offset in (-1, 0, 1)]
