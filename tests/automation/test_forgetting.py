"""The log of answers while sessions are forgotten and a server writes: nothing of others is lost, nothing of theirs
stays unsaid."""

import fcntl
import json
import time
from pathlib import Path

import pytest

from bigger_boat.automation import forgetting
from bigger_boat.automation.forgetting import Note, forget_log
from bigger_boat.data.prediction_files import SPOOL, day_files, logged_days, whole_lines
from bigger_boat.data.prediction_forget import Forgotten
from bigger_boat.serving.answered import Answered
from bigger_boat.serving.contract import parse_request
from bigger_boat.serving.prediction_log import PredictionLog

RANKED = {"skus": ["a"], "scores": [0.9], "fallback": False, "unknown_skus": []}
MORNING_S = 1_795_165_200.0


def answered(session: str) -> Answered:
    asked = parse_request({"sessions": [["a"]], "session_ids": [session]})
    return Answered(f"r-{session}", "/predict", "recommendation", "tiny", "v1", asked, [RANKED], 0.004, MORNING_S)


def sessions_in(log: Path) -> list[str]:
    files = [file for day in logged_days(log) for file in day_files(log, day)]
    return [json.loads(line)["session_id"] for file in files for line in whole_lines(log, file).splitlines()]


@pytest.fixture
def note(tmp_path) -> Note:
    return Note(tmp_path / "forgetting.json", sessions=["s-1"])


@pytest.fixture
def endpoints(tmp_path) -> Path:
    (tmp_path / "endpoints").mkdir()
    return tmp_path / "endpoints"


def test_a_server_that_writes_loses_no_answer(tmp_path, endpoints, note):
    log = tmp_path / "log"
    server = PredictionLog(log, clock=lambda: MORNING_S)
    with (endpoints / ".server.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for session in ("s-1", "s-2"):
            server.offer(answered(session))
        server.start()
        give_up = time.monotonic() + 120
        while len(sessions_in(log)) < 2:
            assert time.monotonic() < give_up
            time.sleep(0.01)
        assert list((log / SPOOL).rglob("*.jsonl")), "the server has the file open"
        assert forget_log(log, tmp_path / "tables", endpoints, note) == Forgotten(1, 0)
        server.offer(answered("s-3"))
        server.stop()
    assert sessions_in(log) == ["s-2", "s-3"]


def test_what_a_server_that_is_gone_left_is_finished_here(tmp_path, endpoints, note):
    log = tmp_path / "log"
    left = log / SPOOL / "intent" / "date=2026-11-20" / "left.jsonl"
    left.parent.mkdir(parents=True)
    left.write_text('{"session_id": "s-1"}\n{"session_id": "s-2"}\n')
    (endpoints / ".server.lock").touch()
    assert forget_log(log, tmp_path / "tables", endpoints, note) == Forgotten(1, 0)
    assert not left.exists()
    assert sessions_in(log) == ["s-2"]


def test_a_session_that_does_not_stop_asking_is_told(tmp_path, endpoints, note, monkeypatch):
    log = tmp_path / "log"
    spool = log / SPOOL / "intent" / "date=2026-11-20"
    spool.mkdir(parents=True)
    passes = []

    def finished_and_asked_again(*_told: object) -> None:
        passes.append(len(passes))
        for file in spool.glob("*.jsonl"):
            target = log / file.relative_to(log / SPOOL)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
        (spool / f"{len(passes)}.jsonl").write_text('{"session_id": "s-1"}\n')

    monkeypatch.setattr(forgetting, "finish_log", finished_and_asked_again)
    assert forget_log(log, tmp_path / "tables", endpoints, note) == Forgotten(forgetting.LOG_PASSES - 1, 1)
    assert len(passes) == forgetting.LOG_PASSES
