"""The public API as one pure function: method, path, query and body in, status, headers and body out.

Belongs here: routes, the original's query forms, error answers, CORS. Does not belong here: sockets, models, AWS.
Standard library only: the same function runs in Lambda and in the local server, which differ by ``invoke``.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from bigger_boat.data.vocabulary import ACTION_ALIASES, ACTIONS, SESSION_MARKERS
from bigger_boat.errors import RequestError
from bigger_boat.serving.contract import DEFAULT_LIMITS, Limits, format_error, parse_json, parse_request

Invoke = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Endpoint name and contract request in, contract answer out. Raises RequestError for an answer that is no success."""

_INTENT_TOKENS = frozenset({*ACTIONS, *ACTION_ALIASES, *SESSION_MARKERS})
_POSTED = {"/v1/intent": "intent", "/v1/recommendations": "recommendation"}
_METHODS = {"/predict": "GET", "/health": "GET", **dict.fromkeys(_POSTED, "POST")}
PATHS = tuple(_METHODS)
"""Every path of the public API."""

_FLAGS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class Response:
    """What goes back over whatever wire."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def handle(
    method: str,
    path: str,
    query: Mapping[str, str] | str | None,
    headers: Mapping[str, str] | None,
    body: bytes | str | None,
    invoke: Invoke,
    *,
    health: Callable[[], dict[str, Any]] | None = None,
    allowed_origins: Sequence[str] = (),
    limits: Limits = DEFAULT_LIMITS,
    clock: Callable[[], float] = time.perf_counter,
) -> Response:
    """Answer one request of the public API; never raises, never shows a stack trace.

    ``query`` may be a raw query string, a mapping (API Gateway's) or None. ``allowed_origins`` lists the origins that
    browsers may call from (``*``: any); without it no CORS header is sent.
    """
    extra = cors_headers(headers or {}, allowed_origins)
    try:
        path = path.rstrip("/") or "/"
        if method == "OPTIONS" and path in _METHODS:
            return Response(204, b"", {**extra, "Allow": _METHODS[path]})
        _require_route(method, path)
        if path == "/health":
            answer = health() if health else {"status": "ok"}
        elif path == "/predict":
            answer = _predict(_parameters(query), invoke, limits, clock)
        else:
            payload = parse_json(body, limits)
            parse_request(payload, limits)
            answer = invoke(_POSTED[path], payload)
        return _respond(200, answer, extra)
    except RequestError as error:
        if error.status == 405:
            extra = {**extra, "Allow": _METHODS[path]}
        return _respond(error.status, format_error(error.code, error.message), extra)
    except Exception:
        # invoke runs what this module does not know (a model, a network); its errors may hold data: none is passed on
        return _respond(502, format_error("endpoint_failed", "The model's endpoint did not answer. Try again."), extra)


def _require_route(method: str, path: str) -> None:
    if path not in _METHODS:
        raise RequestError(f"There is nothing here; there is {', '.join(_METHODS)}.", "not_found", 404)
    if method != _METHODS[path]:
        raise RequestError(f"{path} answers {_METHODS[path]}, not {method[:16]}.", "method_not_allowed", 405)


def _predict(parameters: dict[str, str], invoke: Invoke, limits: Limits, clock: Callable[[], float]) -> dict[str, Any]:
    """The original's forms: tokens that are all action names mean intent, otherwise they are SKUs."""
    began = clock()
    if "x" in parameters and "session" in parameters:
        raise RequestError("Give either 'x' or 'session', not both.")
    text = parameters.get("x", parameters.get("session", ""))
    tokens = [token for token in (part.strip() for part in text.split(",")) if token]
    if tokens and all(token in _INTENT_TOKENS for token in tokens):
        request = {"sessions": [[{"action": token} for token in tokens]]}
        return _original_answer("intent", request, invoke, limits, began, clock)
    request = {"sessions": [[token for token in tokens if token not in SESSION_MARKERS]]}
    if "k" in parameters:
        request["k"] = _whole_number(parameters["k"])
    if "exclude_seen" in parameters:
        request["exclude_seen"] = _flag(parameters["exclude_seen"])
    return _original_answer("recommendation", request, invoke, limits, began, clock)


def _original_answer(
    endpoint: str, request: dict[str, Any], invoke: Invoke, limits: Limits, began: float, clock: Callable[[], float]
) -> dict[str, Any]:
    """``prediction``: the probability of a purchase, or the SKUs, best first. ``time``: seconds, as the original's."""
    parse_request(request, limits)
    answer = invoke(endpoint, request)
    prediction = answer["predictions"][0]
    shown = {name: answer[name] for name in ("model", "version", "request_id") if name in answer}
    shown["time"] = clock() - began
    if endpoint == "intent":
        unknown = {"unknown_actions": prediction["unknown_actions"]}
        return {"prediction": prediction["purchase_probability"], **shown, **unknown}
    more = {"fallback": prediction["fallback"], "unknown_skus": prediction["unknown_skus"]}
    return {"prediction": prediction["skus"], **shown, **more}


def _parameters(query: Mapping[str, str] | str | None) -> dict[str, str]:
    if not query:
        return {}
    if isinstance(query, str):
        try:
            parsed = parse_qs(query, keep_blank_values=True, max_num_fields=100, errors="strict")
        except ValueError as error:
            raise RequestError("The query string cannot be read.") from error
        return {key: values[-1] for key, values in parsed.items()}
    return {str(key): "" if value is None else str(value) for key, value in query.items()}


def _whole_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise RequestError("'k' must be a whole number.", "k_out_of_range")
    return int(text)


def _flag(text: str) -> bool:
    if text.lower() not in _FLAGS:
        raise RequestError("'exclude_seen' must be true or false.")
    return _FLAGS[text.lower()]


def parse_origins(text: str) -> tuple[str, ...]:
    """Return the origins of a setting that separates them by commas, with or without spaces."""
    return tuple(origin.strip() for origin in text.split(",") if origin.strip())


def cors_headers(headers: Mapping[str, str], allowed_origins: Sequence[str]) -> dict[str, str]:
    """Return what lets a page of an allowed origin read the answer; nothing for any other request."""
    origin = next((value for name, value in headers.items() if name.lower() == "origin"), None)
    if origin is None or not ({origin, "*"} & set(allowed_origins)):
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
        "Access-Control-Allow-Headers": "Content-Type, X-Api-Key",
        "Vary": "Origin",
    }


def _respond(status: int, payload: dict[str, Any], headers: dict[str, str]) -> Response:
    body = json.dumps(payload, allow_nan=False, separators=(",", ":")).encode()
    return Response(status, body, {"Content-Type": "application/json", **headers})
