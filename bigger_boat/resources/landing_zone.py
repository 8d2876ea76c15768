"""The landing zone as a Dagster resource: where it is, and what is in force. Reads only; ``data.landing`` lands."""

from datetime import date
from pathlib import Path

import dagster as dg

from bigger_boat.data import landing_index
from bigger_boat.data.landing_index import DayEntry, LandingIndex


class LandingZone(dg.ConfigurableResource):
    """Local landing zone. Days are dates or partition keys (``YYYY-MM-DD``)."""

    path: str

    @property
    def root(self) -> Path:
        """The landing root."""
        return Path(self.path)

    def index(self) -> LandingIndex:
        """Return what is in force now."""
        return landing_index.read_index(self.root)

    def files_for(self, table: str, day: date | str) -> list[Path]:
        """Return the Parquet files in force of ``browsing`` or ``search`` on a day; none where nothing landed."""
        return landing_index.files_for(self.root, table, day)

    def files_by_day(self, table: str, days: list[str]) -> dict[str, list[str]]:
        """Return the files in force of each day as strings; none where nothing is, so that a load clears the day."""
        index = self.index()
        return {day: [str(path) for path in landing_index.files_for(self.root, table, day, index)] for day in days}

    def catalog_files(self) -> list[Path]:
        """Return the catalog's files in force, oldest first."""
        return landing_index.catalog_files(self.root)

    def entry(self, day: date | str) -> DayEntry | None:
        """Return version, fingerprints and row counts of a day, or of ``catalog``; None where nothing landed."""
        return self.index().parts.get(str(day))

    def fingerprint(self, table: str, day: date | str) -> str:
        """Return what identifies the content in force of a table on a day; "" where the table has no files there."""
        entry = self.entry(day)
        return entry.fingerprints.get(table, "") if entry else ""

    def row_counts(self, days: list[str]) -> dict[str, dict[str, int]]:
        """Return per day the rows in force of ``browsing`` and ``search``, and how many were ``rejected``."""
        parts = self.index().parts
        return {day: dict(parts[day].rows) if day in parts else {} for day in days}
