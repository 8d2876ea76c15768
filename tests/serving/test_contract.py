"""What may be asked: one row per rule of the endpoint contract."""

import pytest

from bigger_boat.errors import RequestError
from bigger_boat.serving.contract import DEFAULT_LIMITS, Limits, Session, parse_json, parse_request


def test_events_are_normalised():
    request = parse_request(
        {
            "sessions": [
                [
                    "sku-1",
                    {"action": "start"},
                    {"action": "pageview", "timestamp_ms": 1700000000000},
                    {"action": "add", "sku": "sku-2", "timestamp_ms": 5.0, "event_id": "ignored"},
                    {"action": "hover", "sku": None, "timestamp_ms": None},
                    {"action": "end"},
                    "end",
                ],
                [],
            ],
            "session_ids": ["one", "two"],
            "at_ms": [7, None],
            "k": 3,
            "exclude_seen": True,
        }
    )
    assert request.sessions[0] == Session(
        ["detail", "view", "add", "hover"], ["sku-1", "", "sku-2", ""], [-1, 1700000000000, 5, -1]
    )
    assert len(request.sessions[1]) == 0
    assert (request.k, request.exclude_seen, request.at_ms) == (3, True, [7, -1])
    assert request.session_ids == ["one", "two"]


def test_defaults():
    request = parse_request({"sessions": [[], []]})
    assert (request.k, request.exclude_seen, request.at_ms, request.session_ids) == (20, False, [-1, -1], None)
    assert parse_request({"sessions": [[], []], "at_ms": 9}).at_ms == [9, 9]
    assert parse_request({"sessions": []}).sessions == []


@pytest.mark.parametrize(
    ("payload", "where"),
    [
        (None, "must be a JSON object"),
        ([], "not a list"),
        ({}, "'sessions' must be a list of sessions, not nothing"),
        ({"sessions": "sku"}, "not a text"),
        ({"sessions": ["sku"]}, r"sessions\[0\] must be a list of events"),
        ({"sessions": [[], [7]]}, r"sessions\[1\]\[0\] must be an event object or a SKU, not a number"),
        ({"sessions": [[""]]}, "empty text"),
        ({"sessions": [[{}]]}, r"sessions\[0\]\[0\]\.action must be a text"),
        ({"sessions": [[{"action": ""}]]}, "action must be a text"),
        ({"sessions": [[{"action": ["add"]}]]}, "not a list"),
        ({"sessions": [[{"action": "add", "sku": 5}]]}, r"\.sku must be a text, not a number"),
        ({"sessions": [[{"action": "add", "timestamp_ms": "now"}]]}, "epoch milliseconds, not a text"),
        ({"sessions": [[{"action": "add", "timestamp_ms": True}]]}, "not true or false"),
        ({"sessions": [[{"action": "add", "timestamp_ms": 1.5}]]}, "not a number"),
        ({"sessions": [[{"action": "add", "timestamp_ms": -1}]]}, "between 0 and"),
        ({"sessions": [[{"action": "add", "timestamp_ms": 2**63}]]}, "between 0 and"),
        ({"sessions": [["a" * 257]]}, "257 characters"),
        ({"sessions": [["\ud800"]]}, "no valid Unicode"),
        ({"sessions": [[]], "k": 0}, "'k' must be between 1 and 1000"),
        ({"sessions": [[]], "k": 1001}, "'k' must be between"),
        ({"sessions": [[]], "k": True}, "whole number"),
        ({"sessions": [[]], "k": 5.0}, "whole number"),
        ({"sessions": [[]], "exclude_seen": "yes"}, "true or false, not a text"),
        ({"sessions": [[]], "session_ids": ["a", "b"]}, "2 ids for 1 sessions"),
        ({"sessions": [[]], "session_ids": [1]}, "list of texts"),
        ({"sessions": [[]], "at_ms": [1, 2]}, "2 times for 1 sessions"),
        ({"sessions": [[]], "at_ms": "now"}, "at_ms must be a time"),
        ({"sessions": [[]], "exlude_seen": True}, "Unknown keys: exlude_seen"),
        ({"sessions": [[]] * 257}, "at most 256"),
        ({"sessions": [["a"] * 10_001]}, "at most 10000"),
        ({"sessions": [["a"] * 9_000] * 6}, "At most 50000 events"),
    ],
)
def test_what_does_not_follow_the_contract_is_a_400_that_says_where(payload, where):
    with pytest.raises(RequestError, match=where) as refusal:
        parse_request(payload)
    assert refusal.value.status == 400


def test_the_longest_session_is_accepted():
    assert len(parse_request({"sessions": [["a"] * DEFAULT_LIMITS.session_events]}).sessions[0]) == 10_000


@pytest.mark.parametrize(
    "body", [b"", None, "", b"{", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000, b'{"k": ' + b"1" * 5_000 + b"}", b"1 2"]
)
def test_bodies_that_are_no_json(body):
    with pytest.raises(RequestError) as refusal:
        parse_json(body)
    assert (refusal.value.status, refusal.value.code) == (400, "invalid_json")


def test_a_body_over_the_limit_is_a_413():
    limits = Limits(body_bytes=10)
    assert parse_json(b'"12345678"', limits) == "12345678"
    with pytest.raises(RequestError) as refusal:
        parse_json(b'"123456789"', limits)
    assert (refusal.value.status, refusal.value.code) == (413, "too_large")
