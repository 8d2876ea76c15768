"""The server as a process or a thread: the socket, signals, the record of where it is, and replaying golden requests.

Belongs here: what starts and stops. Does not belong here: routes (``app.py``), limits (``guard.py``,
``connections.py``), which model answers (``endpoints.py``). Bound to loopback unless told otherwise.
"""

import contextlib
import fcntl
import ipaddress
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from bigger_boat.errors import BundleError, RequestError, ServerError
from bigger_boat.ml.gate import check_golden
from bigger_boat.serving.app import create_app
from bigger_boat.serving.client import post_invocations
from bigger_boat.serving.connections import guarded_protocol
from bigger_boat.serving.contract import Limits
from bigger_boat.serving.endpoints import BundleHost, EndpointsHost
from bigger_boat.serving.graph import serve_only
from bigger_boat.serving.guard import Guards, ServerOptions
from bigger_boat.serving.predictor import Predictor
from bigger_boat.serving.published import endpoints_id, read_json, utc_now, write_json

logger = logging.getLogger("bigger_boat.serving")

DEFAULT_PORT = 8080
_GRACE_S = 9
"""Docker kills after 10 seconds."""
_LOCK_PATIENCE_S = 2.0
_PRIVATE = ServerOptions(limits=Limits(k=2**31 - 1), log_requests=False)
"""Golden requests may ask for more than a shop may."""


def run_server(
    endpoints_dir: Path | None = None,
    *,
    bundle_dir: Path | None = None,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    options: ServerOptions | None = None,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve the endpoints of a data directory, or one bundle, until SIGTERM or SIGINT; then finish and return.

    ``port`` 0 takes a free one; ``announce`` gets the address as soon as connections are accepted. Models are loaded
    meanwhile; ``GET /ping`` answers 503 until then. Raises ServerError if the port is taken or another server has the
    directory, BundleError if the one bundle cannot serve.
    """
    if (endpoints_dir is None) == (bundle_dir is None):
        raise ServerError("The server needs either an endpoints directory or a bundle.")
    serve_only()
    options = options or ServerOptions()
    models = (
        BundleHost(bundle_dir, verify=replay_golden)
        if bundle_dir
        else EndpointsHost(endpoints_dir, verify=replay_golden)
    )
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_bind(host, port))
        _warn_if_reachable(listener, host, options)
        url = _url(listener)
        if endpoints_dir:
            stack.enter_context(_registered(Path(endpoints_dir), url))
        server = _Server(create_app(models, options), options.guards)
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
    models = BundleHost(bundle_dir, verify=replay_golden if verify_golden else None)
    models.start(lambda: None)
    if not models.wait(timeout_s):
        raise ServerError(f"The bundle {bundle_dir} was not loaded within {timeout_s:.0f} s.")
    if models.failure:
        raise models.failure
    with _in_thread(models) as url:
        yield url


def replay_golden(predictor: Predictor) -> None:
    """Ask a loaded version its golden requests over HTTP, on a free port of loopback, before a shop may ask it.

    Raises BundleError if an answer differs from the offline one, or none comes.
    """
    golden = predictor.bundle.golden
    try:
        with _in_thread(BundleHost.holding(predictor)) as url:
            answers = [post_invocations(url, None, entry["request"])["predictions"] for entry in golden]
    except (RequestError, ServerError) as error:
        raise BundleError(f"It does not answer its golden requests: {error.message}") from error
    check = check_golden(golden, answers)
    if not check.passed:
        raise BundleError(check.description, "Materialize the model again; the export changed its answers.")


@contextlib.contextmanager
def _in_thread(models: BundleHost) -> Iterator[str]:
    with _bind("127.0.0.1", 0) as listener:
        server = _Server(create_app(models, _PRIVATE), _PRIVATE.guards)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="private-server", daemon=True)
        thread.start()
        try:
            yield _url(listener)
        finally:
            server.stop()
            thread.join(_GRACE_S + 1)


class _Server(uvicorn.Server):
    """uvicorn that ends a signalled process with exit code 0 once the running requests are answered."""

    def __init__(self, app: Starlette, guards: Guards):
        config = uvicorn.Config(
            app,
            http=guarded_protocol(guards),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # nobody reads the client's address
            server_header=False,
            timeout_keep_alive=guards.keep_alive_s,
            timeout_graceful_shutdown=_GRACE_S,
        )
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


def _warn_if_reachable(listener: socket.socket, host: str, options: ServerOptions) -> None:
    if not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
        who = "with the API key" if options.api_key else "and no API key is asked for"
        logger.warning("The server can be reached from other machines (%s), %s.", host, who)


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
