"""The spool on disk, and its way into the landing zone: whatever a kill leaves, each acknowledged event lands once."""

import os
from datetime import UTC, datetime
from pathlib import Path

import orjson
import polars as pl
import pytest

from bigger_boat.data import landing_store
from bigger_boat.data.landing_index import files_for, read_index
from bigger_boat.errors import ServerError
from bigger_boat.serving import collect_landing
from bigger_boat.serving.collect_landing import land_now, land_sealed
from bigger_boat.serving.collected_event import judge
from bigger_boat.serving.spool import DAMAGED, SEALED, Spool, is_written, line_of, read_segment, segments

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
DAY_MS = 86_400_000
TODAY_MS = int(NOW.timestamp() * 1000)


def line(number: int, days_ago: int = 1, **more: object) -> bytes:
    event = {"event_id": f"e{number}", "session_id": "s1", "event_type": "pageview", **more}
    event["timestamp_ms"] = TODAY_MS - days_ago * DAY_MS + number
    [kept] = judge([event], TODAY_MS, trust_time=True).kept
    return line_of(kept.line)


def landed_ids(root: Path) -> list[str]:
    """Return the event ids in force, of all days, with every repetition."""
    files = [
        file
        for day in read_index(root).days
        for table in ("browsing", "search")
        for file in files_for(root, table, day)
    ]
    return sorted(
        pl.read_parquet(file)["event_id"].item(row) for file in files for row in range(pl.read_parquet(file).height)
    )


def spooled(directory: Path, *blocks: bytes) -> Path:
    """Leave a sealed segment with these lines."""
    spool = Spool(directory)
    for block in blocks:
        spool.append(block)
    spool.close()
    return directory


def test_segments_are_appended_sealed_and_read_back(tmp_path):
    spool = Spool(tmp_path)
    assert not spool.seal()
    spool.append(line(1) + line(2))
    spool.append(line(3))
    [active] = segments(tmp_path)
    assert [orjson.loads(each)["event_id"] for each in read_segment(active)] == ["e1", "e2", "e3"]
    assert spool.seal()
    spool.append(line(4))
    assert [path.suffix for path in segments(tmp_path)] == [SEALED, ".active"]
    with pytest.raises(ServerError):
        Spool(tmp_path, patience_s=0)
    assert is_written(tmp_path)
    spool.close()
    assert not is_written(tmp_path)


def test_half_a_line_at_the_end_is_left_out_and_a_damaged_one_is_told(tmp_path):
    whole = line(1) + line(2)
    path = tmp_path / f"1{SEALED}"
    for cut in range(len(line(1)), len(whole)):
        path.write_bytes(whole[:cut])
        assert [orjson.loads(each)["event_id"] for each in read_segment(path)] == ["e1"]
    path.write_bytes(whole.replace(b"e1", b"e7"))
    assert next(read_segment(path)) is None
    landed = land_sealed(tmp_path, tmp_path / "landing", NOW)
    assert (landed.events, landed.damaged) == (1, 1)
    assert path.with_suffix(DAMAGED).exists()


def test_what_a_killed_process_left_is_sealed_by_the_next(tmp_path):
    (tmp_path / "000000000007.active").write_bytes(line(1) + line(2)[:-5])
    spool = Spool(tmp_path)
    spool.append(line(3))
    assert [path.name for path in segments(tmp_path)] == ["000000000007.sealed", "000000000008.active"]
    spool.close()
    land_sealed(tmp_path, tmp_path / "landing", NOW)
    assert landed_ids(tmp_path / "landing") == ["e1", "e3"]


