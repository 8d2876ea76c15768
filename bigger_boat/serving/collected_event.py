"""A collected event: what a shop may send to ``/collect``, and the row of the source's tables that it becomes.

Belongs here: judging one event, and taking a request apart into events. Does not belong here: keeping them
(``spool.py``), bringing them into the landing zone (``collect_landing.py``), HTTP (``collect.py``).
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import orjson

from bigger_boat.data.event_rules import (
    CLOCK_SKEW,
    EARLIEST_MS,
    EVENT_TYPES,
    ID_IS_MALFORMED,
    LONGEST_ID,
    MISSING,
    NOT_IN_IDS,
    PRODUCT_ACTIONS,
    TIME,
    URL_IS_MALFORMED,
    VECTOR_LENGTH,
)
from bigger_boat.errors import RequestError

SEARCH_EVENT = "search"
COLLECTED_TYPES = (*EVENT_TYPES, SEARCH_EVENT)
LONGEST_URL = 2_048
LONGEST_LIST = 1_000
LARGEST_EVENT_BYTES = 64 * 1024
"""Of the row that is kept; a search with a vector and a hundred products shown has a tenth of that."""

_COMMON = frozenset({"event_id", "session_id", "event_type", "timestamp_ms", "request_id"})
_BROWSING = _COMMON | {"product_action", "product_sku_hash", "hashed_url"}
_SEARCH = _COMMON | {"query_vector", "clicked_skus_hash", "product_skus_hash"}
_LISTS = ("clicked_skus_hash", "product_skus_hash")
_ID_IS_MALFORMED, _URL_IS_MALFORMED = re.compile(ID_IS_MALFORMED), re.compile(URL_IS_MALFORMED)
_ID_RULE = f"ids have up to {LONGEST_ID} characters and no {NOT_IN_IDS}"


class EventFault(Exception):
    """Why an event is not kept: ``reason`` is one of few words, ``message`` a sentence."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason, self.message = reason, message


@dataclass(frozen=True, slots=True)
class Kept:
    """A valid event: its id, and its row as JSON without a line break."""

    event_id: str
    line: bytes


@dataclass
class Judged:
    """What a request's events are: ``rejected`` has index in the request, reason and message of each bad one."""

    kept: list[Kept] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)


def parse_events(body: bytes, at_most: int) -> list[Any]:
    """Return what a body holds: one JSON object, a list, or an object per line; a line that is none is an EventFault.

    Raises RequestError: 400 ``invalid_json`` or ``no_events``, 413 ``too_many_events``.
    """
    try:
        decoded = orjson.loads(body)
        events = decoded if isinstance(decoded, list) else [decoded]
    except orjson.JSONDecodeError as error:
        lines = [line for line in body.split(b"\n") if line.strip()]
        if len(lines) < 2 or body.lstrip()[:1] != b"{":
            raise RequestError("The body is no valid JSON.", "invalid_json") from error
        _require_few(len(lines), at_most)
        events = [_parse_line(line) for line in lines]
    if not events:
        raise RequestError("The request holds no event.", "no_events")
    _require_few(len(events), at_most)
    return events


def event_of_query(query: bytes) -> dict[str, Any]:
    """Return the event that a pixel's query string names. ``_`` is left out: pages send it against caches.

    Raises RequestError (400) where the query cannot be read.
    """
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=50, errors="strict")
        event: dict[str, Any] = {name: value for name, value in pairs if name != "_"}
        for name in _LISTS:
            if event.get(name):
                event[name] = event[name].split(",")
        if event.get("query_vector"):
            event["query_vector"] = orjson.loads(event["query_vector"])
        if event.get("timestamp_ms"):
            event["timestamp_ms"] = int(event["timestamp_ms"]) if len(event["timestamp_ms"]) < 20 else -1
    except ValueError as error:
        raise RequestError("The query string cannot be read as an event.") from error
    return {name: value for name, value in event.items() if value != ""}


def judge(events: Sequence[Any], now_ms: int, *, trust_time: bool) -> Judged:
    """Judge a request's events. Their time is ``now_ms``, or their own where it is trusted and given.

    Events of one request that have the server's time get it a millisecond apart, so that their order stays.
    """
    judged = Judged()
    for index, event in enumerate(events):
        try:
            judged.kept.append(_judge(event, now_ms - (len(events) - 1 - index), now_ms, trust_time))
        except EventFault as fault:
            judged.rejected.append({"index": index, "reason": fault.reason, "message": fault.message})
    return judged


