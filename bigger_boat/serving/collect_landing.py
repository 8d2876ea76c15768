"""Sealed segments of the spool become files of the landing zone, each event once.

``python -m bigger_boat.serving.collect_landing COLLECT_DIR LANDING_DIR NOW`` is what the server starts: a process of
its own, so that answers do not wait for Arrow. What belongs elsewhere: when it is started (``collect.py``), the landing
zone's locks, files and commit (``data/landing_store.py``), what a row must look like (``data/source_rows.py``).

An event that the landing zone holds already, on its day or the day before, is left out: a process that was killed
between the landing's commit and the removal of the segments does it again, and changes nothing.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import orjson
import polars as pl

from bigger_boat import clock
from bigger_boat.data.landing import write_days
from bigger_boat.data.landing_days import DaySpool
from bigger_boat.data.landing_index import EVENT_TABLES, UNKNOWN_DAY, current_manifest, read_index
from bigger_boat.data.landing_store import StagedFile, commit, landing_lock
from bigger_boat.data.source_batches import Batch
from bigger_boat.data.source_columns import SCHEMAS
from bigger_boat.data.source_rows import validate
from bigger_boat.errors import ServerError
from bigger_boat.serving.spool import DAMAGED, LAND_NOW, SEALED, Spool, is_written, read_segment, segments

PRODUCER = "collect"
TOGETHER_BYTES = 64 << 20
"""How much of the spool one commit takes."""
BATCH_EVENTS = 50_000
_POLL_S = 0.1


@dataclass
class Landed:
    """What a landing of the spool did, in events. ``known``: the landing zone had them; ``damaged``: lines."""

    events: int = 0
    known: int = 0
    rejected: int = 0
    damaged: int = 0
    days: tuple[str, ...] = ()

    def add(self, other: "Landed") -> None:
        for name in ("events", "known", "rejected", "damaged"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.days = tuple(sorted({*self.days, *other.days}))


def land_sealed(directory: Path, root: Path, now: datetime) -> Landed:
    """Land every sealed segment of ``directory`` in the landing zone ``root``; return what became of the events.

    Killed at any time, it leaves the segments or what they held in force, or both; again, it ends the same.
    """
    total = Landed()
    while segments(directory, (SEALED,)):
        with landing_lock(root) as staging:  # read inside it: another process may just have landed them
            group = _some(segments(directory, (SEALED,)))
            total.add(_land(group, root, staging, now))
            for path in group:
                path.unlink()
    return total


def land_now(directory: Path, root: Path, timeout_s: float = 60.0) -> bool:
    """Bring what has been acknowledged so far into the landing zone, by the server if one collects, else here.

    Returns whether there was anything. Raises ServerError if the server has not done it in time.
    """
    directory = Path(directory)
    waiting = {path.stem for path in segments(directory)}
    if not waiting:
        return False
    deadline, is_asked = time.monotonic() + timeout_s, False
    while waiting & {path.stem for path in segments(directory)}:
        if is_written(directory):
            if not is_asked:  # once: each time lets a landing that failed be tried again at once
                (directory / LAND_NOW).touch()
                is_asked = True
            if time.monotonic() > deadline:
                hint = "See the server's log in DATA_DIR/logs; the events are safe in the spool."
                raise ServerError(f"The server has not landed its spool within {timeout_s:.0f} s.", hint)
            time.sleep(_POLL_S)
        else:
            Spool(directory).close()
            land_sealed(directory, root, clock.utc_now())
    return True


def _some(paths: list[Path]) -> list[Path]:
    """Return the oldest segments that are landed together: at least one."""
    taken, size = [], 0
    for path in paths:
        size += path.stat().st_size
        if taken and size > TOGETHER_BYTES:
            break
        taken.append(path)
    return taken


def _land(paths: list[Path], root: Path, staging: Path, now: datetime) -> Landed:
    landed = Landed()
    good = {table: DaySpool(staging / f"{table}-good", UNKNOWN_DAY) for table in EVENT_TABLES}
    bad = {table: DaySpool(staging / f"{table}-bad", UNKNOWN_DAY) for table in EVENT_TABLES}
    known = _KnownIds(root)
    rows = _rows(paths, landed)
    while batch := list(islice(rows, BATCH_EVENTS)):
        for table in EVENT_TABLES:
            _sort_in(table, [row for row in batch if row["table"] == table], good[table], bad[table], known, now)
    staged: list[StagedFile] = []
    for rejected, spools in ((False, good), (True, bad)):
        for table, spool in spools.items():
            spool.close()
            workdir = staging / table / ("bad" if rejected else "good")
            workdir.mkdir(parents=True)
            staged += write_days(table, spool, workdir, PRODUCER, rejected, None)
    kept = sum(file.rows for file in staged if not file.rejected)
    landed.rejected = sum(file.rows for file in staged if file.rejected)
    landed.known += landed.events - kept - landed.rejected
    landed.events = kept
    landed.days = tuple(sorted({file.part for file in staged if not file.rejected}))
    if staged:
        commit(root, staging, staged, lambda _part, _table, _producer: False, now)
    return landed


def _rows(paths: Iterable[Path], landed: Landed) -> Iterator[dict]:
    """Yield the rows of segments, each event id once; count them, and put a damaged segment's copy aside."""
    seen: set[str] = set()
    for path in paths:
        damaged = 0
        for line in read_segment(path):
            if line is None:
                damaged += 1
                continue
            row = orjson.loads(line)
            landed.events += row["event_id"] not in seen
            landed.known += row["event_id"] in seen
            if row["event_id"] not in seen:
                seen.add(row["event_id"])
                yield row
        if damaged:
            landed.damaged += damaged
            _put_aside(path)


