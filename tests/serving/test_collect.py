"""``/collect`` on the real server: what it answers, to whom, what it counts, and what it leaves after a kill."""

import asyncio
import itertools
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tiny_models import Server, serve_tiny_models

from bigger_boat.data.landing_index import files_for, read_index
from bigger_boat.errors import RequestError
from bigger_boat.serving import collect
from bigger_boat.serving.collect import CollectOptions, Collector
from bigger_boat.serving.collect_http import PIXEL
from bigger_boat.serving.collect_landing import land_now
from bigger_boat.serving.collected_event import Kept, judge
from bigger_boat.serving.spool import LAND_NOW, SEALED, Spool, line_of, segments

SHOP = "https://shop.example"
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    with serve_tiny_models(tmp_path_factory.mktemp("collecting"), api_key="secret") as server:
        yield server


def event(**more: object) -> dict[str, Any]:
    return {"event_id": f"e{next(NUMBERS)}", "session_id": "s1", "event_type": "pageview", **more}


def ask(server: Server, path: str = "/collect", body: object = None, method: str | None = None, **headers: str):
    """Return status, headers and body of a request; with the key unless headers are given."""
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    told = {name.replace("_", "-"): value for name, value in headers.items()} or {"X-Api-Key": "secret"}
    request = urllib.request.Request(server.url + path, content, told, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def landed(server: Server) -> list[str]:
    """Return the ids that the server's landing zone holds, after all it has acknowledged is there."""
    folder = Path(f"{server.directory}-events")
    land_now(folder / "collect", folder / "landing")
    days = read_index(folder / "landing").days
    files = [file for day in days for file in files_for(folder / "landing", "browsing", day)]
    return sorted(pl.concat([pl.read_parquet(file, columns=["event_id"]) for file in files])["event_id"].to_list())


def test_good_events_are_kept_known_ones_counted_bad_ones_told(server):
    first, second = event(), event()
    status, _, body = ask(server, body=[first, {"event_type": "?"}, second, first])
    answer = json.loads(body)
    assert (status, answer["accepted"], answer["duplicates"]) == (200, 2, 1)
    assert [(bad["index"], bad["reason"]) for bad in answer["rejected"]] == [(1, "event_type_unknown")]
    assert json.loads(ask(server, body=second)[2]) == {"accepted": 0, "duplicates": 1, "rejected": []}
    assert {first["event_id"], second["event_id"]} <= set(landed(server))
    assert json.loads(ask(server, body=second)[2])["duplicates"] == 1


def test_nothing_good_is_400_and_a_body_too_large_413(server):
    status, _, body = ask(server, body=[{}, event(session_id="a b")])
    answer = json.loads(body)
    assert (status, answer["error"]["code"]) == (400, "event_type_unknown")
    assert [bad["reason"] for bad in answer["rejected"]] == ["event_type_unknown", "session_id_malformed"]
    assert ask(server, body=b"{")[0] == 400
    assert ask(server, body=[event()] * 1_001)[0] == 413
    assert ask(server, body=b" " * (5 << 20))[0] == 413
    assert ask(server, method="PUT")[0] == 405


def test_a_pixel_is_a_picture(server):
    one = event()
    query = "&".join(f"{name}={value}" for name, value in one.items())
    status, headers, body = ask(server, f"/collect?{query}&_=1")
    assert (status, headers["content-type"], headers["cache-control"], body) == (200, "image/gif", "no-store", PIXEL)
    assert ask(server, "/collect?event_id=e")[0] == 400
    assert one["event_id"] in landed(server)


def test_pages_of_allowed_origins_need_no_key_and_read_the_answer(server):
    status, headers, _ = ask(server, body=event(), Origin=SHOP)
    assert (status, headers["access-control-allow-origin"]) == (200, SHOP)
    status, headers, _ = ask(server, body=[{}], Origin=SHOP)
    assert (status, headers["access-control-allow-origin"]) == (400, SHOP)
    pixel = "/collect?event_id=p1&session_id=s1&event_type=pageview"
    assert ask(server, pixel, Referer=f"{SHOP}/cart?x=1")[0] == 200
    status, headers, _ = ask(server, method="OPTIONS", Origin=SHOP)
    assert (status, headers["access-control-allow-methods"]) == (204, "GET, POST, OPTIONS")
    for stranger in ("https://shop.example.evil", "null"):
        assert ask(server, body=event(), Origin=stranger)[0] == 401
    assert ask(server, pixel, Referer="https://evil/https://shop.example/")[0] == 401
    assert ask(server, "/metrics", Origin=SHOP)[0] == 401


def test_events_are_counted(server):
    def counted() -> dict[str, float]:
        lines = ask(server, "/metrics")[2].decode().splitlines()
        counts = [line.split() for line in lines if line.startswith("bigger_boat_collected_events_total")]
        return {name.split('"')[1]: float(value) for name, value in counts}

    one = event()
    ask(server, body=one)
    before = counted()
    ask(server, body=[one, event(), event(), {}])
    after = counted()
    assert {name: after[name] - before.get(name, 0) for name in after} == {
        "accepted": 2,
        "duplicate": 1,
        "rejected": 1,
    }


def test_a_killed_server_has_lost_nothing_that_it_acknowledged_and_knows_it_again(tmp_path):
    with serve_tiny_models(tmp_path, collect={"rotate_s": 3_600}) as server:
        sent = [event() for _ in range(20)]
        for one in sent:
            assert ask(server, body=one)[0] == 200
        server.process.kill()
        server.process.wait(30)
        again = Server("endpoints", server.directory, collect={"rotate_s": 3_600})
        try:
            assert json.loads(ask(again, body=sent)[2]) == {"accepted": 0, "duplicates": 20, "rejected": []}
            assert landed(again) == sorted(one["event_id"] for one in sent)
            sent.append(event())
            assert ask(again, body=sent[-1])[0] == 200
        finally:
            again.stop()
        assert landed(again) == sorted(one["event_id"] for one in sent)


def collecting(tmp_path: Path, **options: Any) -> Collector:
    return Collector(CollectOptions(tmp_path / "collect", tmp_path / "landing", rotate_s=3_600, **options))


def kept(count: int = 1) -> list[Kept]:
    return judge([event() for _ in range(count)], 1_700_000_000_000, trust_time=False).kept


def test_all_who_wait_share_one_write(tmp_path, monkeypatch):
    """While the first write is held up a hundred requests come: they are the second one. None is answered before."""
    writes, held = [], threading.Event()
    real = Spool.append

    def append(spool: Spool, block: bytes) -> None:
        writes.append(block.count(b"\n"))
        held.wait(30)
        real(spool, block)

    monkeypatch.setattr(Spool, "append", append)

    async def play() -> list[tuple[int, int]]:
        collector = collecting(tmp_path)
        collector.start(asyncio.get_running_loop())
        first = asyncio.create_task(collector.keep(kept()))
        while not writes:
            await asyncio.sleep(0)
        others = [asyncio.create_task(collector.keep(kept())) for _ in range(100)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in (first, *others))
        held.set()
        answers = await asyncio.gather(first, *others)
        await asyncio.to_thread(collector.close)
        return answers

    assert asyncio.run(play()) == [(1, 0)] * 101
    assert writes == [1, 100]


def test_a_disk_that_fails_is_told_and_the_same_events_may_come_again(tmp_path, monkeypatch):
    real, faults = Spool.append, [OSError(28, "No space left on device")]

    def append(spool: Spool, block: bytes) -> None:
        if faults:
            raise faults.pop()
        real(spool, block)

    monkeypatch.setattr(Spool, "append", append)

    async def play() -> tuple[int, int]:
        collector = collecting(tmp_path)
        collector.start(asyncio.get_running_loop())
        events = kept(3)
        answers = await asyncio.gather(collector.keep(events), collector.keep(events), return_exceptions=True)
        assert [(error.code, error.status) for error in answers] == [("disk_failed", 503)] * 2
        answer = await collector.keep(events)
        await asyncio.to_thread(collector.close)
        return answer

    assert asyncio.run(play()) == (3, 0)


def test_a_segment_that_lands_while_the_next_server_starts_is_no_fault_of_its_own(tmp_path):
    """A landing outlives a server that is killed. The link is there when it is listed and gone when it is opened."""
    (tmp_path / "collect").mkdir()
    (tmp_path / "collect" / f"000000000001{SEALED}").symlink_to(tmp_path / "landed")

    async def play() -> tuple[int, int]:
        collector = collecting(tmp_path)
        collector.start(asyncio.get_running_loop())
        answer = await collector.keep(kept())
        assert collector.spool_bytes > 0
        await asyncio.to_thread(collector.close)
        return answer

    assert asyncio.run(play()) == (1, 0)
    assert [path.name for path in segments(tmp_path / "collect")] == ["000000000001.sealed", "000000000002.sealed"]


def test_after_a_start_the_oldest_ids_are_forgotten_first(tmp_path, monkeypatch):
    monkeypatch.setattr(Collector, "_land", lambda _self: None)
    old, first, second, new = kept(4)
    spool = Spool(tmp_path / "collect")
    for segment in ([old], [first, second]):
        spool.append(b"".join(line_of(one.line) for one in segment))
        spool.seal()
    spool.close()

    async def play() -> list[tuple[int, int]]:
        collector = collecting(tmp_path, remembered_ids=2)
        collector.start(asyncio.get_running_loop())
        answers = [await collector.keep(events) for events in ([first, second], [new], [second], [first])]
        await asyncio.to_thread(collector.close)
        return answers

    assert asyncio.run(play()) == [(0, 2), (1, 0), (0, 1), (1, 0)]


def test_who_asks_for_a_landing_does_not_wait_for_the_next_try_of_one_that_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "_RETRY_S", 3_600.0)
    works, fails = collect._LANDING, [sys.executable, "-c", "raise SystemExit('no room')"]
    monkeypatch.setattr(collect, "_LANDING", fails)

    async def play() -> None:
        collector = collecting(tmp_path)
        collector.start(asyncio.get_running_loop())
        await collector.keep(kept())
        (tmp_path / "collect" / LAND_NOW).touch()
        await until(lambda: collector._land_again_at)
        collect._LANDING = works
        assert await asyncio.to_thread(land_now, tmp_path / "collect", tmp_path / "landing", 120)
        await asyncio.to_thread(collector.close)

    asyncio.run(play())
    assert len(read_index(tmp_path / "landing").days) == 1


async def until(is_so: Callable[[], object]) -> None:
    give_up = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < give_up
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("limit", "code", "status"), [("queue_bytes", "too_many_requests", 429), ("spool_bytes", "spool_full", 503)]
)
def test_what_waits_is_bounded(tmp_path, limit, code, status):
    async def play() -> None:
        collector = collecting(tmp_path, **{limit: 1_000})
        collector.start(asyncio.get_running_loop())
        with pytest.raises(RequestError) as raised:
            await collector.keep(kept(10))
        assert (raised.value.code, raised.value.status) == (code, status)
        assert await collector.keep(kept()) == (1, 0)
        await asyncio.to_thread(collector.close)

    asyncio.run(play())
