"""The real server in its own process, asked over real sockets."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from tiny_models import SERVER, copy_bundle, flip_byte, purchase_probability, rank_offline

from bigger_boat.errors import BundleError, RequestError, ServerError
from bigger_boat.ml.golden import compare_golden
from bigger_boat.resources.local_endpoint_host import LocalEndpointHost
from bigger_boat.serving import client
from bigger_boat.serving.published import endpoints_id, read_server
from bigger_boat.serving.server import private_server


@pytest.fixture(scope="module")
def server(tmp_path_factory, bundles, start_server):
    """One server over both endpoints, for the questions that change nothing."""
    root = tmp_path_factory.mktemp("data") / "endpoints"
    host = LocalEndpointHost(endpoints_dir=str(root))
    for name, bundle in (("recommendation", bundles["first"]), ("intent", bundles["intent"])):
        assert host.publish(name, bundle.directory).state == "waiting"
    server = start_server("endpoints", root)
    client.wait_until_up(server.url, endpoints_id=endpoints_id(root))
    return server


def fetch(url: str, method: str = "GET", body: bytes | None = None, headers: dict | None = None):
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_the_endpoint_contract(server, bundles):
    sessions = [["sku-a", "sku-d"], [], ["nobody"]]
    answer = client.post_invocations(server.url, "recommendation", {"sessions": sessions, "k": 3})
    assert (answer["model"], answer["version"]) == ("tiny", bundles["first"].version)
    assert compare_golden([rank_offline(session, 3) for session in sessions], answer["predictions"]) == []
    asked = {"sessions": [["start", {"action": "add"}, {"action": "add"}, "end"]]}
    answer = client.post_invocations(server.url, "intent", asked)
    assert answer["predictions"][0]["purchase_probability"] == pytest.approx(purchase_probability(2), abs=1e-6)


def test_the_originals_forms(server, bundles):
    began = time.monotonic()
    answer = client.ask(server.url, "/predict?x=start,view,detail,add,view,end")
    passed_s = time.monotonic() - began
    assert answer["prediction"] == pytest.approx(purchase_probability(1), abs=1e-6)
    assert answer["version"] == bundles["intent"].version
    assert 0 < answer["time"] <= passed_s
    answer = client.ask(server.url, "/predict?session=sku-a,sku-%C3%A9")
    assert answer["prediction"] == rank_offline(["sku-a", "sku-é"])["skus"]
    assert client.ask(server.url, "/predict")["fallback"] is True


def test_request_ids_are_kept_or_made(server):
    body = b'{"sessions": [[]]}'
    url = f"{server.url}/endpoints/intent/invocations"
    _, headers, content = fetch(url, "POST", body, {"X-Request-Id": "shop-42"})
    assert headers["x-request-id"] == json.loads(content)["request_id"] == "shop-42"
    _, headers, content = fetch(url, "POST", body, {"X-Request-Id": "a b;c"})
    assert headers["x-request-id"] == json.loads(content)["request_id"] != "a b;c"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/endpoints/other/invocations", b'{"sessions": []}', 404, "not_found"),
        ("GET", "/endpoints/intent/invocations", None, 405, "method_not_allowed"),
        ("POST", "/endpoints/intent/invocations", b"{", 400, "invalid_json"),
        ("POST", "/endpoints/intent/invocations", b"", 400, "invalid_json"),
        ("POST", "/endpoints/intent/invocations", b"\xff", 400, "invalid_json"),
        ("POST", "/endpoints/intent/invocations", b"{}", 400, "invalid_request"),
        ("POST", "/endpoints/intent/invocations", b" " * (4 * 1024 * 1024 + 1), 413, "too_large"),
        ("POST", "/v1/intent", b" " * (4 * 1024 * 1024 + 1), 413, "too_large"),
        ("POST", "/ping", b"", 405, "method_not_allowed"),
        ("GET", "/nothing/here", None, 404, "not_found"),
        ("DELETE", "/predict", None, 405, "method_not_allowed"),
        ("GET", "/predict?session=%ff", None, 400, "invalid_request"),
    ],
)
def test_refusals(server, method, path, body, status, code):
    answered, headers, content = fetch(server.url + path, method, body)
    assert (answered, json.loads(content)["error"]["code"]) == (status, code)
    assert headers["content-type"] == "application/json"


def test_a_body_without_a_length_is_limited_too(server):
    address = server.url.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=10)
    chunks = (b" " * 65536 for _ in range(65))
    connection.request("POST", "/endpoints/intent/invocations", body=chunks, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_health_says_what_serves_and_whose_server_it_is(server, bundles):
    state = client.health(server.url)
    assert state["endpoints_id"] == endpoints_id(server.directory)
    assert state["pid"] == server.process.pid
    assert state["endpoints"]["intent"]["version"] == bundles["intent"].version
    assert state["endpoints"]["recommendation"]["state"] == "serving"
    assert read_server(server.directory)["url"] == server.url
    assert fetch(f"{server.url}/ping")[0] == 200


def test_cors(server):
    _, headers, _ = fetch(f"{server.url}/predict", headers={"Origin": "https://shop.example"})
    assert headers["access-control-allow-origin"] == "https://shop.example"
    _, headers, _ = fetch(f"{server.url}/predict", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in headers


def test_concurrent_answers_are_never_mixed(server):
    sessions = [["sku-a"], ["sku-b"], ["sku-c", "sku-d"], ["sku-é", "sku-a"], []]

    def ask(number: int) -> bool:
        session = sessions[number % len(sessions)]
        k = number % 5 + 1
        answer = client.post_invocations(server.url, "recommendation", {"sessions": [session], "k": k})
        return compare_golden([rank_offline(session, k)], answer["predictions"]) == []

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(400)))


def test_a_second_server_for_the_same_directory_is_refused(server):
    command = [sys.executable, "-c", SERVER, "endpoints", str(server.directory), "0", "{}"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert "Another server already serves" in second.stderr


def test_a_taken_port_is_named(server, tmp_path):
    port = server.url.rpartition(":")[2]
    command = [sys.executable, "-c", SERVER, "endpoints", str(tmp_path), port, "{}"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in second.stderr


def test_the_client_recognises_somebody_elses_server(server):
    with pytest.raises(ServerError, match="another data directory's server"):
        client.wait_until_up(server.url, 5, endpoints_id="0123456789abcdef")


def test_the_client_says_when_nothing_answers():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ServerError, match="No server answers"):
        client.wait_until_up(f"http://127.0.0.1:{port}", 0.3)
    with pytest.raises(ServerError, match="No server answers"):
        client.ask(f"http://127.0.0.1:{port}", "/health")


def test_one_bundle_as_in_the_container(bundles, start_server):
    """Liveness at once, 503 while loading, then the contract; SIGTERM: finish what runs, then exit 0."""
    server = start_server("bundle", bundles["first"].directory)
    status, _, content = fetch(f"{server.url}/invocations", "POST", b'{"sessions": [[]]}')
    assert (status, json.loads(content)["error"]["code"]) == (503, "loading")
    assert fetch(f"{server.url}/ping")[0] == 503
    client.wait_until_up(server.url)
    assert fetch(f"{server.url}/ping")[0] == 200
    began_ms = int(time.time() * 1000)
    answer = client.post_invocations(server.url, None, {"sessions": [["sku-a"]], "k": 2})
    assert compare_golden([rank_offline(["sku-a"], 2)], answer["predictions"]) == []
    schemas = client.ask(server.url, "/openapi.json")["components"]["schemas"]
    assert set(answer) == set(schemas["Answer"]["anyOf"][0]["properties"]) > {"answered_at_ms", "latency_ms"}
    assert began_ms <= answer["answered_at_ms"] <= time.time() * 1000
    assert answer["latency_ms"] > 0
    assert fetch(f"{server.url}/predict")[0] == 404
    with pytest.raises(RequestError, match="must be a list of sessions"):
        client.post_invocations(server.url, None, {})

    body = json.dumps({"sessions": [["sku-a"] * 2_000] * 20, "k": 2}).encode()
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=20) as connection:
        head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[:1000])
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        connection.sendall(body[1000:])
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b'"fallback":false') == 20
    assert server.wait() == 0


def test_one_bundle_that_was_altered_ends_the_server(bundles, start_server, tmp_path):
    directory = copy_bundle(bundles["first"], tmp_path / "bundle")
    flip_byte(directory / "1" / "saved_model.pb")
    server = start_server("bundle", directory)
    assert server.wait(60) == 1
    assert "was altered" in server.log()


def test_one_bundle_that_disagrees_with_its_golden_answers_ends_the_server(bundles):
    with (
        pytest.raises(BundleError, match="differ from the offline ones"),
        private_server(bundles["disagrees"].directory, verify_golden=True),
    ):
        pytest.fail("it must not become ready")


def test_the_server_ends_when_its_directory_is_gone(bundles, start_server, tmp_path):
    root = tmp_path / "endpoints"
    server = start_server("endpoints", root)
    client.wait_until_up(server.url)
    status, _, content = fetch(f"{server.url}/predict?x=view")
    assert (status, json.loads(content)["error"]["code"]) == (503, "no_model")
    root.rename(tmp_path / "elsewhere")
    root.mkdir()  # made again under the same name: still not the directory it serves
    assert server.wait(120) == 0
    assert read_server(root) is None


def test_unmodified_boto3_asks_the_local_server(server, bundles, monkeypatch):
    """The code of a Lambda function runs against the laptop: only an environment variable says where."""
    import boto3
    from botocore.exceptions import ClientError

    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    runtime = boto3.client("sagemaker-runtime", region_name="eu-west-1")

    def invoke(name: str, request: dict) -> dict:
        asked = {"EndpointName": name, "ContentType": "application/json", "Body": json.dumps(request)}
        return json.loads(runtime.invoke_endpoint(**asked)["Body"].read())

    answer = invoke("recommendation", {"sessions": [["sku-a"]], "k": 2})
    assert answer["version"] == bundles["first"].version
    assert compare_golden([rank_offline(["sku-a"], 2)], answer["predictions"]) == []
    assert 0 < invoke("intent", {"sessions": [[{"action": "add"}]]})["predictions"][0]["purchase_probability"] < 1
    with pytest.raises(ClientError) as declined:
        invoke("recommendation", {"sessions": "none"})
    assert declined.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
