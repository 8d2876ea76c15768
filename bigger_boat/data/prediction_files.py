"""The log of answers: where its files lie and how a line is found again. Standard library only: the server imports it.

``ROOT/ENDPOINT/date=DAY/*.jsonl`` are finished files, ``ROOT/_spool/ENDPOINT/date=DAY/*.jsonl`` those being written, by
the day (UTC) of the answer. A line is one prediction: a request for several sessions has as many, by ``position``. A
line with ``dropped`` alone counts answers that found no room. What belongs elsewhere: writing them while requests are
answered (``serving/prediction_log.py``), a day's table (``prediction_table.py``).
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SPOOL = "_spool"
SUFFIX = ".jsonl"
DROPPED = "dropped"
SHADOW = "shadow"
"""Route, and the beginning of the request id, of what a challenger would have answered."""
FILE = "file"
"""Column of a day's table: the log file that a row came from."""

LOG_TABLES = "monitoring/prediction_log"
"""Below the data folder: the days' tables."""

MOST_EVENTS = 50
"""A session's last events that are kept; ``events`` says how many it had."""
MOST_PRODUCTS = 50
"""A list's first products that are kept."""


@dataclass(frozen=True)
class LogFile:
    """A file of the log: the endpoint and the day it is of, and where it was found."""

    endpoint: str
    day: str
    path: Path

    @property
    def name(self) -> str:
        """Its name, the same before and after it is finished; an endpoint's sort by time."""
        return f"{self.endpoint}/{self.path.name}"


def folder_of(root: Path, endpoint: str, day: str) -> Path:
    """Return where the finished files of an endpoint's day lie."""
    return Path(root) / endpoint / f"date={day}"


def day_files(root: Path, day: str) -> list[LogFile]:
    """Return the files of a day, by name; those being written are among them."""
    found: dict[str, LogFile] = {}
    for base in (Path(root) / SPOOL, Path(root)):  # a file that is moved meanwhile is met on its way or at its end
        for path in base.glob(f"*/date={day}/*{SUFFIX}"):
            file = LogFile(path.parent.parent.name, day, path)
            found[file.name] = file
    return [found[name] for name in sorted(found)]


def logged_days(root: Path) -> list[str]:
    """Return the days with a file, in order."""
    folders = [*Path(root).glob("[!_]*/date=*"), *(Path(root) / SPOOL).glob("*/date=*")]
    return sorted({folder.name.removeprefix("date=") for folder in folders if any(folder.glob(f"*{SUFFIX}"))})


def day_fingerprint(root: Path, day: str) -> str:
    """Return what tells the content of a day's files from another: their names and lengths; "empty" for none."""
    return fingerprint_of(f"{file.name}:{os.path.getsize(place_of(root, file))}" for file in day_files(root, day))


def fingerprint_of(files: Iterable[str]) -> str:
    """Return a fingerprint of files, each told with what changes when its content does; "empty" for none."""
    parts = list(files)
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16] if parts else "empty"


def shadow_id(request_id: str) -> str:
    """Return the id of what a challenger in the shadow would have answered to a request."""
    return f"{SHADOW}-{request_id}"


def whole_lines(root: Path, file: LogFile) -> bytes:
    """Return a file's lines, wherever it lies by now, without one that was being written when its writer was killed.

    A file that was swept since it was found has none.
    """
    try:
        content = place_of(root, file).read_bytes()
    except FileNotFoundError:
        return b""
    return content[: content.rfind(b"\n") + 1]


def find_answer(root: Path, request_id: str, days: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield what the files of these days hold of a request, with the name of the file."""
    wanted = request_id.encode()
    for file in (file for day in days for file in day_files(root, day)):
        lines = whole_lines(root, file)
        if wanted in lines:
            told = (json.loads(line) for line in lines.splitlines() if wanted in line)
            yield from ({**one, FILE: file.name} for one in told if one.get("request_id") == request_id)


def day_of(ms: int) -> str:
    """Return the day (UTC) of an epoch time in milliseconds."""
    return datetime.fromtimestamp(ms / 1000, UTC).date().isoformat()


def place_of(root: Path, file: LogFile) -> Path:
    """Return where a file lies that may have been finished since it was found."""
    return file.path if file.path.exists() else folder_of(root, file.endpoint, file.day) / file.path.name