def _judge(event: Any, stamp_ms: int, now_ms: int, trust_time: bool) -> Kept:
    if isinstance(event, EventFault):
        raise event
    if not isinstance(event, dict):
        raise EventFault("not_an_object", "an event is a JSON object")
    row = _row(event)
    has_time = trust_time and event.get("timestamp_ms") is not None
    row[TIME] = _time(event["timestamp_ms"], now_ms) if has_time else stamp_ms
    line = orjson.dumps(row)
    if len(line) > LARGEST_EVENT_BYTES:
        raise EventFault("event_too_large", f"an event has at most {LARGEST_EVENT_BYTES:,} bytes")
    return Kept(row["event_id"], line)


def _row(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the source's columns of an event, without its time; ``table`` says whose."""
    kind = event.get("event_type")
    if kind not in COLLECTED_TYPES:
        raise EventFault("event_type_unknown", f"event_type must be one of {', '.join(COLLECTED_TYPES)}")
    known = _SEARCH if kind == SEARCH_EVENT else _BROWSING
    if unknown := sorted(name[:40] for name in event.keys() - known):
        raise EventFault("field_unknown", f"{', '.join(unknown[:5])} is no field of a {kind}")
    row: dict[str, Any] = {
        "table": "search" if kind == SEARCH_EVENT else "browsing",
        "event_id": _id(event, "event_id", required=True),
        "session_id_hash": _id(event, "session_id", required=True),
        "request_id": _id(event, "request_id"),
    }
    return row | (_search(event) if kind == SEARCH_EVENT else _browsing(event, kind))


def _browsing(event: Mapping[str, Any], kind: str) -> dict[str, Any]:
    action = event.get("product_action") or None
    if kind == "pageview" and action is not None:
        raise EventFault("product_action_on_pageview", "a pageview has no product_action")
    if kind != "pageview" and action is None:
        raise EventFault("product_action_missing", "an event_product needs a product_action")
    if action is not None and action not in PRODUCT_ACTIONS:
        raise EventFault("product_action_unknown", f"product_action must be one of {', '.join(PRODUCT_ACTIONS)}")
    return {
        "event_type": kind,
        "product_action": action,
        "product_sku_hash": _id(event, "product_sku_hash", required=kind != "pageview"),
        "hashed_url": _url(event.get("hashed_url")),
    }


def _search(event: Mapping[str, Any]) -> dict[str, Any]:
    return {"query_vector": _vector(event.get("query_vector")), **{name: _skus(event, name) for name in _LISTS}}


def _id(event: Mapping[str, Any], name: str, required: bool = False) -> str | None:
    value = event.get(name)
    if value is None or value == "":
        if required:
            raise EventFault(f"{name}_missing", f"{name} is missing")
        return None
    if not isinstance(value, str) or value in MISSING or _is_no_id(value):
        raise EventFault(f"{name}_malformed", f"{name}: {_ID_RULE}")
    return value


def _is_no_id(value: str) -> bool:
    return len(value) > LONGEST_ID or len(value.encode()) > LONGEST_ID or bool(_ID_IS_MALFORMED.search(value))


def _url(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > LONGEST_URL or _URL_IS_MALFORMED.search(value):
        rule = f"hashed_url has up to {LONGEST_URL:,} characters, and no spaces, quotes or control characters"
        raise EventFault("url_malformed", rule)
    return value


def _vector(value: Any) -> list[float] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != VECTOR_LENGTH or not all(map(_is_small_number, value)):
        raise EventFault("query_vector_invalid", f"query_vector must be a list of {VECTOR_LENGTH} numbers")
    return value


def _is_small_number(value: Any) -> bool:
    """Whether it stays finite as a float of 32 bits."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.fabs(value) < 3.4e38


def _skus(event: Mapping[str, Any], name: str) -> list[str] | None:
    value = event.get(name)
    if value is None:
        return None
    is_list = isinstance(value, list) and len(value) <= LONGEST_LIST
    if not is_list or not all(isinstance(sku, str) and sku and not _is_no_id(sku) for sku in value):
        raise EventFault(f"{name}_invalid", f"{name} must be a list of at most {LONGEST_LIST:,} SKUs: {_ID_RULE}")
    return value


def _time(value: Any, now_ms: int) -> int:
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not is_whole or isinstance(value, bool):
        raise EventFault("timestamp_not_a_number", "timestamp_ms must be whole milliseconds since 1970")
    if value < EARLIEST_MS:
        raise EventFault("timestamp_too_early", "timestamp_ms is before 2000: milliseconds were expected")
    if value > now_ms + CLOCK_SKEW.total_seconds() * 1000:
        raise EventFault("timestamp_in_future", "timestamp_ms is in the future: check its unit, or the clock")
    return int(value)


def _parse_line(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return EventFault("invalid_json", "the line is no valid JSON")


def _require_few(count: int, at_most: int) -> None:
    if count > at_most:
        text = f"{count:,} events were sent; at most {at_most:,} are taken in one request."
        raise RequestError(text, "too_many_events", 413)
