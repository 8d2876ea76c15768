"""Every answer of the server is in the log: what a line says, where there is no room, and after kill -9."""

import json
import signal
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tiny_models import serve_tiny_models

from bigger_boat.data.prediction_files import day_files, find_answer, logged_days, whole_lines
from bigger_boat.serving import client
from bigger_boat.serving.answered import Answered
from bigger_boat.serving.contract import parse_request
from bigger_boat.serving.prediction_log import LogLimits, PredictionLog, _OpenFile, request_rotation, sweep

MORNING = datetime(2026, 11, 20, 9, 0, tzinfo=UTC).timestamp()
RANKED = {"skus": ["a", "b"], "scores": [0.9, 0.1], "fallback": False, "unknown_skus": ["nobody"]}


def answered(number: int = 1, at_s: float = MORNING, **request) -> Answered:
    asked = parse_request({"sessions": [["nobody", "a", "a"]], **request})
    predictions = [RANKED] * len(asked.sessions)
    return Answered(f"r-{number}", "/predict", "recommendation", "tiny", "v1", asked, predictions, 0.0042, at_s)


def lines_of(root: Path) -> list[dict]:
    return [
        json.loads(line)
        for day in logged_days(root)
        for file in day_files(root, day)
        for line in whole_lines(root, file).splitlines()
    ]


def log_of(root: Path, **told) -> tuple[PredictionLog, list]:
    counted: list = []
    told.setdefault("clock", lambda: MORNING)
    log = PredictionLog(root, on_written=counted.append, on_dropped=lambda *why: counted.append(why), **told)
    return log, counted


def write(log: PredictionLog, *answers: Answered) -> None:
    log.start()
    for answer in answers:
        log.offer(answer)
    log.stop()


def test_a_line_says_what_was_asked_and_answered(tmp_path):
    log, counted = log_of(tmp_path)
    session = [{"action": "view"}, {"action": "detail", "sku": "a", "timestamp_ms": 5}]
    write(log, answered(sessions=[session, []], session_ids=["s-1", "s-2"], at_ms=[9, None], k=3))
    first, second = lines_of(tmp_path)
    assert first == {
        "endpoint": "recommendation",
        "request_id": "r-1",
        "position": 0,
        "answered_at_ms": 1_795_165_200_000,
        "latency_ms": 4.2,
        "route": "/predict",
        "model": "tiny",
        "version": "v1",
        "session_id": "s-1",
        "at_ms": 9,
        "k": 3,
        "exclude_seen": False,
        "events": 2,
        "actions": ["view", "detail"],
        "skus": ["", "a"],
        "timestamps_ms": [-1, 5],
        "products": 1,
        "unknown": 1,
        "recommended": ["a", "b"],
        "scores": [0.9, 0.1],
        "fallback": False,
    }
    assert (second["session_id"], second["at_ms"], second["position"], second["events"]) == ("s-2", None, 1, 0)
    assert counted == [1]
    assert logged_days(tmp_path) == ["2026-11-20"]
    assert not list((tmp_path / "_spool").glob("*/*/*"))


def test_what_is_long_is_cut_and_says_how_long_it_was(tmp_path):
    log, _ = log_of(tmp_path)
    write(log, answered(sessions=[[f"sku-{number}" for number in range(70)]]))
    [line] = lines_of(tmp_path)
    assert (line["events"], line["products"], len(line["skus"]), line["skus"][-1]) == (70, 70, 50, "sku-69")


def test_what_finds_no_room_is_dropped_counted_and_told(tmp_path):
    log, counted = log_of(tmp_path, limits=LogLimits(queue_cells=15))  # an answer here has 1 + 2 + 3 cells
    for number in range(5):
        log.offer(answered(number))
    log.start()
    log.stop()
    assert counted == [("queue", 1)] * 3 + [2]
    assert [line.get("request_id", line.get("dropped")) for line in lines_of(tmp_path)] == ["r-0", "r-1", 3]


def test_one_answer_larger_than_the_queue_is_taken_when_it_is_empty(tmp_path):
    log, counted = log_of(tmp_path, limits=LogLimits(queue_cells=1))
    write(log, answered())
    assert counted == [1]


def test_a_disk_that_cannot_be_written_costs_lines_and_nothing_else(tmp_path):
    (tmp_path / "log").write_text("a file where a folder should be")
    log, counted = log_of(tmp_path / "log")
    write(log, answered(), answered(2))
    assert counted == [("disk", 2)]