def test_a_full_disk_leaves_nothing_half_and_the_next_lines_go_elsewhere(tmp_path, monkeypatch):
    spool = Spool(tmp_path)
    spool.append(line(1))
    written = os.write

    def full(file: int, block: bytes) -> int:
        if len(block) > 10:
            return written(file, block[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        spool.append(line(2)[:15])
    monkeypatch.undo()
    spool.append(line(3))
    spool.close()
    read = [orjson.loads(each)["event_id"] for path in segments(tmp_path) for each in read_segment(path)]
    assert read == ["e1", "e3"]


def ids_in(directory: Path) -> list[str]:
    return [orjson.loads(each)["event_id"] for path in segments(directory) for each in filter(None, read_segment(path))]


@pytest.mark.parametrize("size", [0, 1], ids=["nothing before it", "a line before it"])
def test_half_a_line_that_cannot_be_cut_off_ends_its_segment(tmp_path, monkeypatch, size):
    """Behind it, the next lines would be read as a part of it."""
    spool = Spool(tmp_path)
    before = ["e1"][:size]
    spool.append(line(1) if size else b"")
    written = os.write

    def half(file: int, block: bytes) -> int:
        if len(block) == len(line(2)):
            return written(file, block[:20])
        raise OSError(5, "Input/output error")

    def fails(*_told: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", half)
    monkeypatch.setattr(os, "ftruncate", fails)
    with pytest.raises(OSError, match="Input/output"):
        spool.append(line(2))
    monkeypatch.undo()
    spool.append(line(3))
    spool.append(line(4))
    spool.close()
    assert ids_in(tmp_path) == [*before, "e3", "e4"]
    assert land_sealed(tmp_path, tmp_path / "landing", NOW).damaged == 0


def test_a_segment_that_cannot_be_renamed_now_is_renamed_later_and_never_appended_to(tmp_path, monkeypatch):
    spool = Spool(tmp_path)
    spool.append(line(1))

    def fails(*_told: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="No space"):
        spool.seal()
    assert spool.size == 0
    spool.append(line(2))
    assert spool.size == len(line(2))
    monkeypatch.undo()
    assert [path.suffix for path in segments(tmp_path)] == [".active", ".active"]
    assert spool.complete()
    assert [path.suffix for path in segments(tmp_path)] == [SEALED, ".active"]
    assert not spool.complete()
    spool.close()
    assert ids_in(tmp_path) == ["e1", "e2"]


def test_a_number_is_not_given_again_while_its_damaged_copy_lies_there(tmp_path):
    kept = spooled(tmp_path, line(1).replace(b"e1", b"e7"))
    land_sealed(tmp_path, tmp_path / "landing", NOW)
    spooled(tmp_path, line(2).replace(b"e2", b"e8"))
    land_sealed(tmp_path, tmp_path / "landing", NOW)
    assert [path.read_bytes()[-20:] for path in sorted(kept.glob(f"*{DAMAGED}"))] == [line(1)[-20:], line(2)[-20:]]


def test_the_index_is_read_once_however_many_days_come(tmp_path, monkeypatch):
    reads = []
    monkeypatch.setattr(collect_landing, "read_index", lambda root: reads.append(root) or read_index(root))
    spooled(tmp_path / "collect", *(line(number, days_ago=number) for number in range(1, 6)))
    assert len(land_sealed(tmp_path / "collect", tmp_path / "landing", NOW).days) == 5
    assert len(reads) == 1


def test_each_event_lands_once_by_day_however_often_it_was_sent(tmp_path):
    root = tmp_path / "landing"
    search = line(5, event_type="search", clicked_skus_hash=["p1"])
    spooled(tmp_path / "collect", line(1), line(1) + line(2, days_ago=2), search)
    landed = land_sealed(tmp_path / "collect", root, NOW)
    assert (landed.events, landed.known, landed.days) == (3, 1, ("2026-10-31", "2026-11-01"))
    assert {day: dict(entry.rows) for day, entry in read_index(root).days.items()} == {
        "2026-10-31": {"browsing": 1, "search": 0, "rejected": 0},
        "2026-11-01": {"browsing": 1, "search": 1, "rejected": 0},
    }
    # the same again, one of them past midnight with a new time, and a new one
    spooled(tmp_path / "collect", line(1), line(2), search, line(6))
    landed = land_sealed(tmp_path / "collect", root, NOW)
    assert (landed.events, landed.known) == (1, 3)
    assert landed_ids(root) == ["e1", "e2", "e5", "e6"]
    assert segments(tmp_path / "collect") == []


@pytest.mark.parametrize("step", ["move_in", "write_manifest", "write_index", "unlink"])
def test_killed_between_any_two_steps_it_lands_once(tmp_path, monkeypatch, step):
    """The step before the kill is done: what follows it is not."""
    root = tmp_path / "landing"
    spooled(tmp_path / "collect", line(1) + line(2, days_ago=2))
    spooled(tmp_path / "collect", line(3))

    class Killed(BaseException): ...

    where = Path if step == "unlink" else landing_store
    real = getattr(where, step)

    def then_killed(*arguments: object, **more: object) -> None:
        real(*arguments, **more)
        raise Killed

    monkeypatch.setattr(where, step, then_killed)
    with pytest.raises(Killed):
        land_sealed(tmp_path / "collect", root, NOW)
    monkeypatch.undo()
    land_sealed(tmp_path / "collect", root, NOW)
    assert landed_ids(root) == ["e1", "e2", "e3"]
    assert land_sealed(tmp_path / "collect", root, NOW).events == 0


def test_segments_are_landed_a_bounded_number_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(collect_landing, "TOGETHER_BYTES", 1)
    monkeypatch.setattr(collect_landing, "BATCH_EVENTS", 2)
    for number in range(0, 9, 3):
        spooled(tmp_path / "collect", *(line(number + offset) for offset in range(3)))
    landed = land_sealed(tmp_path / "collect", tmp_path / "landing", NOW)
    assert landed.events == 9
    assert len(files_for(tmp_path / "landing", "browsing", "2026-11-01")) == 3


def test_what_no_server_holds_is_landed_on_request(tmp_path):
    spooled(tmp_path / "collect")
    assert not land_now(tmp_path / "collect", tmp_path / "landing")
    assert not land_now(tmp_path / "nowhere", tmp_path / "landing")
    (tmp_path / "collect" / "000000000001.active").write_bytes(line(1))
    assert land_now(tmp_path / "collect", tmp_path / "landing")
    assert landed_ids(tmp_path / "landing") == ["e1"]
