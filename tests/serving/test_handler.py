"""The public API as a truth table by hand, and fuzzed. ``invoke`` records what the handler asks for."""

import json
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bigger_boat
from bigger_boat.errors import RequestError
from bigger_boat.serving.contract import Limits, parse_request
from bigger_boat.serving.handler import Response, handle

VERSION = "20261123T093012123Z-ab12cd34"


class Endpoints:
    """Answers by the contract, and remembers what it was asked."""

    def __init__(self):
        self.asked: list[tuple[str, dict]] = []

    def __call__(self, endpoint: str, request: dict) -> dict:
        self.asked.append((endpoint, request))
        sessions = parse_request(request).sessions
        if endpoint == "intent":
            predictions = [{"purchase_probability": 0.25, "unknown_actions": []} for _ in sessions]
        else:
            predictions = [
                {"skus": ["p", "q"], "scores": [0.9, 0.5], "fallback": not session.skus, "unknown_skus": []}
                for session in sessions
            ]
        return {"model": "tiny", "version": VERSION, "request_id": "r1", "predictions": predictions}


@pytest.fixture
def endpoints():
    return Endpoints()


def ask(invoke, method="GET", path="/predict", query=None, body=None, headers=None, **more) -> tuple[int, dict]:
    response = handle(method, path, query, headers or {}, body, invoke, clock=lambda: 1.0, **more)
    return response.status, json.loads(response.body) if response.body else None


SHOWN = {"model": "tiny", "version": VERSION, "request_id": "r1", "time": 0.0}
INTENT = {"prediction": 0.25, **SHOWN, "unknown_actions": []}
PRODUCTS = {"prediction": ["p", "q"], **SHOWN, "unknown_skus": []}


def events(*actions):
    return {"sessions": [[{"action": action} for action in actions]]}


@pytest.mark.parametrize(
    ("query", "endpoint", "request_sent", "answer"),
    [
        ("x=start,view,add,view,end", "intent", events("start", "view", "add", "view", "end"), INTENT),
        ({"x": "start,view,end"}, "intent", events("start", "view", "end"), INTENT),
        ("session=view,detail,add", "intent", events("view", "detail", "add"), INTENT),
        ("session=start,pageview", "intent", events("start", "pageview"), INTENT),
        ("x=start,end", "intent", events("start", "end"), INTENT),
        ("session=sku1,sku2", "recommendation", {"sessions": [["sku1", "sku2"]]}, {**PRODUCTS, "fallback": False}),
        ("x=sku1", "recommendation", {"sessions": [["sku1"]]}, {**PRODUCTS, "fallback": False}),
        ("session=start,sku1,end", "recommendation", {"sessions": [["sku1"]]}, {**PRODUCTS, "fallback": False}),
        ("session=view,sku1", "recommendation", {"sessions": [["view", "sku1"]]}, {**PRODUCTS, "fallback": False}),
        ("session=a%2Cb,%20c%20,,", "recommendation", {"sessions": [["a", "b", "c"]]}, {**PRODUCTS, "fallback": False}),
        ("session=", "recommendation", {"sessions": [[]]}, {**PRODUCTS, "fallback": True}),
        ("x=", "recommendation", {"sessions": [[]]}, {**PRODUCTS, "fallback": True}),
        ("", "recommendation", {"sessions": [[]]}, {**PRODUCTS, "fallback": True}),
        (None, "recommendation", {"sessions": [[]]}, {**PRODUCTS, "fallback": True}),
        ({"session": None}, "recommendation", {"sessions": [[]]}, {**PRODUCTS, "fallback": True}),
        (
            "session=s&k=5&exclude_seen=true",
            "recommendation",
            {"sessions": [["s"]], "k": 5, "exclude_seen": True},
            {**PRODUCTS, "fallback": False},
        ),
    ],
)
def test_the_originals_forms(endpoints, query, endpoint, request_sent, answer):
    assert ask(endpoints, query=query) == (200, answer)
    assert endpoints.asked == [(endpoint, request_sent)]


@pytest.mark.parametrize("path", ["/v1/intent", "/v1/recommendations"])
def test_posted_requests_go_to_their_endpoint_as_they_are(endpoints, path):
    request = {"sessions": [["a"], []], "k": 2}
    status, answer = ask(endpoints, "POST", path, body=json.dumps(request))
    assert (status, answer["version"], len(answer["predictions"])) == (200, VERSION, 2)
    assert endpoints.asked == [("intent" if path == "/v1/intent" else "recommendation", request)]


def test_health():
    assert ask(None, path="/health") == (200, {"status": "ok"})
    assert ask(None, path="/health/", health=lambda: {"status": "starting"}) == (200, {"status": "starting"})