def test_what_a_full_disk_cost_is_told_in_the_log_once_it_can_be_written(tmp_path, monkeypatch):
    real, faults = _OpenFile.write, [OSError(28, "No space left on device")]

    def write_once_there_is_room(file: _OpenFile, lines: bytes) -> None:
        if faults:
            raise faults.pop()
        real(file, lines)

    monkeypatch.setattr(_OpenFile, "write", write_once_there_is_room)
    log, counted = log_of(tmp_path)
    write(log, answered(1), answered(2), answered(3, MORNING + 86_400))  # a day has a file of its own
    assert counted == [("disk", 2), 1]
    assert [line.get("request_id", line.get("dropped")) for line in lines_of(tmp_path)] == ["r-3", 2]


def test_files_end_with_the_day_and_at_their_size(tmp_path):
    log, _ = log_of(tmp_path, limits=LogLimits(file_bytes=1))
    write(log, answered(1), answered(2, MORNING + 86_400))
    assert logged_days(tmp_path) == ["2026-11-20", "2026-11-21"]
    files = [file for day in logged_days(tmp_path) for file in day_files(tmp_path, day)]
    assert len(files) == 2
    assert all(file.path.parent.parent == tmp_path / "recommendation" for file in files)


def test_a_start_finishes_what_a_killed_server_left_but_for_the_torn_line(tmp_path):
    left = tmp_path / "_spool" / "intent" / "date=2026-11-19" / "old.jsonl"
    left.parent.mkdir(parents=True)
    left.write_bytes(b'{"request_id":"r-0"}\n{"request_id":"r-')
    assert [line["request_id"] for line in lines_of(tmp_path)] == ["r-0"], "readable where it lies"
    log, _ = log_of(tmp_path)
    write(log)
    assert not left.exists()
    [file] = day_files(tmp_path, "2026-11-19")
    assert file.path == tmp_path / "intent" / "date=2026-11-19" / "old.jsonl"
    assert whole_lines(tmp_path, file) == b'{"request_id":"r-0"}\n'


def test_the_oldest_goes_first_where_there_is_too_much(tmp_path):
    for day, name in (("2026-08-01", "a"), ("2026-11-18", "b"), ("2026-11-19", "c"), ("2026-11-20", "d")):
        path = tmp_path / "intent" / f"date={day}" / f"{name}.jsonl"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * 100)
    gone = sweep(tmp_path, LogLimits(total_bytes=250, days=90), "2026-11-20")
    assert [path.name for path in gone] == ["a.jsonl", "b.jsonl"], "one is too old, then 300 bytes are 50 too many"
    assert logged_days(tmp_path) == ["2026-11-19", "2026-11-20"]


def wait_for(root: Path, request_id: str) -> list[dict]:
    """Return what the log says of a request once it does; the writer is as late as a quarter of a second."""
    end = time.monotonic() + 30
    while not (found := list(find_answer(root, request_id, logged_days(root)))) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def test_the_server_logs_what_it_answers_and_loses_nothing_written_to_kill_9(tmp_path):
    root = tmp_path / "predictions"
    with serve_tiny_models(tmp_path, predictions_dir=str(root)) as server:
        request = {"sessions": [["sku-a"]], "session_ids": ["s-7"], "k": 2}
        answer = client.post_invocations(server.url, "recommendation", request)
        [line] = wait_for(root, answer["request_id"])
        assert line["session_id"] == "s-7"
        assert (line["version"], line["recommended"]) == (answer["version"], answer["predictions"][0]["skus"])
        assert line["route"] == "/endpoints/{name}/invocations"
        shown = client.ask(server.url, "/predict?x=start,add,end")
        [line] = wait_for(root, shown["request_id"])
        assert line["purchase_probability"] == pytest.approx(shown["prediction"])
        assert (line["endpoint"], line["actions"], line["route"]) == ("intent", ["add"], "/predict")
        shown = urllib.request.urlopen(f"{server.url}/metrics").read().decode()
        assert "bigger_boat_answers_logged_total 2.0" in shown
        assert request_rotation(root, 30)
        assert not list((root / "_spool").glob("*/*/*"))
        last = client.post_invocations(server.url, "recommendation", request)
        assert wait_for(root, last["request_id"])
        server.process.send_signal(signal.SIGKILL)
        server.wait()
    [line] = find_answer(root, last["request_id"], logged_days(root))
    assert line["session_id"] == "s-7"
    assert len(list((root / "_spool").glob("*/*/*"))) == 1
    assert len({line["request_id"] for line in lines_of(root)}) == 3, (
        "golden requests of a private server are not logged"
    )
