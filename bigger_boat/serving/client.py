"""A small client of the local server: ask an endpoint, ask for health, wait. Standard library only.

Never goes through a proxy: what it talks to is on this machine.
"""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from bigger_boat.errors import RequestError, ServerError

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_POLL_S = 0.1


def post_invocations(
    base_url: str,
    name: str | None,
    request: Mapping[str, Any],
    *,
    timeout_s: float = 30.0,
    api_key: str | None = None,
) -> dict[str, Any]:
    """Ask an endpoint (``name`` None: a server of one bundle) and return the contract's answer.

    Raises RequestError with the server's own message if it declines, ServerError if it cannot be reached.
    """
    path = "/invocations" if name is None else f"/endpoints/{name}/invocations"
    return ask(base_url, path, json.dumps(request).encode(), timeout_s=timeout_s, api_key=api_key)


def health(base_url: str, *, timeout_s: float = 5.0) -> dict[str, Any]:
    """Return what the server says about itself. Raises ServerError if it cannot be reached."""
    return ask(base_url, "/health", timeout_s=timeout_s)


def ask(
    base_url: str, path: str, body: bytes | None = None, *, timeout_s: float = 30.0, api_key: str | None = None
) -> Any:
    """GET (or POST, with a body) and return the decoded JSON. Raises RequestError or ServerError."""
    request = urllib.request.Request(base_url.rstrip("/") + path, data=body)
    if body is not None:
        request.add_header("Content-Type", "application/json")
    if api_key:
        request.add_header("X-Api-Key", api_key)
    try:
        with _OPENER.open(request, timeout=timeout_s) as response:
            return _decode(response.read(), base_url)
    except urllib.error.HTTPError as error:
        with error:
            raise _declined(error.read(), error.code) from None
    except (OSError, ValueError, http.client.HTTPException) as error:  # the last: killed in the midst of an answer
        reason = getattr(error, "reason", error)
        raise ServerError(
            f"No server answers at {base_url}: {reason}.", "Start it with `bigger-boat serve`.", may_pass=True
        ) from error


def wait_until_up(base_url: str, timeout_s: float = 120.0, *, endpoints_id: str | None = None) -> dict[str, Any]:
    """Wait until the server has looked at all its endpoints; return its health.

    With ``endpoints_id`` the server must be that of this data directory. Raises ServerError with what is wrong.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        problem: ServerError
        try:
            state = health(base_url)
            if endpoints_id is not None and state.get("endpoints_id") != endpoints_id:
                hint = "Stop it, or set BIGGER_BOAT_PORT to another port."
                raise ServerError(f"Another program or another data directory's server answers at {base_url}.", hint)
            if state.get("status") == "ok" and state.get("state") != "loading":
                return state
            problem = ServerError(f"The server at {base_url} is still loading its models after {timeout_s:.0f} s.")
        except RequestError as error:
            raise ServerError(f"Another program answers at {base_url}: {error.message}") from error
        except ServerError as error:
            if error.__cause__ is None:
                raise
            problem = error
        if time.monotonic() > deadline:
            raise problem
        time.sleep(_POLL_S)


def _decode(content: bytes, base_url: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise ServerError(f"What answers at {base_url} is no Bigger Boat server.") from error


def _declined(content: bytes, status: int) -> RequestError:
    try:
        error = json.loads(content)["error"]
        return RequestError(error["message"], error["code"], status)
    except (ValueError, KeyError, TypeError):
        return RequestError(f"The server answered HTTP status {status}.", "http_error", status)
