"""Taking sessions out of the log of answers: its finished files and the days' tables.

An answer is a session's if its request named the session, or if an event of the session names the request. New before
old, one file at a time: killed anywhere, doing it again ends the same. What belongs elsewhere: finishing the files that
a server writes (``serving/prediction_log.py``), all other places (``automation/forgetting.py``).
"""

import json
import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from bigger_boat.data.prediction_files import SPOOL, day_files, logged_days, place_of
from bigger_boat.data.prediction_summary import score_bins
from bigger_boat.data.prediction_table import SCORE_BINS


def answers_of(log: Path, tables: Path, sessions: Collection[str]) -> dict[str, int]:
    """Return how many rows each session that was named has in files and tables; sessions without any are left out."""
    wanted, found = set(sessions), Counter()
    for path in _files(log):
        found.update(line.get("session_id") for line in _lines(path) if line.get("session_id") in wanted)
    for path in sorted(tables.glob("date=*.parquet")):
        ids = pl.scan_parquet(path).filter(pl.col("session_id").is_in(list(wanted))).select("session_id")
        found.update(ids.collect()["session_id"].to_list())
    return dict(found)


def forget_answers(log: Path, tables: Path, sessions: Collection[str], requests: Collection[str]) -> int:
    """Take out every answer to these sessions or requests; return how many rows went."""
    gone = sum(_forget_lines(path, set(sessions), set(requests)) for path in _files(log))
    return gone + sum(_forget_rows(path, sessions, requests) for path in sorted(tables.glob("date=*.parquet")))


def _files(log: Path) -> list[Path]:
    files = (file for day in logged_days(log) for file in day_files(log, day))
    return [place_of(log, file) for file in files]


def _lines(path: Path) -> Iterator[dict]:
    content = path.read_bytes()
    return map(json.loads, content[: content.rfind(b"\n") + 1].splitlines())


def _forget_lines(path: Path, sessions: set[str], requests: set[str]) -> int:
    lines = list(_lines(path))
    kept = [one for one in lines if one.get("session_id") not in sessions and one.get("request_id") not in requests]
    if len(kept) == len(lines):
        return 0
    draft = path.with_name(f".draft-{os.getpid()}-{path.name}")
    draft.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in kept), encoding="utf-8")
    os.replace(draft, path)
    return len(lines) - len(kept)


def _forget_rows(path: Path, sessions: Collection[str], requests: Collection[str]) -> int:
    rows = pl.read_parquet(path)
    is_theirs = pl.col("session_id").is_in(list(sessions)).fill_null(False) | pl.col("request_id").is_in(list(requests))
    kept = rows.filter(~is_theirs)
    if len(kept) == len(rows):
        return 0
    told = {name: value for name, value in (pq.read_metadata(path).metadata or {}).items() if name != b"ARROW:schema"}
    draft = path.with_name(f".draft-{os.getpid()}-{path.name}")
    with pq.ParquetWriter(draft, kept.to_arrow().schema, compression="zstd") as writer:
        writer.write_table(kept.to_arrow())
        writer.add_key_value_metadata({**told, SCORE_BINS.encode(): json.dumps(score_bins(kept)).encode()})
    os.replace(draft, path)
    return len(rows) - len(kept)


def is_being_written(log: Path) -> bool:
    """Whether files lie in the spool, which a server may be writing to."""
    return any((Path(log) / SPOOL).glob("*/date=*/*"))
