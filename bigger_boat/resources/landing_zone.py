"""The landing zone as a Dagster resource: where it is, and what is in force. ``data.landing`` lands.

``LandingZone`` is a folder of this machine; ``S3LandingZone`` the same folder as a copy of what several machines share.
What belongs elsewhere: how copies become one (``landing_mirror.py``), Firehose's objects (``landing_incoming.py``).
"""

from datetime import date, datetime
from pathlib import Path

import dagster as dg

from bigger_boat.data import landing_index
from bigger_boat.data.landing_index import DayEntry, LandingIndex
from bigger_boat.resources.landing_incoming import Incoming, Taken
from bigger_boat.resources.landing_mirror import LandingMirror
from bigger_boat.resources.s3_storage import object_store


class LandingZone(dg.ConfigurableResource):
    """Local landing zone. Days are dates or partition keys (``YYYY-MM-DD``)."""

    path: str

    @property
    def root(self) -> Path:
        """The landing root."""
        return Path(self.path)

    def sync(self, *, waits: bool = True) -> str:  # noqa: ARG002
        """Share with other machines what has landed; return what was done in a sentence, "" for nothing.

        With ``waits=False`` a landing that is under way on this machine is not waited for.
        """
        return ""

    def incoming(self) -> list[str]:
        """Return what waits to be landed, and was not written by this machine."""
        return []

    def take_incoming(self, now: datetime) -> Taken:  # noqa: ARG002
        """Land what waits."""
        return Taken()

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


class S3LandingZone(LandingZone):
    """A copy under ``path`` of the landing zone at ``storage``/landing; looking at the index brings it up to date."""

    storage: str
    kms_key: str = ""
    spool: str
    trust_time: bool = False

    @property
    def mirror(self) -> LandingMirror:
        """The copy."""
        return LandingMirror(self.root, object_store(self.storage, self.kms_key))

    def sync(self, *, waits: bool = True) -> str:
        done = self.mirror.sync(waits=waits)
        received = [f"commits of other machines that are in force here now: {done.received}"] if done.received else []
        sent = [f"what landed here is in force at {self.storage}/landing"] if done.sent else []
        return "; ".join([*sent, *received])

    def incoming(self) -> list[str]:
        return self._incoming.waiting()

    def take_incoming(self, now: datetime) -> Taken:
        return self._incoming.take(now)

    def index(self) -> LandingIndex:
        self.sync(waits=False)
        return super().index()

    @property
    def _incoming(self) -> Incoming:
        return Incoming(self.mirror, Path(self.spool), trust_time=self.trust_time)
