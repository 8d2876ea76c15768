"""A hundred swaps while 32 clients ask: nothing fails, nothing is wrong, nothing piles up."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tiny_models import knn_bundle

from bigger_boat.resources.local_endpoint_host import LocalEndpointHost
from bigger_boat.serving import client
from bigger_boat.serving.published import endpoints_id

NAME = "recommendation"
SWAPS, WARMED_UP = 100, 20
CLIENTS, PAUSE_MS = 32, 250
HERE = Path(__file__).parent


@pytest.mark.slow
def test_a_hundred_swaps_under_load(tmp_path, start_server):
    versions = [knn_bundle(tmp_path / "bundles", seed, products=8_000, dimensions=32) for seed in (1, 2)]
    root = tmp_path / "endpoints"
    host = LocalEndpointHost(endpoints_dir=str(root), confirm_timeout_s=60)
    host.publish(NAME, versions[0].directory)
    server = start_server("endpoints", root)
    client.wait_until_up(server.url, endpoints_id=endpoints_id(root))
    expected = tmp_path / "expected.json"
    expected.write_text(json.dumps({bundle.version: bundle.golden for bundle in versions}))
    command = [sys.executable, str(HERE / "asking_clients.py"), str(server.port), f"/endpoints/{NAME}/invocations"]
    command += [str(expected), str(CLIENTS), str(PAUSE_MS)]

    def swap_under_load(swaps):
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as clients:
            for swap in swaps:
                result = host.publish(NAME, versions[swap % 2].directory)
                assert result.state == "serving", result.sentence
            memory = psutil.Process(server.process.pid).memory_info().rss
            told = json.loads(clients.communicate(timeout=60)[0])
        assert told["faults"] == []
        assert told["answered"] > 10 * CLIENTS
        assert told["versions"] == sorted(bundle.version for bundle in versions)
        return memory, server.open_files_at_rest()

    early, files_early = swap_under_load(range(1, WARMED_UP + 1))
    late, files_late = swap_under_load(range(WARMED_UP + 1, SWAPS + 1))
    assert late <= 1.1 * early, f"{early >> 20} MiB after {WARMED_UP} swaps, {late >> 20} MiB after {SWAPS}"
    assert files_late <= files_early
