"""The HTTP application: routes from the contract's paths to models, over Starlette.

Belongs here: which path answers what. Does not belong here: what an answer says (``handler.py``, ``contract.py``),
which model gives it (``endpoints.py``), limits and logs (``guard.py``), sockets (``server.py``).
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from bigger_boat import clock
from bigger_boat.data.prediction_files import SHADOW
from bigger_boat.data.vocabulary import ENDPOINTS
from bigger_boat.errors import RequestError
from bigger_boat.serving.batching import Batcher, Predictions
from bigger_boat.serving.challengers import Challenger, Shadows, key_of
from bigger_boat.serving.collect import Collector
from bigger_boat.serving.collect_http import PATH as COLLECT_PATH
from bigger_boat.serving.collect_http import CollectRoute
from bigger_boat.serving.contract import PredictionRequest, format_answer, parse_request
from bigger_boat.serving.endpoints import BundleHost, EndpointsHost, Served
from bigger_boat.serving.guard import RECORD, BodyReader, Guard, Record, ServerOptions, error_body
from bigger_boat.serving.handler import PATHS, handle
from bigger_boat.serving.metrics import CONTENT_TYPE, Metrics
from bigger_boat.serving.openapi import describe_bundle_server, describe_endpoints_server
from bigger_boat.serving.prediction_log import PredictionLog

logger = logging.getLogger("bigger_boat.serving")

ModelHost = BundleHost | EndpointsHost

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_JSON = "application/json"
_PUBLIC_WORKERS = 16
_MODEL_WORKERS = max(1, (os.cpu_count() or 1) // 2)
"""Threads per endpoint that answer batches; the other cores read requests and write answers."""
_PARSED_HERE_BYTES = 16 * 1024
"""A larger body is parsed in a thread: other requests do not wait for it."""


def create_app(host: ModelHost, options: ServerOptions) -> Starlette:
    """Return the ASGI application over a host of models, which the caller starts and stops."""
    app = _Application(host, options)
    is_bundle = isinstance(host, BundleHost)
    document = describe_bundle_server(options.limits) if is_bundle else describe_endpoints_server(options)
    description = orjson.dumps(document)

    async def openapi(_request: Request) -> Response:
        return Response(description, media_type=_JSON)

    path = "/invocations" if is_bundle else "/endpoints/{name}/invocations"
    routes = [
        _route(path, "POST", app.invocations),  # first, because routes are tried in turn
        _route("/ping", "GET", app.ready),
        _route("/ready", "GET", app.ready),
        _route("/live", "GET", app.live),
        _route("/metrics", "GET", app.show_metrics),
        _route("/openapi.json", "GET", openapi),
    ]
    if is_bundle:
        routes.append(_route("/health", "GET", app.health))
    else:
        if options.collect:
            routes.append(Route(COLLECT_PATH, app.collect, methods=_METHODS))
        routes.append(Route("/{path:path}", app.public, methods=_METHODS))
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(Guard, options=options, metrics=app.metrics, on_answer=app.log.offer if app.log else None)
        ],
        exception_handlers={
            RequestError: _on_request_error,
            HTTPException: _on_http_error,
            ClientDisconnect: _on_disconnect,
            Exception: _on_fault,
        },
        lifespan=app.lifespan,
    )


class _Application:
    """What the routes share."""

    def __init__(self, host: ModelHost, options: ServerOptions):
        self.host = host
        self.options = options
        self.metrics = Metrics(host.serving)
        self._bodies = BodyReader(options.limits, options.guards)
        self._batchers: dict[str, Batcher] = {}
        self._collector = Collector(options.collect) if options.collect else None
        self._workers: ThreadPoolExecutor
        self.log = _prediction_log(options, self.metrics)
        self._shadows = Shadows(
            self._in_shadow,
            offer=self.log.offer if self.log else None,
            observe=self.metrics.observe_shadow,
            failed=self._drop,
        )

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        """Hold the threads that answer."""
        loop = asyncio.get_running_loop()
        self._workers = ThreadPoolExecutor(_PUBLIC_WORKERS, thread_name_prefix="public")
        self._start_batchers()
        if self.log:
            self.log.start()
        if self._collector:
            await loop.run_in_executor(None, self._collector.start, loop)
            self.metrics.watch_spool(lambda: self._collector.spool_bytes)
        try:
            yield
        finally:
            await loop.run_in_executor(None, self._finish)

    def _start_batchers(self) -> None:
        guards = self.options.guards
        limits = {"queue_sessions": guards.queue_sessions, "queue_events": guards.queue_events}
        for name in ENDPOINTS:
            batcher = Batcher(name, **limits, workers=_MODEL_WORKERS, on_batch=self.metrics.observe_batch)
            self._batchers[name] = batcher
            self.metrics.watch_queue(name, lambda batcher=batcher: batcher.waiting_sessions)
            if self.host.may_have_challengers:  # queue and thread of its own: nobody who asks waits for a shadow
                shadow = _shadow_of(name)
                self._batchers[shadow] = Batcher(shadow, **limits, threads_only=True)

    def _finish(self) -> None:
        """Finish what runs, in a thread: requests that are being answered still need the event loop."""
        self._workers.shutdown(cancel_futures=True)
        if self._collector:
            self._collector.close()
        for batcher in self._batchers.values():
            batcher.close()
        if self.log:
            self.log.stop()

    async def live(self, _request: Request) -> Response:
        return Response(b'{"status":"alive"}', media_type=_JSON)

    async def ready(self, _request: Request) -> Response:
        return Response(status_code=200 if self.host.is_ready() else 503)

    async def health(self, _request: Request) -> Response:
        return Response(orjson.dumps(self.host.health()), media_type=_JSON)

    def _health(self) -> dict[str, Any]:
        collect = self.options.collect
        return {**self.host.health(), **({"collect": {"trust_time": collect.trust_time}} if collect else {})}

    async def show_metrics(self, _request: Request) -> Response:
        return Response(self.metrics.render(), media_type=CONTENT_TYPE)

    async def collect(self, request: Request) -> Response:
        request.scope[RECORD].route = COLLECT_PATH
        route = CollectRoute(self._collector, self._bodies, self.options.allowed_origins, self.metrics)
        return await route.answer(request)

    async def invocations(self, request: Request) -> Response:
        record: Record = request.scope[RECORD]
        async with self._bodies.body(request) as body:
            if len(body) <= _PARSED_HERE_BYTES:
                asked = self._parse(body)
            else:
                asked = await asyncio.get_running_loop().run_in_executor(None, self._parse, body)
        del body
        answer = await self._answer(request.path_params.get("name"), asked, record)
        return Response(orjson.dumps(answer), media_type=_JSON)

    async def public(self, request: Request) -> Response:
        """The public API's handler is synchronous, as Lambda runs it: it has a thread, and asks this loop."""
        record: Record = request.scope[RECORD]
        record.route = path if (path := request.url.path.rstrip("/")) in PATHS else "other"
        loop = asyncio.get_running_loop()

        def invoke(name: str, payload: dict[str, Any]) -> dict[str, Any]:
            asked = parse_request(payload, self.options.limits)
            return asyncio.run_coroutine_threadsafe(self._answer(name, asked, record), loop).result()

        def work(body: bytes) -> Any:
            return handle(
                request.method,
                request.url.path,
                request.url.query,
                dict(request.headers),
                body,
                invoke,
                health=self._health,
                allowed_origins=self.options.allowed_origins,
                limits=self.options.limits,
            )

        async with self._bodies.body(request) as body:
            answer = await loop.run_in_executor(self._workers, work, body)
        return Response(answer.body, answer.status, answer.headers)

    def _parse(self, body: bytes) -> PredictionRequest:
        try:
            payload = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise RequestError("The body is no valid JSON.", "invalid_json") from error
        return parse_request(payload, self.options.limits)

    async def _answer(self, name: str | None, asked: PredictionRequest, record: Record) -> dict[str, Any]:
        served, rival = self.host.served(name), self.host.challenger(name)
        record.sessions = len(asked.sessions)
        predictions = None
        if rival and rival.answers(key_of(asked, record.request_id)):
            predictions = await self._try(rival, asked, record)
        if predictions is None:
            record.endpoint, record.model, record.version = served.names()
            predictions = await self._require(served, asked, record)
        record.answered, record.answered_at_s = (asked, predictions), clock.timestamp()
        if rival and rival.shadow:
            self._shadows.follow(rival, asked, predictions, record.request_id)
        answer = format_answer(record.model, record.version, record.request_id, predictions)
        return {**answer, **_when(record)} if isinstance(self.host, BundleHost) else answer

    async def _predict(self, served: Served, asked: PredictionRequest, queue: str = "") -> Predictions:
        async with asyncio.timeout(self.options.guards.answer_timeout_s):
            return await self._batchers[queue or served.names()[0]].answer(served.predictor, asked)

    async def _try(self, rival: Challenger, asked: PredictionRequest, record: Record) -> Predictions | None:
        """Return the challenger's answer; None where it failed: it drops out, and what serves answers instead."""
        try:
            predictions = await self._predict(rival.served, asked)
        except RequestError:
            raise
        except Exception as error:
            await self._drop(rival, error)
            return None
        record.endpoint, record.model, record.version = rival.served.names()
        return predictions

    async def _drop(self, rival: Challenger, error: Exception) -> None:
        reason = "It did not answer in time." if isinstance(error, TimeoutError) else f"It failed to answer: {error}"
        await asyncio.get_running_loop().run_in_executor(None, self.host.drop_challenger, rival, reason)

    async def _in_shadow(self, rival: Challenger, asked: PredictionRequest) -> Predictions:
        return await self._predict(rival.served, asked, _shadow_of(rival.served.names()[0]))

    async def _require(self, served: Served, asked: PredictionRequest, record: Record) -> Predictions:
        try:
            return await self._predict(served, asked)
        except TimeoutError:
            timeout_s = self.options.guards.answer_timeout_s
            text = f"The model did not answer within {timeout_s:g} seconds."
            raise RequestError(text, "model_too_slow", 503) from None
        except RequestError:
            raise
        except Exception as error:
            logger.error("The model failed: %s", error, extra={"fields": {"request_id": record.request_id}})
            raise RequestError("The model failed to answer this request.", "model_failed", 500) from error


