"""Where answers are logged, as assets see it: one interface, an adapter per endpoint host.

What belongs elsewhere: writing the log (``serving/prediction_log.py``), a line (``data/prediction_table.py``), the
adapter of the aws profile (``captured_logs.py``).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import dagster as dg

from bigger_boat.data.prediction_files import LogFile, day_files, day_fingerprint, find_answer, logged_days

if TYPE_CHECKING:
    import polars as pl


class PredictionLogs(dg.ConfigurableResource, ABC):
    """The log of answers of all endpoints."""

    is_far: ClassVar[bool] = False
    """Whether reading a day takes so long that a day which has a table is not searched for one answer."""

    @property
    def delay(self) -> timedelta:
        """How long after its end a day's log is whole."""
        return timedelta(0)

    @property
    def holds(self) -> str:
        """What the log holds of the answers that are given, in words."""
        return "every answer"

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

    @abstractmethod
    def find(self, request_id: str, day: str) -> list[dict[str, Any]]:
        """Return the predictions of a request in a day's files, each with the name of its file."""


class LocalPredictionLogs(PredictionLogs):
    """What the local server wrote under ``path``."""

    path: str

    @property
    def holds(self) -> str:
        return "every answer, unless BIGGER_BOAT_LOG_PREDICTIONS is off"

    def days(self) -> list[str]:
        return logged_days(Path(self.path))

    def files(self, day: str) -> Sequence[LogFile]:
        return day_files(Path(self.path), day)

    def read(self, file: LogFile) -> "tuple[pl.DataFrame, int]":
        from bigger_boat.data.prediction_table import read_log_file

        return read_log_file(Path(self.path), file)

    def fingerprint(self, day: str) -> str:
        return day_fingerprint(Path(self.path), day)

    def find(self, request_id: str, day: str) -> list[dict[str, Any]]:
        return list(find_answer(Path(self.path), request_id, [day]))
