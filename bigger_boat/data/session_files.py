"""Reading anyone's clicks for the benchmark: session-rec's format or the challenge's, one file, into sessions.

session-rec's: columns SessionId, ItemId, Time (seconds or milliseconds), tab, comma or semicolon between them. The
challenge's: browsing_train.csv, of which ``detail`` events are the clicks. Plain or .gz. What belongs elsewhere: the
landing zone with its rejects (``landing.py``); here a bad row is an error, because a yardstick leaves nothing out.
"""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from bigger_boat.data.event_rules import TIME
from bigger_boat.errors import DatasetError

SESSION_REC = {"session": "SessionId", "item": "ItemId", "time": "Time"}
CHALLENGE = {"session": "session_id_hash", "item": "product_sku_hash", "time": TIME}
CHALLENGE_ACTION, CHALLENGE_CLICK = "product_action", "detail"
CHALLENGE_FILES = ("browsing_train.csv", "browsing_train.csv.gz")
SEPARATORS = "\t,;"

EARLIEST_IN_MS = 1e11
"""Times above (1973 in milliseconds, 5138 in seconds) are milliseconds, below seconds."""

LONGEST_HEADER = 100_000
FORMATS = (
    f"session-rec's columns {', '.join(SESSION_REC.values())} (tab or comma between them), "
    f"or the challenge's {', '.join((*CHALLENGE.values(), CHALLENGE_ACTION))}"
)


@dataclass(frozen=True)
class ClickSessions:
    """Items of each session, oldest first; sessions by the time of their last click, ``ended_s`` float64 (N,).

    ``times_ms`` int64 (clicks,): when each click was, one session behind the other; None where it is not known.
    """

    items: list[list[str]]
    ended_s: np.ndarray
    times_ms: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def clicks(self) -> int:
        return sum(map(len, self.items))

    def part(self, start: int | None, end: int | None) -> "ClickSessions":
        """Return the sessions from ``start`` to before ``end``, in order of time."""
        items = self.items[start:end]
        if self.times_ms is None:
            return ClickSessions(items, self.ended_s[start:end])
        before = sum(map(len, self.items[:start])) if start else 0
        times_ms = self.times_ms[before : before + sum(map(len, items))]
        return ClickSessions(items, self.ended_s[start:end], times_ms)


def read_sessions(path: Path) -> ClickSessions:
    """Read a file of clicks; a folder means the challenge's browsing file in it. Repeated clicks are kept.

    Clicks of equal time keep the order of the file. Raises DatasetError, which names file and line.
    """
    path = _file_at(Path(path))
    separator, names = _header(path)
    known = {name.lower(): name for name in names}
    for columns in (SESSION_REC, CHALLENGE):
        found = {role: known.get(name.lower()) for role, name in columns.items()}
        if all(found.values()):
            clicks = _read(path, separator, names, found, known.get(CHALLENGE_ACTION) if columns is CHALLENGE else None)
            return _sessions(clicks)
    raise DatasetError(f"{path} has the columns {', '.join(names)[:300]}.", f"Expected are {FORMATS}.")


def _file_at(path: Path) -> Path:
    if path.is_dir():
        for name in CHALLENGE_FILES:
            if (path / name).is_file():
                return path / name
        raise DatasetError(f"{path} is a folder without {CHALLENGE_FILES[0]}.", f"Name a file with {FORMATS}.")
    if not path.exists():
        raise DatasetError(f"There is no {path}.", f"Name a file with {FORMATS}.")
    return path


def _header(path: Path) -> tuple[str, list[str]]:
    """Return what separates the columns, and their names."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            line = file.readline(LONGEST_HEADER).decode("utf-8-sig").rstrip("\r\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}.", "Expected is text in UTF-8, plain or .gz.") from error
    if not line.strip():
        raise DatasetError(f"{path} is empty.", f"Its first line must name the columns: {FORMATS}.")
    separator = max(SEPARATORS, key=line.count)
    return separator, [name.strip().strip('"') for name in line.split(separator)]


def _read(path: Path, separator: str, names: list[str], found: dict[str, str], action: str | None) -> pl.DataFrame:
    """Return the clicks: session, item, time_s, in the file's order."""
    try:
        rows = pl.scan_csv(path, separator=separator, new_columns=names, infer_schema=False, row_index_name="place")
        if action:
            rows = rows.filter(pl.col(action) == CHALLENGE_CLICK)
        clicks = rows.select("place", **{role: pl.col(name).str.strip_chars() for role, name in found.items()})
        clicks = clicks.with_columns(time_s=pl.col("time").cast(pl.Float64, strict=False)).collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DatasetError(f"{path} cannot be read: {reason}", "Look for a torn file, row or other text.") from error
    if clicks.is_empty():
        raise DatasetError(f"{path} holds no clicks.", "Is it cut off after its header?")
    _require_complete(path, clicks)
    if clicks["time_s"].median() > EARLIEST_IN_MS:
        clicks = clicks.with_columns(pl.col("time_s") / 1000)
    return clicks


def _require_complete(path: Path, clicks: pl.DataFrame) -> None:
    faults = {
        "no session": pl.col("session").fill_null("") == "",
        "no item": pl.col("item").fill_null("") == "",
        "no time": pl.col("time").fill_null("") == "",
        "a time that is no number from 0 on": (pl.col("time_s").is_finite() & (pl.col("time_s") >= 0)).not_(),
    }
    faulty = [fault.fill_null(value=True).alias(name) for name, fault in faults.items()]
    first = clicks.select("place", *faulty).filter(pl.any_horizontal(*faults)).head(1)
    if len(first):
        row = first.row(0, named=True)
        fault = next(name for name in faults if row[name])
        raise DatasetError(f"{path}, line {row['place'] + 2}: {fault}.", "Every click needs a session, item and time.")


def _sessions(clicks: pl.DataFrame) -> ClickSessions:
    in_order = clicks.sort("time_s", maintain_order=True)
    grouped = in_order.group_by("session", maintain_order=True).agg("item", "time_s")
    grouped = grouped.with_columns(ended_s=pl.col("time_s").list.last()).sort("ended_s", maintain_order=True)
    times_ms = (grouped["time_s"].explode() * 1000).round().cast(pl.Int64).to_numpy()
    return ClickSessions(grouped["item"].to_list(), grouped["ended_s"].to_numpy(), times_ms)
