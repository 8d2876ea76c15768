"""Where answers are logged, as assets see it: one interface, an adapter per endpoint host.

What belongs elsewhere: writing the log (``serving/prediction_log.py``), a line (``data/prediction_table.py``).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from bigger_boat.data.prediction_files import LogFile, day_files, day_fingerprint, logged_days

if TYPE_CHECKING:
    import polars as pl


class PredictionLogs(dg.ConfigurableResource, ABC):
    """The log of answers of all endpoints."""

    @abstractmethod
    def days(self) -> list[str]:
        """Return the days (UTC) that have answers, in order."""

    @abstractmethod
    def files(self, day: str) -> Sequence[LogFile]:
        """Return the files of a day, by name."""

    @abstractmethod
    def read(self, file: LogFile) -> "tuple[pl.DataFrame, int]":
        """Return a file's predictions in the columns of the log, and how many answers it says were dropped."""

    @abstractmethod
    def fingerprint(self, day: str) -> str:
        """Return what tells the content of a day's files from another."""


class LocalPredictionLogs(PredictionLogs):
    """What the local server wrote under ``path``."""

    path: str

    def days(self) -> list[str]:
        return logged_days(Path(self.path))

    def files(self, day: str) -> Sequence[LogFile]:
        return day_files(Path(self.path), day)

    def read(self, file: LogFile) -> "tuple[pl.DataFrame, int]":
        from bigger_boat.data.prediction_table import read_log_file

        return read_log_file(Path(self.path), file)

    def fingerprint(self, day: str) -> str:
        return day_fingerprint(Path(self.path), day)
