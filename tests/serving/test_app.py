"""The application without a socket: what it starts, and that it goes on answering while it finishes."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from bigger_boat import clock
from bigger_boat.serving import app as app_module
from bigger_boat.serving.app import create_app
from bigger_boat.serving.contract import PredictionRequest
from bigger_boat.serving.endpoints import BundleHost, EndpointsHost, Served
from bigger_boat.serving.guard import ServerOptions


class Predictor:
    """An intent model that answers when its gate is opened."""

    bundle = SimpleNamespace(name="intent", kind="tiny", version="v1", directory=".")

    def __init__(self):
        self.began, self.gate = threading.Event(), threading.Event()

    def predict(self, request: PredictionRequest) -> list[dict]:
        self.began.set()
        assert self.gate.wait(60)
        return [{"purchase_probability": 0.5, "unknown_actions": []} for _ in request.sessions]


async def get(app, path: str, query: bytes, on_sent: Callable[[], None] = lambda: None) -> int:
    """Return the status of a request; ``on_sent`` is called as soon as a part of its answer is."""
    sent: list[dict] = []

    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict) -> None:
        sent.append(message)
        on_sent()

    scope = {"type": "http", "method": "GET", "path": path, "query_string": query, "headers": [], "root_path": ""}
    scope |= {"scheme": "http", "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2), "http_version": "1.1"}
    await app({**scope, "asgi": {"version": "3.0"}}, receive, send)
    return sent[0]["status"]


def test_a_request_of_the_public_api_is_answered_while_the_server_finishes(tmp_path, monkeypatch):
    """Its thread asks the event loop: a loop that waited for the thread would wait for ever."""

    class Threads(ThreadPoolExecutor):
        def shutdown(self, *told: object, **more: object) -> None:
            assert threading.current_thread() is not threading.main_thread(), "the event loop waits for its threads"
            super().shutdown(*told, **more)

    monkeypatch.setattr(app_module, "ThreadPoolExecutor", Threads)
    predictor = Predictor()
    host = EndpointsHost(tmp_path, verify=lambda _predictor: None)
    monkeypatch.setattr(host, "served", lambda _name: Served(predictor))

    async def play() -> int:
        app = create_app(host, ServerOptions())
        async with app.router.lifespan_context(app):
            asked = asyncio.create_task(get(app, "/predict", b"x=view"))
            await asyncio.to_thread(predictor.began.wait, 60)
            asyncio.get_running_loop().call_soon(predictor.gate.set)  # not before the loop runs again
        return await asked

    assert asyncio.run(play()) == 200


def test_an_answer_is_of_the_time_before_it_was_sent(tmp_path, monkeypatch):
    """What a shopper does next is later, also where the server gets to its log only then."""
    moments = [time.time()]
    monkeypatch.setattr(clock, "timestamp", lambda: moments[-1])
    predictor = Predictor()
    predictor.gate.set()
    host = EndpointsHost(tmp_path, verify=lambda _predictor: None)
    monkeypatch.setattr(host, "served", lambda _name: Served(predictor))

    async def play() -> int:
        app = create_app(host, ServerOptions(predictions_dir=tmp_path / "predictions"))
        async with app.router.lifespan_context(app):
            return await get(app, "/predict", b"x=view", on_sent=lambda: moments.append(moments[0] + 60))

    assert asyncio.run(play()) == 200
    [file] = (tmp_path / "predictions").glob("intent/*/*")
    assert json.loads(file.read_text())["answered_at_ms"] == int(moments[0] * 1000)


@pytest.mark.parametrize("is_bundle", [True, False], ids=["one bundle", "endpoints"])
def test_only_who_may_have_a_challenger_has_queues_for_shadows(tmp_path, is_bundle):
    endpoints = EndpointsHost(tmp_path, verify=lambda _predictor: None)
    host = BundleHost.holding(Predictor()) if is_bundle else endpoints

    async def play() -> list[str]:
        before = set(threading.enumerate())
        app = create_app(host, ServerOptions())
        async with app.router.lifespan_context(app):
            started = {thread.name for thread in set(threading.enumerate()) - before}
        return sorted(name for name in started if name.startswith("answer-shadow"))

    shadows = ["answer-shadow of intent-0", "answer-shadow of recommendation-0"]
    assert asyncio.run(play()) == ([] if is_bundle else shadows)