@pytest.mark.parametrize(
    ("method", "path", "query", "body", "status", "code"),
    [
        ("GET", "/", None, None, 404, "not_found"),
        ("GET", "/v2/intent", None, None, 404, "not_found"),
        ("POST", "/predict", None, b"{}", 405, "method_not_allowed"),
        ("HEAD", "/predict", None, None, 405, "method_not_allowed"),
        ("GET", "/v1/intent", None, None, 405, "method_not_allowed"),
        ("DELETE", "/health", None, None, 405, "method_not_allowed"),
        ("POST", "/v1/intent", None, None, 400, "invalid_json"),
        ("POST", "/v1/intent", None, b"not json", 400, "invalid_json"),
        ("POST", "/v1/intent", None, b"[]", 400, "invalid_request"),
        ("POST", "/v1/recommendations", None, b'{"sessions": [[1]]}', 400, "invalid_request"),
        ("POST", "/v1/recommendations", None, b'{"sessions": [[]], "k": 0}', 400, "k_out_of_range"),
        ("POST", "/v1/recommendations", None, b'"' + b"x" * 300 + b'"', 413, "too_large"),
        ("GET", "/predict", "x=view&session=a", None, 400, "invalid_request"),
        ("GET", "/predict", "session=a&k=ten", None, 400, "k_out_of_range"),
        ("GET", "/predict", "session=a&k=0", None, 400, "k_out_of_range"),
        ("GET", "/predict", "session=a&exclude_seen=maybe", None, 400, "invalid_request"),
        ("GET", "/predict", "session=%ff", None, 400, "invalid_request"),
        ("GET", "/predict", {"session": "\ud800"}, None, 400, "invalid_request"),
        ("GET", "/predict", "&".join(f"a{i}=1" for i in range(101)), None, 400, "invalid_request"),
        ("GET", "/predict", "session=" + "a" * 257, None, 400, "invalid_request"),
    ],
)
def test_refusals_say_why_and_reach_no_model(endpoints, method, path, query, body, status, code):
    answered, payload = ask(endpoints, method, path, query, body, limits=Limits(body_bytes=200))
    assert (answered, payload["error"]["code"]) == (status, code)
    assert set(payload) == {"error"}
    assert set(payload["error"]) == {"code", "message"}
    assert endpoints.asked == []


def test_an_endpoint_without_a_model_is_a_503():
    def invoke(endpoint, request):
        raise RequestError("The intent endpoint has no model yet.", "no_model", 503)

    assert ask(invoke, query="x=view") == (
        503,
        {"error": {"code": "no_model", "message": "The intent endpoint has no model yet."}},
    )


@pytest.mark.parametrize("fault", [ValueError("secret detail"), KeyError("predictions"), MemoryError()])
def test_a_failing_endpoint_shows_no_detail(fault):
    def invoke(endpoint, request):
        raise fault

    status, payload = ask(invoke, query="x=view")
    assert (status, payload["error"]["code"]) == (502, "endpoint_failed")
    assert "secret" not in json.dumps(payload)


def test_an_answer_with_a_nan_is_not_passed_on(endpoints):
    def invoke(endpoint, request):
        answer = endpoints(endpoint, request)
        answer["predictions"][0]["purchase_probability"] = float("nan")
        return answer

    assert ask(invoke, query="x=view")[0] == 502


@pytest.mark.parametrize(
    ("allowed", "origin", "granted"),
    [
        ((), "https://shop.example", None),
        (["https://shop.example"], "https://shop.example", "https://shop.example"),
        (["https://shop.example"], "https://evil.example", None),
        (["*"], "https://any.example", "https://any.example"),
        (["https://shop.example"], None, None),
    ],
)
def test_cors_is_by_argument(endpoints, allowed, origin, granted):
    headers = {"ORIGIN": origin} if origin else {}
    for method in ("GET", "OPTIONS"):
        response = handle(method, "/predict", "x=view", headers, None, endpoints, allowed_origins=allowed)
        assert response.status == (200 if method == "GET" else 204)
        assert response.headers.get("Access-Control-Allow-Origin") == granted
    refused = handle("GET", "/nothing", None, headers, None, endpoints, allowed_origins=allowed)
    assert refused.headers.get("Access-Control-Allow-Origin") == granted


def test_a_405_names_the_method(endpoints):
    assert handle("PUT", "/predict", None, None, None, endpoints).headers["Allow"] == "GET"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
near_events = st.one_of(
    st.text(max_size=8),
    st.fixed_dictionaries(
        {"action": st.sampled_from(["view", "add", "end", "?"]) | json_values},
        optional={"sku": st.text(max_size=8) | json_values, "timestamp_ms": st.integers() | json_values},
    ),
)
near_requests = st.fixed_dictionaries(
    {"sessions": st.lists(st.lists(near_events, max_size=4), max_size=3) | json_values},
    optional={
        "k": st.integers(-2, 1200) | json_values,
        "exclude_seen": st.booleans() | json_values,
        "at_ms": json_values,
    },
)
bodies = st.one_of(
    st.none(), st.binary(max_size=60), st.text(max_size=60), json_values.map(json.dumps), near_requests.map(json.dumps)
)
queries = st.one_of(
    st.none(),
    st.text(max_size=60),
    st.text(alphabet=string.printable, max_size=60).map(lambda text: f"session={text}"),
    st.dictionaries(st.sampled_from(["x", "session", "k", "exclude_seen", "?"]), st.none() | st.text(max_size=30)),
)
paths = st.sampled_from(["/predict", "/v1/intent", "/v1/recommendations", "/health", "/predict/"]) | st.text(
    max_size=20
)


@settings(max_examples=1000, deadline=None)
@given(st.sampled_from(["GET", "POST", "OPTIONS", "HEAD", "PUT"]) | st.text(max_size=8), paths, queries, bodies)
def test_whatever_comes_is_answered(method, path, query, body):
    response = handle(method, path, query, {"Origin": "x"}, body, Endpoints(), allowed_origins=["*"])
    assert isinstance(response, Response)
    assert response.status in {200, 204, 400, 404, 405, 413}
    if response.status == 204:
        return
    payload = json.loads(response.body, parse_constant=pytest.fail)
    assert ("error" in payload) == (response.status != 200)


def test_the_handler_needs_the_standard_library_only():
    """-I -S: an interpreter that sees no installed package at all, as Lambda does."""
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import bigger_boat.serving.handler
print(sorted({name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names) - {"__main__"}))
"""
    root = str(Path(bigger_boat.__file__).parents[1])
    shown = subprocess.run([sys.executable, "-I", "-S", "-c", code, root], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "['bigger_boat']"
