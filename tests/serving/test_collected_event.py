"""What may be collected: good events become rows that landing takes, bad ones are told with index and reason."""

from datetime import UTC, datetime

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigger_boat.data.source_batches import Batch
from bigger_boat.data.source_columns import SCHEMAS
from bigger_boat.data.source_rows import validate
from bigger_boat.errors import RequestError
from bigger_boat.serving.collected_event import event_of_query, judge, parse_events

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
VIEW = {"event_id": "e1", "session_id": "s1", "event_type": "pageview", "hashed_url": "u1"}
ADD = {**VIEW, "event_type": "event_product", "product_action": "add", "product_sku_hash": "p1"}
SEARCH = {"event_id": "e2", "session_id": "s1", "event_type": "search", "clicked_skus_hash": ["p1", "p2"]}


def reasons(*events: object, trust_time: bool = False) -> list[str]:
    return [bad["reason"] for bad in judge(events, NOW_MS, trust_time=trust_time).rejected]


def rows(*events: object, trust_time: bool = False) -> list[dict]:
    return [orjson.loads(kept.line) for kept in judge(events, NOW_MS, trust_time=trust_time).kept]


def test_good_events_become_the_sources_rows():
    view, add, search = rows(VIEW, {**ADD, "request_id": "r-1"}, {**SEARCH, "query_vector": [0.5] * 50})
    assert view["table"] == add["table"] == "browsing"
    assert (view["event_type"], view["product_action"], view["hashed_url"]) == ("pageview", None, "u1")
    assert (add["session_id_hash"], add["product_action"], add["product_sku_hash"]) == ("s1", "add", "p1")
    assert (view["request_id"], add["request_id"]) == (None, "r-1")
    assert (search["table"], search["clicked_skus_hash"], search["query_vector"]) == (
        "search",
        ["p1", "p2"],
        [0.5] * 50,
    )


def test_the_time_is_the_servers_unless_theirs_is_trusted():
    theirs = {**VIEW, "timestamp_ms": NOW_MS - 86_400_000}
    assert [row["server_timestamp_epoch_ms"] for row in rows(theirs, ADD)] == [NOW_MS - 1, NOW_MS]
    trusted = rows(theirs, ADD, {**ADD, "timestamp_ms": None}, trust_time=True)
    assert [row["server_timestamp_epoch_ms"] for row in trusted] == [NOW_MS - 86_400_000, NOW_MS - 1, NOW_MS]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ([], "not_an_object"),
        ("pageview", "not_an_object"),
        ({}, "event_type_unknown"),
        ({**VIEW, "event_type": "click"}, "event_type_unknown"),
        ({**VIEW, "product_sku": "p1"}, "field_unknown"),
        ({**SEARCH, "hashed_url": "u"}, "field_unknown"),
        ({**VIEW, "event_id": None}, "event_id_missing"),
        ({**VIEW, "event_id": 7}, "event_id_malformed"),
        ({**VIEW, "session_id": ""}, "session_id_missing"),
        ({**VIEW, "session_id": "null"}, "session_id_malformed"),
        ({**VIEW, "session_id": "a b"}, "session_id_malformed"),
        ({**VIEW, "session_id": "é" * 65}, "session_id_malformed"),
        ({**VIEW, "request_id": "'"}, "request_id_malformed"),
        ({**VIEW, "product_action": "add"}, "product_action_on_pageview"),
        ({**ADD, "product_action": None}, "product_action_missing"),
        ({**ADD, "product_action": "buy"}, "product_action_unknown"),
        ({**ADD, "product_action": ["add"]}, "product_action_unknown"),
        ({**ADD, "product_sku_hash": None}, "product_sku_hash_missing"),
        ({**VIEW, "hashed_url": "a b"}, "url_malformed"),
        ({**SEARCH, "query_vector": [1.0] * 49}, "query_vector_invalid"),
        ({**SEARCH, "query_vector": [1e39] * 50}, "query_vector_invalid"),
        ({**SEARCH, "clicked_skus_hash": "p1"}, "clicked_skus_hash_invalid"),
        ({**SEARCH, "product_skus_hash": ["p1", ""]}, "product_skus_hash_invalid"),
        ({**SEARCH, "product_skus_hash": [f"{n:0100d}" for n in range(900)]}, "event_too_large"),
    ],
)
def test_a_bad_event_is_told_with_its_reason_and_the_good_ones_beside_it_are_kept(event, reason):
    judged = judge([VIEW, event, ADD], NOW_MS, trust_time=False)
    assert [(bad["index"], bad["reason"]) for bad in judged.rejected] == [(1, reason)]
    assert len(judged.kept) == 2


@pytest.mark.parametrize(
    ("time", "reason"),
    [
        (1_700_000_000, "timestamp_too_early"),
        (NOW_MS + 700_000, "timestamp_in_future"),
        (True, "timestamp_not_a_number"),
        ("now", "timestamp_not_a_number"),
        (NOW_MS - 0.5, "timestamp_not_a_number"),
    ],
)
def test_a_trusted_time_is_judged(time, reason):
    assert reasons({**VIEW, "timestamp_ms": time}, trust_time=True) == [reason]
    assert reasons({**VIEW, "timestamp_ms": time}) == []


def test_bodies_are_an_object_a_list_or_lines():
    one, many = orjson.dumps(VIEW), orjson.dumps([VIEW, ADD])
    assert parse_events(one, 10) == [VIEW]
    assert parse_events(many, 10) == [VIEW, ADD]
    lines = parse_events(one + b"\n{half\n\n" + one, 10)
    assert reasons(*lines) == ["invalid_json"]
    assert len(rows(*lines)) == 2
    for body, code, status in [
        (b"", "invalid_json", 400),
        (b"{", "invalid_json", 400),
        (b"[]", "no_events", 400),
        (many, "too_many_events", 413),
        (one + b"\n" + one, "too_many_events", 413),
    ]:
        with pytest.raises(RequestError) as raised:
            parse_events(body, 1)
        assert (raised.value.code, raised.value.status) == (code, status)


def test_a_pixels_query_is_an_event():
    query = b"event_id=e2&session_id=s1&event_type=search&clicked_skus_hash=p1,p2&hashed_url=&_=17&timestamp_ms=5"
    assert event_of_query(query) == {**SEARCH, "timestamp_ms": 5}
    for bad in (b"event_id=%ff", b"timestamp_ms=soon", b"query_vector=[1,", "é".encode()):
        with pytest.raises(RequestError):
            event_of_query(bad)


texts = st.text(max_size=12) | st.sampled_from(["e1", "nan", "a" * 129, "p,1", "x\u2028y", "\x1c", "\x85"])
fields = st.none() | st.integers(-5, 2**60) | texts | st.lists(texts, max_size=3) | st.lists(st.floats(), max_size=50)


@given(
    st.sampled_from([VIEW, ADD, SEARCH]),
    st.dictionaries(st.sampled_from([*ADD, *SEARCH, "query_vector", "timestamp_ms", "request_id"]), fields, max_size=3),
)
@settings(max_examples=300, deadline=None)
def test_what_is_kept_is_what_landing_takes(event, changes):
    for kept in judge([event | changes], NOW_MS, trust_time=True).kept:
        row = orjson.loads(kept.line)
        schema = SCHEMAS[row["table"]]
        frame = pl.DataFrame({name: [row[name]] for name in schema}, schema=schema)
        assert validate(row["table"], Batch(frame, np.array([1])), "collect", 0, NOW).bad.is_empty(), row
