"""``up`` starts the web UI again where it ended by itself: a real command, and a clock that the test moves."""

import signal
import sys

import pytest

from bigger_boat import demo
from bigger_boat.errors import ServerError

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
