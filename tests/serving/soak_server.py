"""A long soak: clients ask, versions are swapped, and nothing may fail, be wrong, or pile up.

``python tests/serving/soak_server.py --minutes 10`` exits with 1 if a request failed, an answer was wrong, or memory at
the end is more than 5 % from what it was after a tenth of the time.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # also as a command

import psutil
from tiny_models import Server, knn_bundle

from bigger_boat.resources.local_endpoint_host import LocalEndpointHost
from bigger_boat.serving import client

CLIENTS, PAUSE_MS = 8, 50
SWAP_EVERY_S = 15.0
SAMPLE_EVERY_S = 1.0
FLAT = 0.05


def soak(folder: Path, minutes: float) -> dict[str, object]:
    """Return what was seen: answers, faults, swaps and memory."""
    versions = [knn_bundle(folder / "bundles", seed, products=66_000, dimensions=48) for seed in (1, 2)]
    host = LocalEndpointHost(endpoints_dir=str(folder / "endpoints"))
    host.publish("recommendation", versions[0].directory)
    expected = folder / "expected.json"
    expected.write_text(json.dumps({bundle.version: bundle.golden for bundle in versions}))
    server = Server("endpoints", folder / "endpoints")
    try:
        client.wait_until_up(server.url)
        command = [sys.executable, str(Path(__file__).with_name("asking_clients.py")), str(server.port)]
        command += ["/endpoints/recommendation/invocations", str(expected), str(CLIENTS), str(PAUSE_MS)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as clients:
            memory, swaps = _swap_and_watch(host, versions, server, minutes * 60)
            told = json.loads(clients.communicate(timeout=60)[0])
    finally:
        server.stop()
    tenth = max(1, len(memory) // 10)
    early, late = (statistics.median(part) for part in (memory[tenth : 2 * tenth], memory[-tenth:]))
    told |= {"minutes": minutes, "swaps": swaps, "memory_mib": [round(early), round(late)]}
    told["flat"] = abs(late - early) <= FLAT * early
    return told


def _swap_and_watch(host: LocalEndpointHost, versions: list, server: Server, seconds: float) -> tuple[list[float], int]:
    process, memory, swaps = psutil.Process(server.process.pid), [], 0
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        if passed > (swaps + 1) * SWAP_EVERY_S:
            swaps += 1
            host.publish("recommendation", versions[swaps % 2].directory).require()
        memory.append(process.memory_info().rss / 2**20)
        time.sleep(SAMPLE_EVERY_S)
    return memory, swaps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    with tempfile.TemporaryDirectory() as folder:
        told = soak(Path(folder), parser.parse_args().minutes)
    print(json.dumps(told))
    sys.exit(1 if told["faults"] or not told["flat"] else 0)


if __name__ == "__main__":
    main()
