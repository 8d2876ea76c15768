"""The HTTP server: the endpoint contract and the public API over Starlette and uvicorn.

Belongs here: routes, sockets, threads, signals. Does not belong here: what an answer says (``handler.py``,
``contract.py``), which model gives it (``endpoints.py``). Bound to loopback unless told otherwise.
"""

import asyncio
import contextlib
import fcntl
import ipaddress
import logging
import os
import re
import signal
import socket
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from bigger_boat.errors import RequestError, ServerError
from bigger_boat.serving.contract import DEFAULT_LIMITS, Limits, format_error, require_body_size
from bigger_boat.serving.endpoints import BundleHost, EndpointsHost
from bigger_boat.serving.handler import handle
from bigger_boat.serving.published import endpoints_id, read_json, utc_now, write_json

logger = logging.getLogger("bigger_boat.serving")

DEFAULT_PORT = 8080
_WORKERS = 2
_GRACE_S = 10
_LOCK_PATIENCE_S = 2.0
_PATIENCE = 4
"""A body up to so many times the limit is read to its end before it is declined; a larger one loses the connection."""
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

ModelHost = BundleHost | EndpointsHost


def create_app(host: ModelHost, *, allowed_origins: Sequence[str] = (), limits: Limits = DEFAULT_LIMITS) -> Starlette:
    """Return the ASGI application over a host of models, which the caller starts and stops."""
    workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="answer")

    async def ping(_request: Request) -> Response:
        return Response(status_code=200 if host.is_ready() else 503)

    async def health(_request: Request) -> Response:
        return _json(200, host.health())

    async def invocations(request: Request) -> Response:
        request_id = _request_id(request)
        body = await _read_body(request, limits)
        work = partial(_invoke, host, request.path_params.get("name"), body, request_id)
        status, content = await asyncio.get_running_loop().run_in_executor(workers, work)
        return Response(content, status, {"X-Request-Id": request_id}, "application/json")

    async def public(request: Request) -> Response:
        request_id = _request_id(request)
        body = await _read_body(request, limits)
        work = partial(
            handle,
            request.method,
            request.url.path,
            request.url.query,
            dict(request.headers),
            body,
            lambda name, payload: host.answer(name, payload, request_id),
            health=host.health,
            allowed_origins=allowed_origins,
            limits=limits,
        )
        answer = await asyncio.get_running_loop().run_in_executor(workers, work)
        return Response(answer.body, answer.status, {**answer.headers, "X-Request-Id": request_id})

    routes = [_route("/ping", "GET", ping)]
    if isinstance(host, BundleHost):
        routes += [_route("/invocations", "POST", invocations), _route("/health", "GET", health)]
    else:
        routes.append(_route("/endpoints/{name}/invocations", "POST", invocations))
        routes.append(Route("/{path:path}", public, methods=_METHODS))
    handlers = {RequestError: _on_request_error, HTTPException: _on_http_error, ClientDisconnect: _on_disconnect}
    return Starlette(routes=routes, exception_handlers=handlers)


