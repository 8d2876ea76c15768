"""The local server as a process: start it in the background, find it, stop it, run it in the foreground.

What belongs elsewhere: what the server does (``serving/server.py``), publishing to it (``local_endpoint_host.py``).
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bigger_boat.errors import ServerError
from bigger_boat.serving import client
from bigger_boat.serving.published import endpoints_id, read_server
from bigger_boat.settings import Settings

PORTS_TRIED = 20
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 15
LARGEST_LOG_BYTES = 20 * 1024 * 1024
"""A start puts a larger log aside; the one before goes."""


def serve(settings: Settings, host: str, port: int, bundle: Path | None) -> None:
    """Serve in this process until it is told to stop: all endpoints, or the one bundle."""
    from bigger_boat.serving.collect import CollectOptions
    from bigger_boat.serving.guard import ServerOptions
    from bigger_boat.serving.handler import parse_origins
    from bigger_boat.serving.logs import log_as_json
    from bigger_boat.serving.server import run_server

    log_as_json()
    prefer_onednn()
    logged = settings.log_predictions and bundle is None  # in the container SageMaker captures them
    collect = CollectOptions(
        settings.collect_dir,
        settings.landing_dir,
        trust_time=settings.collect_trust_time,
        rotate_s=settings.collect_rotate_s,
    )
    run_server(
        None if bundle else settings.endpoints_dir,
        bundle_dir=bundle,
        host=host,
        port=port,
        options=ServerOptions(
            allowed_origins=parse_origins(settings.allowed_origins),
            api_key=api_key(settings),
            predictions_dir=settings.predictions_dir if logged else None,
            collect=None if bundle else collect,
        ),
        announce=lambda url: print(f"Serving at {url}; stop with Ctrl-C.", flush=True),
    )


def prefer_onednn() -> None:
    """Have TensorFlow, which is not imported yet, use its oneDNN kernels, as it does by itself on newer processors.

    One session's product with 66,000 products takes a quarter of the time. Scores move by rounding. Whoever sets
    ``TF_ENABLE_ONEDNN_OPTS`` decides otherwise.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def ensure_running(settings: Settings) -> str:
    """Return the address of this data folder's server; start one in the background where none is up.

    The setting's port is taken if it is free, else the next free one. Raises ServerError with the log if it does not
    come up.
    """
    settings.endpoints_dir.mkdir(parents=True, exist_ok=True)
    if server := read_server(settings.endpoints_dir):
        return server["url"]
    log_path = settings.data_dir / "logs" / "server.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    if log_path.exists() and log_path.stat().st_size > LARGEST_LOG_BYTES:
        log_path.replace(log_path.with_suffix(".log.1"))
    port = _free_port(settings.port)
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bigger_boat.cli", "serve", "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server := read_server(settings.endpoints_dir):
            return server["url"]
        if process.poll() is not None:
            break
        time.sleep(0.1)
    tail = log_path.read_text(errors="replace")[-2000:]
    raise ServerError(f"The endpoint's server did not start on port {port}:\n{tail}", f"See {log_path}.")


def running_url(settings: Settings) -> str:
    """Return the address of this data folder's server. Raises ServerError where none is up."""
    server = read_server(settings.endpoints_dir)
    if server is None:
        raise ServerError("No server of this data folder is up.", "Start it: bigger-boat serve, or make up.")
    return server["url"]


def wait_until_ready(settings: Settings, timeout_s: float = 120) -> str:
    """Wait until the server has loaded what is published; return its address."""
    url = running_url(settings)
    client.wait_until_up(url, timeout_s, endpoints_id=endpoints_id(settings.endpoints_dir))
    return url


def api_key(settings: Settings) -> str | None:
    """Return the key that requests must carry, None where none is set."""
    return settings.api_key.get_secret_value() if settings.api_key else None


def ask(url: str, key: str | None = None, **query: str | None) -> Mapping[str, Any]:
    """Ask the public API: ``x`` (actions) or ``session`` (SKUs)."""
    given = {name: value for name, value in query.items() if value is not None}
    return client.ask(url, f"/predict?{urlencode(given)}", api_key=key)


def stop(endpoints_dir: Path) -> int | None:
    """End the server of this folder and wait for its end; return its process id, None where none was up."""
    server = read_server(endpoints_dir)
    if server is None:
        return None
    with contextlib.suppress(ProcessLookupError):
        os.kill(server["pid"], signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while read_server(endpoints_dir) is not None:
        if time.monotonic() > deadline:
            raise ServerError(f"The server (process {server['pid']}) does not stop.", f"End it: kill {server['pid']}")
        time.sleep(0.1)
    return server["pid"]


def _free_port(first: int) -> int:
    for port in range(first, first + PORTS_TRIED):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise ServerError(
        f"No port from {first} to {first + PORTS_TRIED - 1} is free.", "Set BIGGER_BOAT_PORT to a free one."
    )
