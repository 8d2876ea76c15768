"""What it costs to keep what is live: the log of answers, and events collected beside them.

    python benchmarks/keeping.py [--seconds 3] [--rounds 3]

A server over loopback (``serve``, 66,000 products, top 20), by turns with the log and without it, so that what else the
machine does meets both. Without it: answers alone, and while other clients collect; then events alone. Load comes from
processes of their own; server and load share the machine's cores.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from _measure import print_result
from serving import HERE, PRODUCTS, make_bundle, popularity, requests

from bigger_boat.ml.bundle import Bundle
from bigger_boat.resources.local_endpoint_host import LocalEndpointHost
from bigger_boat.serving import client

CLIENTS = 8
EVENTS, BODIES = 5, 20_000
"""Events of a request, and requests that differ: what is sent again is known, and not kept."""
ANSWER, COLLECT = "/endpoints/recommendation/invocations", "/collect"


def collected_bodies() -> Iterator[str]:
    for number in range(BODIES):
        events = [
            {
                "event_id": f"{number}-{row}",
                "session_id": f"s{number % 500}",
                "event_type": "event_product",
                "product_action": "detail",
                "product_sku_hash": f"{number % PRODUCTS:064x}",
                "hashed_url": f"{number:064x}",
            }
            for row in range(EVENTS)
        ]
        yield json.dumps(events)


@contextmanager
def server(data: Path, bundle: Bundle, logged: bool) -> Iterator[tuple[int, psutil.Process]]:
    """Run ``serve`` on a new data folder; yields its port and process."""
    LocalEndpointHost(endpoints_dir=str(data / "endpoints"), port=1).publish("recommendation", bundle.directory)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"DATA_DIR": str(data), "LOG_PREDICTIONS": str(logged).lower(), "COLLECT_ROTATE_S": "3600"}
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "TF_CPP_MIN_LOG_LEVEL": "2"}
    environment |= {f"BIGGER_BOAT_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "bigger_boat.cli", "serve", "--port", str(port)]
    with (data / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        client.wait_until_up(f"http://127.0.0.1:{port}")
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def load(port: int, path: str, bodies: Path, seconds: float) -> subprocess.Popen:
    asked = {"port": port, "path": path, "bodies": str(bodies), "clients": CLIENTS, "seconds": seconds}
    return subprocess.Popen([sys.executable, str(HERE / "_load.py"), json.dumps(asked)], stdout=subprocess.PIPE)


def measure(port: int, process: psutil.Process, seconds: float, loads: Sequence[tuple[str, Path]]) -> list[dict]:
    """Return per load what its generator saw, with ``cpu_ms``: of the server, per request of the first."""
    before = sum(process.cpu_times()[:2])
    started = [load(port, path, bodies, seconds) for path, bodies in loads]
    found = [json.loads(one.communicate()[0]) for one in started]
    if failed := [one["failures"] for one in found if one["failures"]]:
        raise RuntimeError(f"Requests failed: {failed}")
    used = sum(process.cpu_times()[:2]) - before
    return [{**one, "cpu_ms": used / (one["per_s"] * seconds) * 1000} for one in found]


def run(folder: Path, seconds: float, rounds: int) -> dict[str, list[dict]]:
    """Return the measurements by what was measured, one a round."""
    bundle, asked, collected = make_bundle(folder / "bundles"), folder / "asked", folder / "collected"
    pool = requests([f"{number:064x}" for number in range(PRODUCTS)], popularity(), 1_024, 11)
    asked.write_text("\n".join(json.dumps(one) for one in pool))
    collected.write_text("\n".join(collected_bodies()))
    found: dict[str, list[dict]] = {"logged": [], "not logged": [], "beside collecting": [], "collected": []}
    for number in range(rounds):
        with server(folder / f"logged-{number}", bundle, True) as (port, process):
            found["logged"] += measure(port, process, seconds, [(ANSWER, asked)])
        with server(folder / f"plain-{number}", bundle, False) as (port, process):
            found["not logged"] += measure(port, process, seconds, [(ANSWER, asked)])
            both = measure(port, process, seconds, [(ANSWER, asked), (COLLECT, collected)])
            found["beside collecting"].append(both[0])
        with server(folder / f"collected-{number}", bundle, False) as (port, process):
            found["collected"] += measure(port, process, seconds, [(COLLECT, collected)])
    return found


def median(rows: Sequence[dict], name: str) -> float:
    return statistics.median(row[name] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured; the median counts")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), asked.seconds, asked.rounds)
    plain = found["not logged"]
    for name, label in (("logged", "log_of_answers"), ("beside collecting", "answers_beside_collecting")):
        rows = found[name]
        pairs = [one["per_s"] / other["per_s"] for one, other in zip(rows, plain, strict=True)]
        more = {p: median(rows, p) for p in ("p50", "p99")} | {f"{p}_peer": median(plain, p) for p in ("p50", "p99")}
        cpu = {"cpu_ms": round(median(rows, "cpu_ms"), 3), "cpu_ms_peer": round(median(plain, "cpu_ms"), 3)}
        rate, ratio = median(rows, "per_s"), statistics.median(pairs)
        print_result(label, rate, "requests/s", f"answers alone, {CLIENTS} clients", ratio, **more, **cpu)
    rows = found["collected"]
    ratio = median(rows, "per_s") / median(plain, "per_s")
    cpu = {"cpu_us_per_event": round(median(rows, "cpu_ms") / EVENTS * 1000, 1)}
    more = {p: median(rows, p) for p in ("p50", "p99")}
    rate = median(rows, "per_s") * EVENTS
    print_result("collected_events", rate, "events/s", "answers, requests/s", ratio, **more, **cpu)


if __name__ == "__main__":
    main()