def run_server(
    endpoints_dir: Path | None = None,
    *,
    bundle_dir: Path | None = None,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    allowed_origins: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve the endpoints of a data directory, or one bundle, until SIGTERM or SIGINT; then finish and return.

    ``port`` 0 takes a free one; ``announce`` gets the address as soon as connections are accepted. Models are loaded
    meanwhile; ``GET /ping`` answers 503 until then. Raises ServerError if the port is taken or another server has the
    directory, BundleError if the one bundle cannot serve.
    """
    if (endpoints_dir is None) == (bundle_dir is None):
        raise ServerError("The server needs either an endpoints directory or a bundle.")
    models = BundleHost(bundle_dir, limits=limits) if bundle_dir else EndpointsHost(endpoints_dir, limits=limits)
    app = create_app(models, allowed_origins=allowed_origins, limits=limits)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_bind(host, port))
        if not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
            logger.warning("The server can be reached from other machines (%s).", host)
        url = _url(listener)
        if endpoints_dir:
            stack.enter_context(_registered(Path(endpoints_dir), url))
        server = _Server(app)
        models.start(server.stop)
        stack.callback(models.stop)
        if announce:
            announce(url)
        server.run(sockets=[listener])
    if isinstance(models, BundleHost) and models.failure:
        raise models.failure


@contextlib.contextmanager
def private_server(bundle_dir: Path, *, verify_golden: bool = False, timeout_s: float = 120.0) -> Iterator[str]:
    """Run the real server for one bundle in a thread, on a free port of loopback; yields its address once it is ready.

    Raises BundleError if the bundle cannot be loaded, ServerError if that takes longer than ``timeout_s``.
    """
    models = BundleHost(bundle_dir, verify_golden=verify_golden)
    with _bind("127.0.0.1", 0) as listener:
        server = _Server(create_app(models))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="private-server", daemon=True)
        models.start(lambda: None)
        thread.start()
        try:
            if not models.wait(timeout_s):
                raise ServerError(f"The bundle {bundle_dir} was not loaded within {timeout_s:.0f} s.")
            if models.failure:
                raise models.failure
            yield _url(listener)
        finally:
            server.stop()
            thread.join(_GRACE_S)


class _Server(uvicorn.Server):
    """uvicorn that ends a signalled process with exit code 0 once the running requests are answered."""

    def __init__(self, app: Starlette):
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", server_header=False)
        config.timeout_graceful_shutdown = _GRACE_S
        super().__init__(config)

    def stop(self) -> None:
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        kept = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)


def _invoke(host: ModelHost, name: str | None, body: bytes, request_id: str) -> tuple[int, bytes]:
    """Answer the bytes of a contract request; runs in a worker thread."""
    try:
        try:
            payload = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise RequestError("The body is no valid JSON.", "invalid_json") from error
        return 200, orjson.dumps(host.answer(name, payload, request_id))
    except RequestError as error:
        return error.status, orjson.dumps(format_error(error.code, error.message))
    except Exception as error:
        if not isinstance(error, ServerError):  # those are logged where they happen
            logger.exception("Request %s failed.", request_id)
        return 500, orjson.dumps(format_error("model_failed", "The model failed to answer this request."))


async def _read_body(request: Request, limits: Limits) -> bytes:
    """Read a body within the limit. A larger one is thrown away piece by piece, so that its sender hears the 413."""
    declared = request.headers.get("content-length", "")
    expected = int(declared) if declared.isdigit() and len(declared) < 19 else 0
    if expected > _PATIENCE * limits.body_bytes:
        require_body_size(expected, limits)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > _PATIENCE * limits.body_bytes:
            break
        if size <= limits.body_bytes:
            chunks.append(chunk)
    require_body_size(size, limits)
    return b"".join(chunks)


def _route(path: str, method: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    """A route that answers other methods with 405; Starlette's own would pass them on to the catch-all."""

    async def answer(request: Request) -> Response:
        if request.method != method and (request.method, method) != ("HEAD", "GET"):
            response = _json(405, format_error("method_not_allowed", f"This path answers {method}."))
            response.headers["Allow"] = method
            return response
        return await endpoint(request)

    return Route(path, answer, methods=_METHODS)


def _request_id(request: Request) -> str:
    given = request.headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _json(status: int, payload: Any) -> Response:
    return Response(orjson.dumps(payload), status, media_type="application/json")


async def _on_request_error(_request: Request, error: RequestError) -> Response:
    return _json(error.status, format_error(error.code, error.message))


async def _on_http_error(_request: Request, error: HTTPException) -> Response:
    codes = {
        404: ("not_found", "There is nothing here."),
        405: ("method_not_allowed", "This path answers another method."),
    }
    code, message = codes.get(error.status_code, ("http_error", str(error.detail)))
    response = _json(error.status_code, format_error(code, message))
    response.headers.update(error.headers or {})
    return response


async def _on_disconnect(_request: Request, _error: ClientDisconnect) -> Response:
    return Response(status_code=400)  # nobody reads it


@contextlib.contextmanager
def _bind(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        hint = "Stop what uses the port, or set BIGGER_BOAT_PORT to another one."
        raise ServerError(f"The server cannot listen on {host}:{port}: {error}.", hint) from error
    with listener:
        yield listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def _registered(root: Path, url: str) -> Iterator[None]:
    """Say where the server of this directory is, and hold the lock that proves that it lives."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".server.lock").open("a") as handle:
        deadline = time.monotonic() + _LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:  # a reader asks for a moment whether a server lives; a server stays
                if time.monotonic() > deadline:
                    raise ServerError(f"Another server already serves {root}.", "Use it, or stop it first.") from error
                time.sleep(0.05)
        record = {"pid": os.getpid(), "url": url, "endpoints_id": endpoints_id(root), "since": utc_now()}
        write_json(root / "server.json", record)
        try:
            yield
        finally:
            if read_json(root / "server.json") == record:  # not that of a directory made again under this name
                (root / "server.json").unlink(missing_ok=True)
