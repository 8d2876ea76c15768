"""What stands between the sockets and the application: limits, keys, request ids, a log line and counts per request.

Belongs here: ASGI middleware that knows nothing of models. Does not belong here: connections before their headers
(``connections.py``), what an answer says (``contract.py``, ``handler.py``).
"""

import asyncio
import contextlib
import hashlib
import itertools
import logging
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from starlette.requests import Request

from bigger_boat.errors import RequestError
from bigger_boat.serving.answered import Answered
from bigger_boat.serving.collect import CollectOptions
from bigger_boat.serving.contract import (
    DEFAULT_LIMITS,
    Limits,
    PredictionRequest,
    format_error,
    request_id_of,
    require_body_size,
)
from bigger_boat.serving.metrics import Metrics

logger = logging.getLogger("bigger_boat.serving.requests")

RECORD = "bigger_boat.record"
OPEN_PATHS = frozenset({"/live", "/ready", "/ping", "/health"})
"""Probes ask without a key."""
PAGE_PATHS = frozenset({"/collect"})
"""Pages of allowed origins ask without a key: a pixel can send none, and what a page holds is no secret."""

_PROCESS_ID, _NUMBERS = uuid.uuid4().hex[:16], itertools.count(1)
"""An id is the process's and a number: random bytes for each request would be a call of the system for each."""
_RETRY_AFTER_S = b"1"
_PATIENCE = 4
"""A body up to so many times the limit is read to its end before it is declined; a larger one loses the connection."""


@dataclass(frozen=True)
class Guards:
    """How much the server takes on at once, and how long it waits for anybody."""

    connections: int = 1_000
    requests: int = 512
    queue_sessions: int = 1_024
    queue_events: int = 500_000
    buffered_bytes: int = 64 * 1024 * 1024
    head_bytes: int = 64 * 1024
    head_timeout_s: float = 10.0
    body_timeout_s: float = 15.0
    answer_timeout_s: float = 10.0
    write_timeout_s: float = 20.0
    keep_alive_s: int = 75
    """Longer than the 60 s of load balancers, or they meet connections that close while they send."""


@dataclass(frozen=True)
class ServerOptions:
    """What a server may be told."""

    allowed_origins: tuple[str, ...] = ()
    api_key: str | None = field(default=None, repr=False)
    limits: Limits = DEFAULT_LIMITS
    guards: Guards = field(default_factory=Guards)
    log_requests: bool = True
    predictions_dir: Path | None = None
    """Where every answer is logged; None: nowhere."""
    collect: CollectOptions | None = None
    """How events are collected; None: they are not."""


@dataclass(slots=True)
class Record:
    """What is logged and counted of a request.

    ``answered``, for the log of answers, holds what a shopper did; ``answered_at_s`` is when the answer was there,
    before it is sent: whoever has it can say what came later.
    """

    request_id: str
    began: float = field(default_factory=time.perf_counter)
    route: str = "other"
    endpoint: str | None = None
    model: str | None = None
    version: str | None = None
    sessions: int | None = None
    answered: tuple[PredictionRequest, Sequence[Mapping[str, Any]]] | None = None
    answered_at_s: float = 0.0


