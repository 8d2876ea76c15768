"""Sessions leave the log of answers: its files and the days' tables, and nothing else does."""

import json
import os
from pathlib import Path

import polars as pl
import pytest
from prediction_lines import line, write_log

from bigger_boat.data.prediction_files import SPOOL, day_files, find_answer, logged_days, whole_lines
from bigger_boat.data.prediction_forget import DRAFT, Forgotten, answers_of, forget_answers
from bigger_boat.data.prediction_table import build_day, day_table, read_bins, read_log_file

DAY = "2026-11-20"


def make(root: Path) -> tuple[Path, Path]:
    log, tables = root / "log", root / "tables"
    rows = [line("r-1", session_id="s-1"), line("r-2", session_id="s-é"), line("r-3"), {"dropped": 2}]
    write_log(log, DAY, *rows)
    write_log(log, DAY, line("i-1", purchase_probability=0.5, session_id="s-1"), name="intent")
    build_day(day_table(tables, DAY), day_files(log, DAY), lambda file: read_log_file(log, file))
    return log, tables


def lines(log: Path) -> list[dict]:
    return [json.loads(one) for file in day_files(log, DAY) for one in whole_lines(log, file).splitlines()]


def test_a_session_leaves_files_and_tables(tmp_path):
    log, tables = make(tmp_path)
    assert answers_of(log, tables, ["s-1", "s-9"]) == {"s-1": 4}
    assert forget_answers(log, tables, ["s-1"], []) == Forgotten(4, 0)
    assert answers_of(log, tables, ["s-1"]) == {}
    assert answers_of(log, tables, ["s-é"]) == {"s-é": 2}
    assert lines(log) == [line("r-2", session_id="s-é"), line("r-3"), {"dropped": 2}]
    assert pl.read_parquet(day_table(tables, DAY))["request_id"].to_list() == ["r-2", "r-3"]
    assert read_bins(day_table(tables, DAY)) == {"v1": {"-1.0": 2}}
    assert forget_answers(log, tables, ["s-1"], []) == Forgotten(0, 0)
    again = build_day(day_table(tables, DAY), day_files(log, DAY), lambda file: read_log_file(log, file))
    assert (again.answers, again.dropped) == (2, 2), "the table can be made again, and knows what was dropped"


def test_an_answer_that_a_sessions_event_names_goes_too(tmp_path):
    log, tables = make(tmp_path)
    assert forget_answers(log, tables, ["s-9"], ["r-3"]).rows == 2
    assert not list(find_answer(log, "r-3", logged_days(log)))
    assert [one["session_id"] for one in find_answer(log, "r-2", logged_days(log))] == ["s-é"]


def test_nothing_was_logged(tmp_path):
    assert answers_of(tmp_path / "log", tmp_path / "tables", ["s-1"]) == {}
    assert forget_answers(tmp_path / "log", tmp_path / "tables", ["s-1"], ["r-1"]) == Forgotten(0, 0)


def test_what_a_challenger_would_have_answered_goes_with_the_answer(tmp_path):
    log = tmp_path / "log"
    write_log(log, DAY, line("r-1"), line("shadow-r-1", route="shadow"), line("shadow-r-2"), line("shadow"))
    assert forget_answers(log, tmp_path / "tables", [], ["r-1"]).rows == 2
    assert [one["request_id"] for one in lines(log)] == ["shadow-r-2", "shadow"]


def test_a_file_that_a_server_has_open_is_told_and_never_touched(tmp_path):
    """Rewritten it would be another file: what the server appends to the old one would be lost."""
    log = tmp_path / "log"
    spooled = write_log(log / SPOOL, DAY, line("r-1", session_id="s-1"), line("r-2", session_id="s-2"))
    before = spooled.read_bytes(), spooled.stat().st_ino
    assert forget_answers(log, tmp_path / "tables", ["s-1"], []) == Forgotten(0, 1)
    assert (spooled.read_bytes(), spooled.stat().st_ino) == before
    assert forget_answers(log, tmp_path / "tables", ["s-3"], []) == Forgotten(0, 0)


def test_killed_before_the_successor_takes_its_place_nobody_reads_the_draft_and_it_goes(tmp_path, monkeypatch):
    log, tables = make(tmp_path)

    class Killed(BaseException): ...

    def killed(*_paths: object) -> None:
        raise Killed

    before = lines(log)
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(Killed):
        forget_answers(log, tables, ["s-1"], [])
    monkeypatch.undo()
    assert len(list(log.rglob(f"*{DRAFT}"))) == 1
    assert lines(log) == before, "the draft is no file of the log"
    assert forget_answers(log, tables, ["nobody"], []) == Forgotten(0, 0)
    assert not list(log.rglob(f"*{DRAFT}")), "whoever is forgotten later is not left in it"
    assert forget_answers(log, tables, ["s-1"], []).rows == 4