def _put_aside(path: Path) -> None:
    aside = path.with_suffix(DAMAGED)
    if not aside.exists():
        os.link(path, aside)


def _sort_in(
    table: str,
    rows: list[dict],
    good: DaySpool,
    bad: DaySpool,
    known: "_KnownIds",
    now: datetime,
) -> None:
    if not rows:
        return
    columns = SCHEMAS[table]
    frame = pl.DataFrame({name: [row[name] for row in rows] for name in columns}, schema=columns)
    validated = validate(table, Batch(frame, np.arange(1, len(rows) + 1)), "collect", 0, now)
    for (day,), part in validated.good.partition_by("day", as_dict=True).items():
        good.add(part.filter(~pl.col("event_id").is_in(known.around(day).implode())))
    bad.add(validated.bad.with_columns(pl.col("day").alias("_day")), "_day")


class _KnownIds:
    """The ids of collected events that are in force, by day; the landing index is read once."""

    def __init__(self, root: Path):
        self._root, self._index = root, read_index(root)
        self._by_day: dict[str, pl.Series] = {}

    def around(self, day: date) -> pl.Series:
        """Return the ids of a day and the day before: whoever sent again past midnight got the server's time anew."""
        return pl.concat([self._of((day - timedelta(days=back)).isoformat()) for back in (0, 1)])

    def _of(self, day: str) -> pl.Series:
        if day not in self._by_day:
            manifest = current_manifest(self._root, day, self._index)
            tables = manifest.files if manifest else {}
            files = [file for table in EVENT_TABLES for file in tables.get(table, ()) if file.producer == PRODUCER]
            ids = (pl.read_parquet(self._root / file.path, columns=["event_id"])["event_id"] for file in files)
            self._by_day[day] = pl.concat([pl.Series("event_id", [], pl.String), *ids])
        return self._by_day[day]


def main() -> None:
    directory, root, now = sys.argv[1:4]
    os.nice(10)
    print(json.dumps(vars(land_sealed(Path(directory), Path(root), datetime.fromisoformat(now)))))


if __name__ == "__main__":
    main()
