"""Backfills from the command line: which days may be asked for, and where one that was killed or failed goes on.

What was begun is noted in the data folder and forgotten when it ends well. What belongs elsewhere: what of it is still
to be made (``plan.py``), running it (``runner.py``).
"""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import dagster as dg

from bigger_boat.errors import SettingsError

FOLDER = "backfills"


def days_of(first: date, last: date, partitions: dg.PartitionsDefinition) -> list[str]:
    """Return the days from first to last, both included. Raises SettingsError where they are not days of the graph."""
    if last < first:
        raise SettingsError(f"The last day {last} is before the first, {first}.", "Name the earlier day with --from.")
    for day in (first, last):
        if not partitions.has_partition_key(day.isoformat()):
            known = f"{partitions.get_first_partition_key()} to {partitions.get_last_partition_key()}"
            raise SettingsError(
                f"{day} is no day of the graph, whose days are {known}.",
                "Today becomes one at midnight UTC; START_DATE and END_DATE set the others.",
            )
    return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]


class Begun:
    """A backfill that is under way, or was when it was killed. ``since``: when it began, seconds since 1970."""

    def __init__(self, data_dir: Path, days: list[str], select: str):
        self._note = {"first": days[0], "last": days[-1], "select": select}
        digest = hashlib.sha256(select.encode()).hexdigest()[:8]
        self._file = data_dir / FOLDER / f"{days[0]}_{days[-1]}_{digest}.json"
        self.since: float | None = json.loads(self._file.read_text())["since"] if self._file.exists() else None

    @contextmanager
    def noted(self, anew: bool = False) -> Iterator[None]:
        """Note that it is under way, ``anew`` since now; forget it when the block ends well."""
        if self.since is None or anew:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            draft = self._file.with_suffix(".tmp")
            draft.write_text(json.dumps({**self._note, "since": time.time()}))
            draft.replace(self._file)
        yield
        self._file.unlink(missing_ok=True)
