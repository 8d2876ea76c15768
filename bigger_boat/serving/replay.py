"""A data set, sent to ``/collect`` event by event as if its shop were open: reading days, pacing, sending.

Belongs here: what is sent, when, and again after a fault. Does not belong here: printing (``cli/shop.py``), what
becomes of the events (``collect.py``).

An event's id is made from its content and the shift: sent again, it is known. So a replay that was stopped is simply
started again.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from bigger_boat.data.event_rules import TIME
from bigger_boat.data.landing_index import EVENT_TABLES, LandingIndex, files_for, read_index
from bigger_boat.data.source_rows import WEEK_MS
from bigger_boat.errors import RequestError, ServerError
from bigger_boat.serving import client

BATCH_EVENTS = 500
_WINDOW_S = 0.25
"""Events due within this time are sent together."""
_PATIENCE_S, _AGAIN_S = 120.0, 0.5

SOURCE_NAMES = {"session_id_hash": "session_id", TIME: "timestamp_ms"}


@dataclass(frozen=True)
class Speed:
    """``factor``: how much faster than it happened; ``per_s``: so many events a second; neither: as fast as it goes."""

    factor: float | None = None
    per_s: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Speed":
        """Read ``1000x``, ``500/s`` or ``max``. Raises ServerError for anything else."""
        number = re.fullmatch(r"([0-9]*\.?[0-9]+)(x|/s)", text)
        if text != "max" and not (number and float(number[1]) > 0):
            raise ServerError(f"{text!r} is no speed.", "Say 1000x, 500/s (events per second) or max.")
        if text == "max":
            return cls()
        return cls(factor=float(number[1])) if number[2] == "x" else cls(per_s=float(number[1]))

    def due_s(self, event: dict[str, Any], first: dict[str, Any], number: int) -> float:
        """Return when an event, the ``number``-th after ``first``, is due: seconds after ``first`` was."""
        if self.factor:
            return (event["timestamp_ms"] - first["timestamp_ms"]) / 1000 / self.factor
        return number / self.per_s if self.per_s else 0.0


@dataclass
class Replayed:
    """What became of what was sent, in events; ``faults``: the first reasons of rejections."""

    sent: int = 0
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, events: int, answer: dict[str, Any]) -> None:
        self.sent += events
        self.accepted += answer["accepted"]
        self.duplicates += answer["duplicates"]
        self.rejected += len(answer["rejected"])
        self.faults = [*self.faults, *(fault["message"] for fault in answer["rejected"])][:3]


def days_to_replay(index: LandingIndex, first: date | None, last: date | None) -> list[str]:
    """Return the landed days with events from ``first`` to ``last``, both included; None: from, or to, the end."""
    low, high = first.isoformat() if first else "", last.isoformat() if last else "9999"
    return [day for day in index.days if low <= day <= high and rows_of(index, [day])]


def rows_of(index: LandingIndex, days: list[str]) -> int:
    """Return how many events these days have."""
    return sum(index.days[day].rows.get(table, 0) for day in days for table in EVENT_TABLES)


def events_of(root: Path, days: list[str], sessions: int | None = None, shift_weeks: int = 0) -> Iterator[dict]:
    """Yield the collected events of landed days in order of time, one day in memory; of the first so many sessions."""
    chosen: set[str] = set()
    index = read_index(root)
    for day in days:
        found = False
        for row in _rows(root, day, index):
            if sessions is not None and row["session_id_hash"] not in chosen:
                if len(chosen) >= sessions:
                    continue
                chosen.add(row["session_id_hash"])
            found = True
            yield _event(row, shift_weeks)
        if sessions is not None and not found:
            return  # all who were chosen have left


def replay(
    url: str,
    events: Iterator[dict[str, Any]],
    speed: Speed,
    told: Replayed,
    *,
    api_key: str | None = None,
    progress: Callable[[int], None] = lambda _sent: None,
) -> None:
    """Send events at a speed and count in ``told``, which is right also when it is interrupted.

    What was known to the server already takes no time: the pace begins behind it. Raises ServerError if the server
    does not trust the events' time, or stays away.
    """
    require_trust(url)
    pace = _Pace(speed)
    for batch in _batches(events, speed):
        pace.wait_for(batch)
        answer = _send(url, batch, api_key)
        told.add(len(batch), answer)
        if answer["duplicates"] == len(batch):
            pace.restart()
        progress(told.sent)


def require_trust(url: str) -> None:
    """Raise ServerError unless the server at ``url`` keeps the time that events name."""
    if not client.health(url).get("collect", {}).get("trust_time"):
        text = f"The server at {url} would give these events its own time."
        raise ServerError(text, "Start it with BIGGER_BOAT_COLLECT_TRUST_TIME=true.")


class _Pace:
    """When events are due, from the first one after a start."""

    def __init__(self, speed: Speed):
        self._speed = speed
        self.restart()

    def restart(self) -> None:
        self._first: dict[str, Any] | None = None
        self._began = 0.0
        self._number = 0

    def wait_for(self, batch: list[dict[str, Any]]) -> None:
        if self._first is None:
            self._first, self._began = batch[0], time.monotonic()
        due = self._began + self._speed.due_s(batch[0], self._first, self._number)
        if (wait_s := due - time.monotonic()) > 0:
            time.sleep(wait_s)
        self._number += len(batch)


def _batches(events: Iterator[dict[str, Any]], speed: Speed) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for event in events:
        is_later = batch and speed.due_s(event, batch[0], len(batch)) >= _WINDOW_S
        if is_later or len(batch) == BATCH_EVENTS:
            yield batch
            batch = []
        batch.append(event)
    if batch:
        yield batch


def _send(url: str, batch: list[dict[str, Any]], api_key: str | None) -> dict[str, Any]:
    """Send a batch, again while the server is busy or away: it takes each event once."""
    body, deadline = orjson.dumps(batch), time.monotonic() + _PATIENCE_S
    while True:
        try:
            return client.ask(url, "/collect", body, api_key=api_key)
        except RequestError as error:
            if error.status == 400:
                faults = [{"message": error.message}] * len(batch)
                return {"accepted": 0, "duplicates": 0, "rejected": faults}
            if error.status not in (429, 503) or time.monotonic() > deadline:
                raise
        except ServerError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_AGAIN_S)


def _rows(root: Path, day: str, index: LandingIndex) -> Iterator[dict[str, Any]]:
    """Yield a day's rows in order of time; within a millisecond in the order of their files."""
    frames = [
        pl.read_parquet(file).with_columns(pl.lit(table).alias("table"))
        for table in EVENT_TABLES
        for file in files_for(root, table, day, index)
    ]
    if frames:
        ordered = pl.concat(frames, how="diagonal").sort(TIME, maintain_order=True)
        yield from ordered.iter_rows(named=True)


def _event(row: dict[str, Any], shift_weeks: int) -> dict[str, Any]:
    known = row["event_id"] if not shift_weeks else None
    kept = {name: value for name, value in row.items() if value is not None and name not in ("table", "event_id")}
    event = {SOURCE_NAMES.get(name, name): value for name, value in kept.items()}
    event["timestamp_ms"] += shift_weeks * WEEK_MS
    event.setdefault("event_type", "search")
    content = orjson.dumps(event, option=orjson.OPT_SORT_KEYS)
    return {"event_id": known or hashlib.sha256(content).hexdigest()[:32], **event}