def _when(record: Record) -> dict[str, Any]:
    """Return what SageMaker's data capture does not note by itself: when, to the millisecond, and after how long."""
    latency_ms = (time.perf_counter() - record.began) * 1000
    return {"answered_at_ms": int(record.answered_at_s * 1000), "latency_ms": round(latency_ms, 3)}


def _shadow_of(name: str) -> str:
    """Return the name of the queue of an endpoint's challenger in the shadow."""
    return f"{SHADOW} of {name}"


def _prediction_log(options: ServerOptions, metrics: Metrics) -> PredictionLog | None:
    if options.predictions_dir is None:
        return None
    return PredictionLog(
        options.predictions_dir, on_written=metrics.observe_logged, on_dropped=metrics.observe_unlogged
    )


def _route(path: str, method: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    """A route that answers other methods with 405; Starlette's own would pass them on to the catch-all."""

    async def answer(request: Request) -> Response:
        request.scope[RECORD].route = path
        if request.method != method and (request.method, method) != ("HEAD", "GET"):
            response = _error(405, "method_not_allowed", f"This path answers {method}.")
            response.headers["Allow"] = method
            return response
        return await endpoint(request)

    return Route(path, answer, methods=_METHODS)


def _error(status: int, code: str, message: str) -> Response:
    return Response(error_body(code, message), status, media_type=_JSON)


async def _on_request_error(_request: Request, error: RequestError) -> Response:
    return _error(error.status, error.code, error.message)


async def _on_http_error(_request: Request, error: HTTPException) -> Response:
    codes = {
        404: ("not_found", "There is nothing here."),
        405: ("method_not_allowed", "This path answers another method."),
    }
    response = _error(error.status_code, *codes.get(error.status_code, ("http_error", str(error.detail))))
    response.headers.update(error.headers or {})
    return response


async def _on_disconnect(_request: Request, _error: ClientDisconnect) -> Response:
    return Response(status_code=400)  # nobody reads it


async def _on_fault(_request: Request, _error: Exception) -> Response:
    """Ours, not the caller's; Starlette raises it again behind this answer, and uvicorn logs it."""
    return _error(500, "internal_error", "The server failed on this request.")
