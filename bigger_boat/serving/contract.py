"""The endpoint contract: parse and validate requests, shape answers. Standard library only, so that Lambda can run it.

Belongs here: what may be asked and how an answer looks. Does not belong here: models (``predictor.py``), paths and
methods (``handler.py``), sockets (``server.py``).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bigger_boat.data.vocabulary import MISSING_TIMESTAMP_MS, SESSION_MARKERS, canonical_action
from bigger_boat.errors import RequestError

DEFAULT_K = 20
LARGEST_TIMESTAMP_MS = 2**53 - 1
"""The largest integer that every JSON reader keeps exact."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REQUEST_KEYS = frozenset({"sessions", "session_ids", "at_ms", "k", "exclude_seen"})


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    body_bytes: int = 4 * 1024 * 1024
    sessions: int = 256
    session_events: int = 10_000
    request_events: int = 50_000
    k: int = 1_000
    token_length: int = 256


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Session:
    """One session as three aligned lists; sku "" where none, timestamp -1 where missing."""

    actions: list[str]
    skus: list[str]
    timestamps_ms: list[int]

    def __len__(self) -> int:
        return len(self.actions)


@dataclass(frozen=True)
class PredictionRequest:
    """A valid request: markers dropped, spellings canonical, ``at_ms`` one per session (-1 where missing)."""

    sessions: list[Session]
    at_ms: list[int]
    k: int = DEFAULT_K
    exclude_seen: bool = False
    session_ids: list[str] | None = None


