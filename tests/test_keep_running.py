"""``up`` starts again what ended by itself: the web UI (a real command, a clock that the test moves), the endpoint."""

import signal
import sys

import pytest

from bigger_boat import demo
from bigger_boat.errors import ServerError
from bigger_boat.serving.published import write_json
from bigger_boat.settings import Settings

ENDS_AT_ONCE = [sys.executable, "-c", ""]


class Enough(Exception):
    pass


@pytest.fixture(autouse=True)
def sigterm():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def keep_running(monkeypatch, apart_s: float) -> int:
    """Return how often the command was started until it was given up; Enough where it never is."""
    clock, starts = [0.0], []

    def before_start() -> None:
        clock[0] += apart_s
        starts.append(clock[0])
        if len(starts) > 3 * demo.RESTARTS:
            raise Enough

    monkeypatch.setattr(demo.time, "monotonic", lambda: clock[0])
    with pytest.raises(ServerError, match="again and again"):
        demo._keep_running(ENDS_AT_ONCE, before_start)
    return len(starts)


def test_what_ends_again_and_again_is_given_up(monkeypatch):
    assert keep_running(monkeypatch, apart_s=1.0) == 1 + demo.RESTARTS


def test_what_ends_now_and_then_is_started_for_ever(monkeypatch):
    with pytest.raises(Enough):
        keep_running(monkeypatch, apart_s=demo.RESTARTS_WITHIN_S + 1.0)


class Looks:
    """An event that is set after a few looks; ``rests``: how long each waited (s)."""

    def __init__(self, looks: int):
        self.looks, self.rests = looks, []

    def wait(self, rest_s: float) -> bool:
        self.rests.append(rest_s)
        return len(self.rests) > self.looks


def keep_answering(monkeypatch, tmp_path, killed: bool, starts: bool) -> tuple[int, list[float]]:
    """Return how often the endpoint's server was started in three looks, and how long each look waited."""
    settings = Settings(_env_file=None, data_dir=tmp_path)
    settings.endpoints_dir.mkdir(parents=True)
    (settings.endpoints_dir / ".server.lock").touch()
    if killed:  # a server that stops takes its record away
        write_json(settings.endpoints_dir / "server.json", {"pid": 1, "url": "http://127.0.0.1:1"})
    started = []

    def start(_settings: Settings) -> str:
        started.append(1)
        if not starts:
            raise ServerError("The endpoint's server did not start.")
        (settings.endpoints_dir / "server.json").unlink()
        return "http://127.0.0.1:1"

    monkeypatch.setattr(demo.local_server, "ensure_running", start)
    looks = Looks(3)
    demo._keep_answering(settings, looks)
    return len(started), looks.rests


def test_an_endpoint_that_was_killed_is_started_again_and_one_that_was_stopped_stays_so(monkeypatch, tmp_path):
    assert keep_answering(monkeypatch, tmp_path / "killed", killed=True, starts=True)[0] == 1
    assert keep_answering(monkeypatch, tmp_path / "stopped", killed=False, starts=True)[0] == 0


def test_an_endpoint_that_does_not_start_is_tried_again_later(monkeypatch, tmp_path):
    started, rests = keep_answering(monkeypatch, tmp_path, killed=True, starts=False)
    assert (started, rests) == (3, [demo.LOOKED_AFTER_S, *3 * [demo.TRIED_AGAIN_S]])
