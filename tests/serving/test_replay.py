"""A shop played again through ``/collect``: all of it, in order, at its speed, and each event once however often."""

import itertools
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from tiny_models import Server, serve_tiny_models

from bigger_boat.data import landing_index
from bigger_boat.data.landing import land
from bigger_boat.data.landing_index import files_for, read_index
from bigger_boat.data.simulator import simulate
from bigger_boat.errors import ServerError
from bigger_boat.serving import replay as replaying
from bigger_boat.serving.collect_landing import land_now
from bigger_boat.serving.replay import Replayed, Speed, days_to_replay, events_of, replay, rows_of

LAST = date(2026, 10, 28)
COLUMNS = ["session_id_hash", "event_type", "product_action", "product_sku_hash", "server_timestamp_epoch_ms"]
COLUMNS += ["hashed_url", "clicked_skus_hash", "product_skus_hash", "query_vector"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """The landing zone of a small shop."""
    folder = tmp_path_factory.mktemp("shop")
    simulate(folder / "source", sessions=300, days=3, products=40, seed=1, end_date=LAST)
    land(folder / "source", folder / "landing", now=datetime(2026, 11, 1, tzinfo=UTC))
    return folder / "landing"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    with serve_tiny_models(tmp_path_factory.mktemp("played"), collect={"trust_time": True}) as server:
        yield server


def events_in(root: Path) -> pl.DataFrame:
    """Return the distinct events of a landing zone."""
    index = read_index(root)
    frames = [
        pl.read_parquet(file).drop("event_id", "request_id")
        for day in index.days
        for table in ("browsing", "search")
        for file in files_for(root, table, day)
    ]
    return pl.concat(frames, how="diagonal").select(COLUMNS).unique().sort(pl.all().hash())


def collected(server: Server) -> Path:
    folder = Path(f"{server.directory}-events")
    land_now(folder / "collect", folder / "landing")
    return folder / "landing"


def test_what_was_played_has_arrived_once_also_when_played_again_after_a_stop(shop, server):
    days = days_to_replay(read_index(shop), None, None)
    assert len(days) == 3

    def stopping() -> Iterator[dict]:
        yield from itertools.islice(events_of(shop, days), 1_200)
        raise KeyboardInterrupt

    stopped, told, again = Replayed(), Replayed(), Replayed()
    with pytest.raises(KeyboardInterrupt):
        replay(server.url, stopping(), Speed(), stopped)
    replay(server.url, events_of(shop, days), Speed(), told)
    assert stopped.sent == stopped.accepted + stopped.duplicates == 1_000  # whole batches
    assert told.sent == rows_of(read_index(shop), days) == told.accepted + told.duplicates
    replay(server.url, events_of(shop, days), Speed(), again)
    assert (again.accepted, again.duplicates) == (0, told.sent)
    arrived = events_in(collected(server))
    assert arrived.equals(events_in(shop))
    assert arrived.height == stopped.accepted + told.accepted


def test_days_sessions_and_shift_limit_and_move(shop):
    index = read_index(shop)
    assert days_to_replay(index, LAST, None) == ["2026-10-28"]
    assert days_to_replay(index, None, date(2026, 10, 26)) == ["2026-10-26"]
    days = days_to_replay(index, None, None)
    events = list(events_of(shop, days))
    assert [event["timestamp_ms"] for event in events] == sorted(event["timestamp_ms"] for event in events)
    few = list(events_of(shop, days, sessions=7))
    firsts = list(dict.fromkeys(event["session_id"] for event in events))[:7]
    assert few == [event for event in events if event["session_id"] in firsts]
    shifted = list(events_of(shop, days, shift_weeks=2))
    assert {new["timestamp_ms"] - old["timestamp_ms"] for new, old in zip(shifted, events, strict=True)} == {
        14 * 86_400_000
    }
    assert {event["event_id"] for event in shifted}.isdisjoint(event["event_id"] for event in events)


def test_the_index_is_read_once_however_many_days_are_played(shop, monkeypatch):
    reads = []
    for module in (replaying, landing_index):
        monkeypatch.setattr(module, "read_index", lambda root: reads.append(root) or read_index(root))
    assert len(list(events_of(shop, ["2026-10-26", "2026-10-27", "2026-10-28"]))) > 0
    assert reads == [shop]


def test_events_go_out_when_they_are_due(monkeypatch):
    """At 10x, events 0, 1, 20 and 40 s apart are due after 0, 0.1, 2 and 4 s; the first two go together."""
    now, sent = [100.0], []
    monkeypatch.setattr(replaying.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(replaying.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(replaying, "require_trust", lambda _url: None)

    def take(_url: str, batch: list[dict], _key: str | None) -> dict:
        sent.append((round(now[0] - 100, 3), [event["timestamp_ms"] for event in batch]))
        return {"accepted": len(batch), "duplicates": 0, "rejected": []}

    monkeypatch.setattr(replaying, "_send", take)
    times = [0, 1_000, 20_000, 40_000]
    replay("", iter([{"timestamp_ms": time} for time in times]), Speed.parse("10x"), Replayed())
    assert sent == [(0.0, [0, 1_000]), (2.0, [20_000]), (4.0, [40_000])]
    sent.clear()
    now[0] = 100.0
    replay("", iter([{"timestamp_ms": time} for time in range(6)]), Speed.parse("2/s"), Replayed())
    assert [when for when, _ in sent] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]


@pytest.mark.parametrize("text", ["", "fast", "0x", "-1x", "x", "5", "1e3x"])
def test_a_speed_that_is_none_is_refused(text):
    with pytest.raises(ServerError):
        Speed.parse(text)


def test_a_server_that_does_not_trust_their_time_is_not_fed(shop, monkeypatch):
    monkeypatch.setattr(replaying.client, "health", lambda _url: {"collect": {"trust_time": False}})
    with pytest.raises(ServerError, match="its own time"):
        replay("http://127.0.0.1:1", events_of(shop, ["2026-10-28"]), Speed(), Replayed())


def test_a_server_killed_in_the_midst_of_its_answer_counts_as_away():
    """Its head has come, its body not: the events are sent again, and are known then."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 43\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(ServerError, match="No server answers"):
            replaying.client.ask(f"http://127.0.0.1:{listener.getsockname()[1]}", "/collect", b"[]")
