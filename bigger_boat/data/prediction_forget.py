"""Taking sessions out of the log of answers: its finished files and the days' tables.

An answer is a session's if its request named the session, or if an event of the session names the request; what a
challenger in the shadow would have answered to it goes with it. New before old, one file at a time: killed anywhere,
doing it again ends the same. Files in the spool are read and never rewritten: a server may be writing to them. What
belongs elsewhere: finishing those (``serving/prediction_log.py``), all other places (``automation/forgetting.py``).
"""

import json
import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from bigger_boat.data.prediction_files import SPOOL, LogFile, day_files, logged_days, shadow_id, whole_lines
from bigger_boat.data.prediction_summary import score_bins
from bigger_boat.data.prediction_table import SCORE_BINS

DRAFT = ".draft"
"""How the successor of a log file is called until it takes its place: no reader of the log looks at it."""


@dataclass(frozen=True)
class Forgotten:
    """``rows`` that went, and answers that are still ``waiting`` in files which were not finished when it looked."""

    rows: int
    waiting: int


def answers_of(log: Path, tables: Path, sessions: Collection[str]) -> dict[str, int]:
    """Return how many rows each session that was named has in files and tables; sessions without any are left out."""
    wanted, found = set(sessions), Counter()
    for file in _files(log):
        found.update(line["session_id"] for line in _lines(log, file) if line.get("session_id") in wanted)
    for path in sorted(tables.glob("date=*.parquet")):
        ids = pl.scan_parquet(path).filter(pl.col("session_id").is_in(list(wanted))).select("session_id")
        found.update(ids.collect()["session_id"].to_list())
    return dict(found)


def forget_answers(log: Path, tables: Path, sessions: Collection[str], requests: Collection[str]) -> Forgotten:
    """Take every answer to these sessions or requests out of finished files and tables. One process at a time."""
    for left in log.glob(f"*/date=*/*{DRAFT}"):  # what a kill left: rows of who is forgotten now may be in it
        left.unlink()
    wanted, gone, waiting = _Wanted(sessions, requests), 0, 0
    for file in _files(log):
        if file.path.is_relative_to(Path(log) / SPOOL):
            waiting += sum(map(wanted.has, _lines(log, file)))
        else:
            gone += _forget_lines(log, file, wanted)
    gone += sum(_forget_rows(path, wanted) for path in sorted(tables.glob("date=*.parquet")))
    return Forgotten(gone, waiting)


def is_being_written(log: Path) -> bool:
    """Whether files lie in the spool, which a server may be writing to."""
    return any((Path(log) / SPOOL).glob("*/date=*/*"))


class _Wanted:
    """Whose answers go: those to the sessions, those to the requests, and the shadows of both."""

    def __init__(self, sessions: Collection[str], requests: Collection[str]):
        self.sessions = set(sessions)
        self.requests = {name for request in requests for name in (request, shadow_id(request))}

    def has(self, line: dict[str, Any]) -> bool:
        return line.get("session_id") in self.sessions or line.get("request_id") in self.requests

    def rows(self) -> pl.Expr:
        is_theirs = pl.col("session_id").is_in(list(self.sessions)).fill_null(False)
        return is_theirs | pl.col("request_id").is_in(list(self.requests))


def _files(log: Path) -> list[LogFile]:
    return [file for day in logged_days(log) for file in day_files(log, day)]


def _lines(log: Path, file: LogFile) -> Iterator[dict[str, Any]]:
    return map(json.loads, whole_lines(log, file).splitlines())


def _forget_lines(log: Path, file: LogFile, wanted: _Wanted) -> int:
    lines = list(_lines(log, file))
    kept = [one for one in lines if not wanted.has(one)]
    if len(kept) == len(lines):
        return 0
    draft = file.path.with_name(f"{file.path.stem}{DRAFT}")
    draft.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in kept), encoding="utf-8")
    os.replace(draft, file.path)
    return len(lines) - len(kept)


def _forget_rows(path: Path, wanted: _Wanted) -> int:
    rows = pl.read_parquet(path)
    kept = rows.filter(~wanted.rows())
    if len(kept) == len(rows):
        return 0
    told = {name: value for name, value in (pq.read_metadata(path).metadata or {}).items() if name != b"ARROW:schema"}
    draft = path.with_name(f".draft-{os.getpid()}-{path.name}")
    with pq.ParquetWriter(draft, kept.to_arrow().schema, compression="zstd") as writer:
        writer.write_table(kept.to_arrow())
        writer.add_key_value_metadata({**told, SCORE_BINS.encode(): json.dumps(score_bins(kept)).encode()})
    os.replace(draft, path)
    return len(rows) - len(kept)