class Guard:
    """Wraps an ASGI application. One instance per application: it counts what is under way."""

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        options: ServerOptions,
        metrics: Metrics,
        on_answer: Callable[[Answered], None] | None = None,
    ):
        self._app = app
        self._guards = options.guards
        self._key = _digest(options.api_key.encode()) if options.api_key else None
        self._origins = frozenset(origin.encode() for origin in options.allowed_origins)
        self._metrics = metrics
        self._logs = options.log_requests
        self._on_answer = on_answer

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        record = scope[RECORD] = Record(_request_id(headers), began)
        status = 500

        async def answer(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", record.request_id.encode())]
                if status in (429, 503):
                    message["headers"].append((b"retry-after", _RETRY_AFTER_S))
            await send(message)

        self._metrics.in_flight += 1
        try:
            if self._metrics.in_flight > self._guards.requests and scope["path"] not in OPEN_PATHS:
                await _decline(answer, 503, "overloaded", "Too many requests are under way; ask again in a moment.")
            elif not self._is_allowed(scope, headers):
                await _decline(answer, 401, "unauthorized", "Send the API key as X-Api-Key, or as a bearer token.")
            else:
                await self._app(scope, receive, answer)
        finally:
            self._metrics.in_flight -= 1
            seconds = time.perf_counter() - began
            self._metrics.observe_request(record.route, scope["method"], status, seconds)
            if self._on_answer and record.answered and status == 200:
                self._on_answer(_answered(record, seconds))
            if self._logs and logger.isEnabledFor(logging.INFO):
                _log(record, scope["method"], status, seconds)

    def _is_allowed(self, scope: dict[str, Any], headers: dict[bytes, bytes]) -> bool:
        if self._key is None or scope["path"] in OPEN_PATHS or scope["method"] == "OPTIONS":
            return True
        if scope["path"] in PAGE_PATHS and self._is_of_allowed_page(headers):
            return True
        given = headers.get(b"x-api-key") or headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        return secrets.compare_digest(_digest(given), self._key)

    def _is_of_allowed_page(self, headers: dict[bytes, bytes]) -> bool:
        """Browsers name the page's origin in ``Origin``, for a picture in ``Referer`` alone."""
        referer = b"/".join(headers.get(b"referer", b"").split(b"/")[:3])
        origin = headers.get(b"origin") or referer
        return bool(origin) and bool({origin, b"*"} & self._origins)


class BodyReader:
    """Reads bodies within their limit, within their time, and within what all may take together."""

    def __init__(self, limits: Limits, guards: Guards):
        self._limits = limits
        self._guards = guards
        self._buffered = 0

    @contextlib.asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """Hold a body, which counts among all bodies until it is let go.

        Raises RequestError: 413 too large, 408 too slow, 503 too many large bodies at once.
        """
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(self._guards.body_timeout_s):
                await self._read(request, chunks)
            yield b"".join(chunks)
        except TimeoutError:
            text = f"The body did not arrive within {self._guards.body_timeout_s:g} seconds."
            raise RequestError(text, "too_slow", 408) from None
        finally:
            self._buffered -= sum(map(len, chunks))

    async def _read(self, request: Request, chunks: list[bytes]) -> None:
        """A body over the limit is thrown away piece by piece, so that its sender hears the 413."""
        limit = self._limits.body_bytes
        declared = request.headers.get("content-length", "")
        expected = int(declared) if declared.isdigit() and len(declared) < 19 else 0
        if expected > _PATIENCE * limit:
            require_body_size(expected, self._limits)
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > _PATIENCE * limit:
                break
            if size > limit:
                continue
            if self._buffered + len(chunk) > self._guards.buffered_bytes:
                raise RequestError("Too many large bodies are under way; ask again.", "overloaded", 503)
            self._buffered += len(chunk)
            chunks.append(chunk)
        require_body_size(size, self._limits)


def error_body(code: str, message: str) -> bytes:
    return orjson.dumps(format_error(code, message))


async def _decline(send: Callable, status: int, code: str, message: str) -> None:
    body = error_body(code, message)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _digest(key: bytes) -> bytes:
    """Of one length whatever was sent, so that comparing takes one time."""
    return hashlib.sha256(key).digest()


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return request_id_of(given) or f"{_PROCESS_ID}-{next(_NUMBERS)}"


def _answered(record: Record, seconds: float) -> Answered:
    asked, predictions = record.answered
    names = record.request_id, record.route, record.endpoint, record.model, record.version
    return Answered(*names, asked, predictions, seconds, record.answered_at_s)


def _log(record: Record, method: str, status: int, seconds: float) -> None:
    fields = {
        "request_id": record.request_id,
        "route": record.route,
        "method": method,
        "status": status,
        "latency_ms": round(seconds * 1000, 2),
        "endpoint": record.endpoint,
        "model": record.model,
        "version": record.version,
        "sessions": record.sessions,
    }
    logger.info("request", extra={"fields": {name: value for name, value in fields.items() if value is not None}})
