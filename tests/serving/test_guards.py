"""The guard rails, each run into for real: a server in its own process, clients that are slow, rude, or too many."""

import json
import signal
import socket
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from raw_http import connection, is_closed, post, read_answer
from tiny_models import Server, rank_offline

from bigger_boat.errors import RequestError, ServerError
from bigger_boat.ml.golden import compare_golden
from bigger_boat.serving import client
from bigger_boat.serving.guard import ServerOptions

KEY = "a-key-nobody-guesses"
TIGHT = {
    "connections": 6,
    "head_bytes": 2_000,
    "head_timeout_s": 0.7,
    "body_timeout_s": 0.7,
    "write_timeout_s": 0.7,
    "buffered_bytes": 300_000,
    "queue_sessions": 4,
}
ASKED = {"sessions": [["sku-a"]], "k": 2}


@pytest.fixture(scope="module")
def tight(bundles, start_server) -> Server:
    """A server with little patience and little room."""
    server = start_server("bundle", bundles["first"].directory, guards=TIGHT)
    client.wait_until_up(server.url)
    return server


@pytest.fixture(scope="module")
def locked(bundles, start_server) -> Server:
    """A server that asks for a key."""
    server = start_server("bundle", bundles["first"].directory, api_key=KEY)
    client.wait_until_up(server.url)
    return server


@pytest.fixture(autouse=True)
def _still_answers(request):
    """Whatever a test did to the tight server, it answers the next one as before."""
    yield
    if "tight" in request.fixturenames:
        answer = patiently(request.getfixturevalue("tight"))
        assert compare_golden([rank_offline(["sku-a"], 2)], answer["predictions"]) == []


