"""The whole HTTP surface, fuzzed: by schemathesis over the description that the server publishes, by hypothesis, and by
18,000 spoilt requests. No fault of the server's, no hang, no leak; afterwards it answers as before."""

import asyncio
import json
import subprocess
import sys

import psutil
import pytest
from fuzz_server import IMPATIENT, Fuzzing
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_http import connection, post, read_answer
from tiny_models import Server, rank_offline, serve_tiny_models

from bigger_boat.ml.golden import compare_golden
from bigger_boat.serving import client

SPOILT, AT_LEAST = 20_500, 20_000
CHECKS = "not_a_server_error,status_code_conformance,response_schema_conformance,content_type_conformance"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=12), inner, max_size=5),
    max_leaves=20,
)
REQUESTS = st.fixed_dictionaries({"sessions": JSON}, optional={"k": JSON, "at_ms": JSON, "exclude_seen": JSON})

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    with serve_tiny_models(tmp_path_factory.mktemp("fuzzed"), guards=IMPATIENT) as server:
        yield server


def answered(server: Server) -> float:
    """Return how many requests the server has answered by its own count."""
    with connection(server.port) as raw:
        raw.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        lines = read_answer(raw)[2].decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("bigger_boat_requests_total"))


def still_right(server: Server) -> bool:
    answer = client.post_invocations(server.url, "recommendation", {"sessions": [["sku-a", "sku-d"]], "k": 3})
    return compare_golden([rank_offline(["sku-a", "sku-d"], 3)], answer["predictions"]) == []


def test_schemathesis_finds_nothing(fuzzed, tmp_path):
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{fuzzed.url}/openapi.json", "--no-color"]
    command += ["--phases", "coverage,fuzzing", "--checks", CHECKS, "--max-examples", "40", "--seed", "1"]
    told = subprocess.run([*command, "--request-timeout", "30"], capture_output=True, text=True, cwd=tmp_path)
    assert told.returncode == 0, told.stdout[-5000:]
    assert "11 selected / 11 total" in told.stdout
    assert still_right(fuzzed)


@given(payload=JSON | REQUESTS, name=st.sampled_from(["recommendation", "intent"]))
@settings(max_examples=400, deadline=None)
def test_any_json_is_answered(fuzzed, payload, name):
    with connection(fuzzed.port) as raw:
        raw.sendall(post(f"/endpoints/{name}/invocations", payload))
        status, headers, body = read_answer(raw)
    assert status in (200, 400), (status, body)
    assert headers["content-type"] == "application/json"
    assert ("predictions" if status == 200 else "error") in json.loads(body)


def test_twenty_thousand_requests(fuzzed):
    """The server has answered at least 20,000 requests, by its own count, and has not grown by them."""
    process = psutil.Process(fuzzed.process.pid)
    fuzzing = Fuzzing(fuzzed.port)
    asyncio.run(fuzzing.run(2_000, seed=1))
    files = fuzzed.open_files_at_rest()
    memory, threads = process.memory_info().rss, process.num_threads()
    asyncio.run(fuzzing.run(SPOILT - 2_000, seed=2))
    assert fuzzing.faults == []
    assert fuzzing.statuses[200] > 2_000
    assert fuzzing.statuses[400] > 2_000
    assert answered(fuzzed) + fuzzing.statuses[400] >= AT_LEAST
    assert process.memory_info().rss <= 1.1 * memory
    assert process.num_threads() <= threads + 16
    assert fuzzed.open_files_at_rest() <= files
    assert still_right(fuzzed)
    server_faults = [line for line in fuzzed.log_lines() if line["level"] == "error" or line.get("status") == 500]
    assert server_faults == []
