"""What SageMaker captures is read as the log of answers: by day, bounded, with what cannot be read counted and told."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sagemaker_stand_in import record_of

from bigger_boat import clock
from bigger_boat.automation.lineage import find
from bigger_boat.data.prediction_table import build_day, day_table, require_valid
from bigger_boat.errors import DatasetError
from bigger_boat.resources import captured_logs
from bigger_boat.resources.captured_logs import CapturedPredictionLogs
from bigger_boat.resources.object_store import ObjectStore
from bigger_boat.serving.captured import OURS

NINE = datetime(2026, 11, 20, 9, tzinfo=UTC)
DAY, NEXT = "2026-11-20", "2026-11-21"
RANKING = {"skus": ["b", "c"], "scores": [0.5, 0.25], "fallback": False, "unknown_skus": ["x"]}
PURCHASE = {"purchase_probability": 0.75, "unknown_actions": []}


@pytest.fixture
def logs(tmp_path, monkeypatch) -> CapturedPredictionLogs:
    monkeypatch.setattr(clock, "utc_now", lambda: datetime(2026, 11, 26, 12, tzinfo=UTC))
    return CapturedPredictionLogs(storage=f"file://{tmp_path}/bucket", prefix="boat", percent=50)


def record(at: datetime, request_id: str, predictions: list, *, asked: dict | None = None, **more) -> bytes:
    answer = {
        "model": "tiny",
        "version": "v1",
        "request_id": request_id,
        "predictions": predictions,
        "answered_at_ms": int(at.timestamp() * 1000),
        "latency_ms": 4.125,
    }
    request = asked or {"sessions": [["a"]] * len(predictions), "k": 2}
    return record_of(json.dumps(request).encode(), json.dumps(answer).encode(), at, **more)


def capture(logs, folder: datetime, *lines: bytes, endpoint="recommendation", variant="AllTraffic", name="f") -> Path:
    """Write a file of an hour as SageMaker does."""
    root = Path(logs.storage.removeprefix("file://"))
    path = root / "captured" / f"boat-{endpoint}" / variant / f"{folder:%Y/%m/%d/%H}" / f"00-00-000-{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(lines))
    return path


def rows(logs, day: str = DAY) -> list[dict]:
    found = []
    for part in logs.files(day):
        frame, _ = logs.read(part)
        require_valid(frame, part.name)
        found += frame.to_dicts()
    return found


def test_a_record_is_the_line_that_the_local_log_would_have(logs):
    event = {"action": "pageview", "sku": "a", "timestamp_ms": 5}
    who = {"session_ids": ["s-1", "s-2"], "at_ms": [7, 8]}
    asked = {"sessions": [[event, "b"], []], **who, "k": 2, "exclude_seen": True}
    capture(logs, NINE, record(NINE + timedelta(milliseconds=123), "r-1", [RANKING, RANKING], asked=asked))
    first, second = rows(logs)
    assert first == {
        "endpoint": "recommendation",
        "request_id": "r-1",
        "position": 0,
        "answered_at_ms": 1_795_165_200_123,
        "latency_ms": 4.125,
        "route": "/invocations",
        "model": "tiny",
        "version": "v1",
        "session_id": "s-1",
        "at_ms": 7,
        "k": 2,
        "exclude_seen": True,
        "events": 2,
        "actions": ["view", "detail"],
        "skus": ["a", "b"],
        "timestamps_ms": [5, -1],
        "products": 2,
        "unknown": 1,
        "recommended": ["b", "c"],
        "scores": [0.5, 0.25],
        "fallback": False,
        "purchase_probability": None,
        "file": "boat-recommendation/AllTraffic/2026/11/20/09",
    }
    assert (second["position"], second["session_id"], second["at_ms"], second["actions"]) == (1, "s-2", 8, [])


def test_probabilities_base64_given_ids_and_shadows(logs):
    capture(logs, NINE, record(NINE, "own", [PURCHASE], as_text=False, inference_id="shop-7"), endpoint="intent")
    capture(logs, NINE, record(NINE, "r-1", [RANKING]), variant="Challenger")
    capture(logs, NINE, record(NINE, "r-2", [RANKING], inference_id="shop-8"), variant="Shadow")
    challenged, shadow, intent = rows(logs)
    assert (intent["endpoint"], intent["request_id"], intent["purchase_probability"]) == ("intent", "shop-7", 0.75)
    assert (challenged["request_id"], challenged["route"]) == ("r-1", "/invocations")
    assert (shadow["request_id"], shadow["route"]) == ("shadow-shop-8", "shadow")


def test_what_was_no_answer_to_a_shop_is_left_out_and_what_cannot_be_read_is_counted_and_told(logs, caplog):
    good = record(NINE, "r-1", [RANKING])
    refused = record_of(b'{"sessions": 1}', b'{"error": {"code": "invalid", "message": "no"}}', NINE)
    foreign = [b"{torn\n", b"[]\n", b'{"captureData": {}, "eventMetadata": {}}\n', record_of(b"1,2", b"0.5", NINE)]
    odd = [record_of(b'{"instances": [1]}', b'{"predictions": [[0.1]]}', NINE), record(NINE, "r-2", [PURCHASE])]
    odd.append(record(NINE, "r-3", [RANKING, RANKING], asked={"sessions": [["a"]]}))
    golden = record(NINE, "r-4", [RANKING], inference_id=f"{OURS}1")
    capture(logs, NINE, good, refused, *foreign, *odd, golden, b"\n")
    [part] = logs.files(DAY)
    frame, dropped = logs.read(part)
    assert (frame["request_id"].to_list(), dropped) == (["r-1"], 7)
    said = [each.getMessage() for each in caplog.records]
    assert any("4 lines of" in one and "each is no record of data capture" in one for one in said)
    assert any("3 lines of" in one and "each holds no request and answer" in one for one in said)


def test_an_answer_counts_to_the_day_when_it_was_given(logs):
    midnight = datetime(2026, 11, 21, tzinfo=UTC)
    before, after = midnight - timedelta(milliseconds=1), midnight
    capture(logs, before, record(before, "r-1", [RANKING]), record(after, "r-2", [RANKING]), name="early")
    capture(logs, after, b"torn\n", record(before, "r-3", [RANKING]), record(after, "r-4", [RANKING]), name="late")
    assert [row["request_id"] for row in rows(logs, DAY)] == ["r-1", "r-3"]
    assert [row["request_id"] for row in rows(logs, NEXT)] == ["r-2", "r-4"]
    dropped = {day: sum(logs.read(part)[1] for part in logs.files(day)) for day in (DAY, NEXT)}
    assert dropped == {DAY: 0, NEXT: 1}, "a torn line is of one day"


def test_the_days_are_listed_by_folders_and_what_is_far_back_is_not_looked_for(logs, monkeypatch):
    for day in ("2026-07-31", "2026-10-05", DAY):
        capture(logs, datetime.fromisoformat(f"{day}T09:00"), record(NINE, "r-1", [RANKING]))
    capture(logs, NINE, record(NINE, "r-1", [PURCHASE]), endpoint="intent")
    looked_at, folders = [], ObjectStore.folders
    monkeypatch.setattr(ObjectStore, "folders", lambda self, path: looked_at.append(path) or folders(self, path))
    assert logs.days() == ["2026-10-05", DAY]
    assert len(looked_at) == 2 + 2 * 4, "endpoints, and the months of their variants"
    looked_at.clear()
    assert logs.days() == ["2026-10-05", DAY]
    assert len(looked_at) == 2 + 2, "months that are over are known"


def test_the_fingerprint_is_the_listings(logs):
    assert logs.fingerprint(DAY) == "empty"
    path = capture(logs, NINE, record(NINE, "r-1", [RANKING]))
    first = logs.fingerprint(DAY)
    assert first == logs.fingerprint(DAY) != "empty"
    assert logs.fingerprint(NEXT) == "empty"
    path.write_bytes(path.read_bytes() * 2)
    assert logs.fingerprint(DAY) != first


def test_a_busy_hour_is_read_in_parts_and_the_table_is_the_same_again(logs, tmp_path, monkeypatch):
    lines = [record(NINE, f"r-{n}", [RANKING]) for n in range(5)]
    for n, line in enumerate(lines):
        capture(logs, NINE, line, name=str(n))
    monkeypatch.setattr(captured_logs, "PART_BYTES", 2 * len(lines[0]))
    hour = "boat-recommendation/AllTraffic/2026/11/20/09"
    parts = logs.files(DAY)
    assert [part.name for part in parts] == [hour, f"{hour}.1", f"{hour}.2"]
    table = day_table(tmp_path, DAY)
    assert build_day(table, parts, logs.read).answers == 5
    (again,) = [build_day(table, logs.files(DAY), logs.read)]
    assert (again.answers, again.kept, again.files) == (5, 0, 3)
    for path in Path(logs.storage.removeprefix("file://")).rglob("*.jsonl"):
        path.unlink()
    assert build_day(table, parts, logs.read).answers == 0, "listed, and gone before it was read"


def test_an_answer_is_found_in_the_days_tables_and_in_captured_days_without_one(logs, tmp_path):
    capture(logs, NINE, record(NINE, "r-1", [RANKING]))
    later = NINE + timedelta(days=1)
    capture(logs, later, record(later, "r-2", [RANKING]))
    tables = tmp_path / "tables"
    build_day(day_table(tables, DAY), logs.files(DAY), logs.read)
    read = []
    logs_seen = logs.model_copy()
    object.__setattr__(logs_seen, "find", lambda request_id, day: read.append(day) or logs.find(request_id, day))
    assert find(logs_seen, tables, "r-1")[0]["file"] == "boat-recommendation/AllTraffic/2026/11/20/09"
    assert read == [], "a table is near"
    assert find(logs_seen, tables, "r-2")[0]["request_id"] == "r-2"
    with pytest.raises(DatasetError, match="holds answers of 2 days, 2026-11-20 to 2026-11-21") as error:
        find(logs_seen, tables, "r-9")
    assert read == [NEXT, NEXT]
    assert "50 % of the answers" in error.value.hint


def test_what_the_log_holds_is_said(logs):
    assert logs.holds.startswith("50 % of the answers")
    none = CapturedPredictionLogs(storage=logs.storage, percent=0)
    assert "BIGGER_BOAT_ENDPOINT_CAPTURE_PERCENT is 0" in none.holds