def patiently(server: Server) -> dict:
    """Ask until there is room again: the server may not have seen yet that the clients of a test are gone."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return client.post_invocations(server.url, None, ASKED)
        except (ServerError, RequestError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def error_code(body: bytes) -> str:
    return json.loads(body)["error"]["code"]


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n", b"POST /invoc", b"POST /invocations HTTP/1.1\r\nHost: x\r\nX-A: b"])
def test_a_head_that_does_not_end_is_given_up(tight, sent):
    with connection(tight.port) as raw:
        raw.sendall(sent)
        status, headers, body = read_answer(raw)
        assert (status, error_code(body), headers["connection"]) == (408, "too_slow", "close")
        assert is_closed(raw)


def test_a_head_that_does_not_end_after_an_answer_is_given_up_too(tight):
    with connection(tight.port) as raw:
        raw.sendall(post("/invocations", ASKED))
        assert read_answer(raw)[0] == 200
        raw.sendall(b"\r\n")
        assert read_answer(raw)[0] == 408


def test_a_head_that_grows_is_cut_off(tight):
    with connection(tight.port) as raw:
        raw.sendall(b"GET /ping HTTP/1.1\r\nX-Long: " + b"a" * 3_000)
        status, _, body = read_answer(raw)
        assert (status, error_code(body)) == (431, "head_too_large")


def test_a_body_that_does_not_come_is_given_up(tight):
    with connection(tight.port) as raw:
        raw.sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        status, _, body = read_answer(raw)
        assert (status, error_code(body)) == (408, "too_slow")


def test_who_does_not_read_the_answer_loses_the_connection(tight):
    """Answers are asked for until the kernel holds no more; the server then waits for its client, but not for ever."""
    asked = post("/invocations", {"sessions": [["sku-a"]] * 256, "k": 5})
    with connection(tight.port, receive_bytes=4_096) as raw:
        with pytest.raises(OSError):  # noqa: PT011  (reset, broken pipe: whichever the kernel says first)
            raw.sendall(asked * 10_000)
        assert client.health(tight.url)["state"] == "serving"


def test_what_is_no_http_gets_an_error_of_the_contract(tight):
    with connection(tight.port) as raw:
        raw.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        status, _, body = read_answer(raw)
        assert (status, error_code(body)) == (400, "invalid_http")


def test_too_many_connections(tight):
    held = []
    try:
        for _ in range(TIGHT["connections"]):
            held.append(socket.create_connection(("127.0.0.1", tight.port), timeout=10))
            held[-1].sendall(b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        with connection(tight.port) as raw:
            status, headers, body = read_answer(raw)
            assert (status, error_code(body), headers["retry-after"]) == (503, "overloaded", "1")
    finally:
        for raw in held:
            raw.close()


def test_an_idle_connection_makes_room_for_a_new_one(tight):
    """Connections kept alive between requests are no reason to turn anybody away."""
    held = [socket.create_connection(("127.0.0.1", tight.port), timeout=10) for _ in range(TIGHT["connections"])]
    try:
        for raw in held:
            raw.sendall(post("/invocations", ASKED))
            assert read_answer(raw)[0] == 200
        with connection(tight.port) as raw:
            raw.sendall(post("/invocations", ASKED))
            assert read_answer(raw)[0] == 200
    finally:
        for raw in held:
            raw.close()


def test_large_bodies_have_a_common_limit(tight):
    with connection(tight.port) as raw, connection(tight.port) as other:
        body = b" " * 200_000
        for each in (raw, other):
            each.sendall(post("/invocations", body + b"  ")[:-2])
        answers = [read_answer(each) for each in (raw, other)]
    assert sorted(status for status, _, _ in answers) == [408, 503]
    assert next(headers for status, headers, _ in answers if status == 503)["retry-after"] == "1"


def test_a_full_queue_says_when_to_come_again(bundles, start_server):
    """One session may wait; 24 clients ask for long ones at once. Whoever is turned away hears it, nobody hangs."""
    server = start_server("bundle", bundles["first"].directory, guards={"queue_sessions": 1})
    client.wait_until_up(server.url)
    asked = post("/invocations", {"sessions": [["sku-a"] * 3_000], "k": 2})

    def ask(_number: int) -> tuple[int, dict[str, str], bytes]:
        with connection(server.port) as raw:
            raw.sendall(asked)
            return read_answer(raw)

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, range(120)))
    declined = [(headers["retry-after"], error_code(body)) for status, headers, body in answers if status == 503]
    assert {status for status, _, _ in answers} == {200, 503}
    assert set(declined) == {("1", "overloaded")}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X_Api_Key": "wrong"}, 401),
        ({"Authorization": f"Basic {KEY}"}, 401),
        ({"X_Api_Key": KEY}, 200),
        ({"Authorization": f"Bearer {KEY}"}, 200),
    ],
)
def test_the_key(locked, headers, status):
    with connection(locked.port) as raw:
        raw.sendall(post("/invocations", ASKED, **headers))
        answered, _, body = read_answer(raw)
    assert answered == status
    assert status == 200 or error_code(body) == "unauthorized"


def test_probes_need_no_key_and_the_rest_does(locked):
    for path, status in (("/live", 200), ("/ready", 200), ("/ping", 200), ("/health", 200), ("/metrics", 401)):
        with connection(locked.port) as raw:
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert read_answer(raw)[0] == status, path
    with pytest.raises(RequestError, match="Send the API key"):
        client.ask(locked.url, "/openapi.json")
    assert client.ask(locked.url, "/openapi.json", api_key=KEY)["openapi"] == "3.1.0"


def test_the_key_is_in_no_log_and_no_text(locked):
    client.post_invocations(locked.url, None, ASKED, api_key=KEY)
    assert KEY not in locked.log()
    assert KEY not in repr(ServerOptions(api_key=KEY))


def test_a_request_is_one_line_of_json_without_what_the_shopper_did(locked, bundles):
    body = json.dumps({"sessions": [["a-secret-taste"], []], "session_ids": ["mary@example.com", "x"]}).encode()
    request = urllib.request.Request(f"{locked.url}/invocations", body, {"X-Api-Key": KEY, "X-Request-Id": "shop-7"})
    began = time.monotonic()
    with urllib.request.urlopen(request) as response:
        assert response.headers["X-Request-Id"] == "shop-7"
    (line,) = locked.wait_for_log_lines(request_id="shop-7")
    passed_ms = (time.monotonic() - began) * 1000
    known = {"event": "request", "route": "/invocations", "method": "POST", "status": 200, "sessions": 2}
    named = {"endpoint": "recommendation", "model": "tiny", "version": bundles["first"].version}
    assert {**known, **named}.items() <= line.items()
    assert 0 < line["latency_ms"] <= passed_ms
    assert not {"secret", "mary"} & set(locked.log().replace("-", " ").replace("@", " ").split())


def test_metrics_count_what_was_answered_and_labels_stay_few(locked, bundles):
    def metrics() -> list[str]:
        request = urllib.request.Request(f"{locked.url}/metrics", headers={"X-Api-Key": KEY})
        with urllib.request.urlopen(request) as response:
            return response.read().decode().splitlines()

    def answered() -> float:
        name = 'bigger_boat_requests_total{method="POST",route="/invocations",status="200"}'
        return next((float(line.split()[-1]) for line in metrics() if line.startswith(name)), 0.0)

    before = answered()
    for _ in range(3):
        client.post_invocations(locked.url, None, ASKED, api_key=KEY)
    assert answered() == before + 3
    for number in range(30):
        with pytest.raises(RequestError):
            client.ask(locked.url, f"/nothing/{number}", api_key=KEY)
    lines = metrics()
    routes = {line.split('route="')[1].split('"')[0] for line in lines if 'route="' in line}
    assert routes <= {"/invocations", "/health", "/metrics", "/openapi.json", "/live", "/ready", "/ping", "other"}
    serving = f'bigger_boat_serving{{endpoint="recommendation",model="tiny",version="{bundles["first"].version}"}} 1.0'
    assert serving in lines
    assert any(line.startswith("process_resident_memory_bytes") for line in lines)


def test_what_runs_is_answered_before_the_end_and_the_exit_code_is_0(bundles, start_server):
    """32 requests are under way when SIGTERM comes; each gets its answer."""
    server = start_server("bundle", bundles["first"].directory)
    client.wait_until_up(server.url)
    asked = post("/invocations", {"sessions": [["sku-a"] * 1_000] * 10, "k": 2})
    under_way = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(32)]
    try:
        for raw in under_way:
            raw.sendall(asked[:-1])
        client.health(server.url)  # behind them: the server has all the heads
        server.process.send_signal(signal.SIGTERM)
        for raw in under_way:
            raw.sendall(asked[-1:])
        assert [read_answer(raw)[0] for raw in under_way] == [200] * 32
    finally:
        for raw in under_way:
            raw.close()
    assert server.wait() == 0


def test_a_warning_where_other_machines_can_reach_it(bundles, tmp_path, caplog, monkeypatch):
    from bigger_boat.serving import server as module

    listener = socket.create_server(("0.0.0.0", 0))
    with listener, caplog.at_level("WARNING"):
        module._warn_if_reachable(listener, "0.0.0.0", ServerOptions())
        module._warn_if_reachable(listener, "0.0.0.0", ServerOptions(api_key=KEY))
    with socket.create_server(("127.0.0.1", 0)) as inside:
        module._warn_if_reachable(inside, "127.0.0.1", ServerOptions())
    assert [record.getMessage() for record in caplog.records] == [
        "The server can be reached from other machines (0.0.0.0), and no API key is asked for.",
        "The server can be reached from other machines (0.0.0.0), with the API key.",
    ]