def parse_json(body: bytes | str | None, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Parse strict JSON (no NaN). Raises RequestError: 413 ``too_large``, 400 ``invalid_json``."""
    body = body or b""
    require_body_size(len(body), limits)
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RequestError("The body is no valid JSON.", "invalid_json") from error


def require_body_size(size: int, limits: Limits = DEFAULT_LIMITS) -> None:
    """Raise RequestError (413) if a body of ``size`` bytes is too large."""
    if size > limits.body_bytes:
        text = f"The body has {size} bytes; at most {limits.body_bytes} are accepted."
        raise RequestError(text, "too_large", 413)


def parse_request(payload: Any, limits: Limits = DEFAULT_LIMITS) -> PredictionRequest:
    """Return the request that decoded JSON asks for. Raises RequestError (400) that says what is wrong, and where."""
    if not isinstance(payload, dict):
        raise RequestError(f"The request must be a JSON object with 'sessions', not {_kind(payload)}.")
    if unknown := sorted(str(key)[:40] for key in payload.keys() - _REQUEST_KEYS):
        raise RequestError(f"Unknown keys: {', '.join(unknown[:5])}. Known: {', '.join(sorted(_REQUEST_KEYS))}.")
    raw_sessions = payload.get("sessions")
    if not isinstance(raw_sessions, list):
        raise RequestError(f"'sessions' must be a list of sessions, not {_kind(raw_sessions)}.")
    if len(raw_sessions) > limits.sessions:
        text = f"{len(raw_sessions)} sessions were sent; at most {limits.sessions} are accepted in one request."
        raise RequestError(text, "too_many_sessions")
    sessions = [_parse_session(raw, f"sessions[{row}]", limits) for row, raw in enumerate(raw_sessions)]
    if sum(map(len, sessions)) > limits.request_events:
        raise RequestError(f"At most {limits.request_events} events are accepted in one request.", "too_many_events")
    return PredictionRequest(
        sessions=sessions,
        at_ms=_parse_at_ms(payload.get("at_ms"), len(sessions)),
        k=_parse_k(payload.get("k", DEFAULT_K), limits),
        exclude_seen=_parse_flag(payload.get("exclude_seen", False)),
        session_ids=_parse_session_ids(payload.get("session_ids"), len(sessions), limits),
    )


def format_answer(
    model: str, version: str, request_id: str, predictions: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the answer of an endpoint."""
    return {"model": model, "version": version, "request_id": request_id, "predictions": list(predictions)}


def request_id_of(given: str | None) -> str | None:
    """Return the id that a caller gave its request, None for none or one that cannot be used."""
    return given if given and _REQUEST_ID.fullmatch(given) else None


def format_error(code: str, message: str) -> dict[str, Any]:
    """Return the body of every answer that is no success."""
    return {"error": {"code": code, "message": message}}


def _parse_session(raw: Any, where: str, limits: Limits) -> Session:
    if not isinstance(raw, list):
        raise RequestError(f"{where} must be a list of events, not {_kind(raw)}.")
    if len(raw) > limits.session_events:
        text = f"{where} has {len(raw)} events; at most {limits.session_events} are accepted."
        raise RequestError(text, "session_too_long")
    session = Session([], [], [])
    for position, event in enumerate(raw):
        if isinstance(event, str):
            event = {"action": event} if event in SESSION_MARKERS else {"action": "detail", "sku": event}
            if event.get("sku") == "":
                raise RequestError(f"{where}[{position}] is an empty text; a product's SKU was expected.")
        _append_event(session, event, f"{where}[{position}]", limits)
    return session


def _append_event(session: Session, event: Any, where: str, limits: Limits) -> None:
    if not isinstance(event, dict):
        raise RequestError(f"{where} must be an event object or a SKU, not {_kind(event)}.")
    action = event.get("action")
    if not isinstance(action, str) or not action:
        raise RequestError(f"{where}.action must be a text such as 'view', not {_kind(action)}.")
    if action in SESSION_MARKERS:
        return
    sku = event.get("sku")
    if sku is not None and not isinstance(sku, str):
        raise RequestError(f"{where}.sku must be a text, not {_kind(sku)}.")
    session.actions.append(_clean(canonical_action(action), f"{where}.action", limits))
    session.skus.append(_clean(sku or "", f"{where}.sku", limits))
    session.timestamps_ms.append(_parse_time(event.get("timestamp_ms"), f"{where}.timestamp_ms"))


def _clean(text: str, where: str, limits: Limits) -> str:
    if len(text) > limits.token_length:
        raise RequestError(f"{where} has {len(text)} characters; at most {limits.token_length} are accepted.")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise RequestError(f"{where} is no valid Unicode text.") from error
    return text


def _parse_time(value: Any, where: str) -> int:
    if value is None:
        return MISSING_TIMESTAMP_MS
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{where} must be a time in epoch milliseconds, not {_kind(value)}.")
    if not 0 <= value <= LARGEST_TIMESTAMP_MS:
        raise RequestError(f"{where} must be between 0 and {LARGEST_TIMESTAMP_MS} epoch milliseconds.")
    return value


def _parse_at_ms(value: Any, count: int) -> list[int]:
    if not isinstance(value, list):
        return [_parse_time(value, "at_ms")] * count
    if len(value) != count:
        raise RequestError(f"'at_ms' has {len(value)} times for {count} sessions.")
    return [_parse_time(time, f"at_ms[{row}]") for row, time in enumerate(value)]


def _parse_k(value: Any, limits: Limits) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"'k' must be a whole number, not {_kind(value)}.")
    if not 1 <= value <= limits.k:
        raise RequestError(f"'k' must be between 1 and {limits.k}.", "k_out_of_range")
    return value


def _parse_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise RequestError(f"'exclude_seen' must be true or false, not {_kind(value)}.")
    return value


def _parse_session_ids(value: Any, count: int, limits: Limits) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RequestError("'session_ids' must be a list of texts.")
    if len(value) != count:
        raise RequestError(f"'session_ids' has {len(value)} ids for {count} sessions.")
    return [_clean(item, f"session_ids[{row}]", limits) for row, item in enumerate(value)]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _kind(value: Any) -> str:
    names = {type(None): "nothing", bool: "true or false", dict: "an object", list: "a list", str: "a text"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
