"""How long a person waits after "Materialize", against Dagster's own run launcher and queue.

    python benchmarks/run_start.py [--runs 5] [--rounds 2]

Two web UIs in turn over the same small shop, one with ``dagster.yaml`` as it is, one without its launcher and queue.
Each loads the catalogue again and again, a step of a tenth of a second in a process of its own, as by default. The
first run of each is counted apart: ours imports the libraries then, once.
"""

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import yaml
from _measure import print_result
from dagster_graphql import DagsterGraphQLClient

from bigger_boat.settings import PROJECT_DIR

ASSET = dg.AssetKey(["raw", "sku_to_content"])
OURS = ("run_launcher", "run_queue")
PATIENCE_S = 120


@contextmanager
def web_ui(data: Path, home: Path) -> Iterator[DagsterGraphQLClient]:
    """Run Dagster's web UI and daemon on a data folder, with the instance of ``home``; yields a client of it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {**os.environ, "DAGSTER_HOME": str(home), "DAGSTER_INSTANCE_DIR": str(data / "dagster")}
    environment |= {"BIGGER_BOAT_DATA_DIR": str(data), "BIGGER_BOAT_AUTOMATION": "off", "PYTHONPATH": str(PROJECT_DIR)}
    command = [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(port)]
    command += ["-w", str(PROJECT_DIR / "workspace.yaml")]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=PROJECT_DIR, env=environment, stdout=log, stderr=log)
    try:
        yield answering(port)
    finally:
        process.terminate()
        process.wait(60)


def answering(port: int) -> DagsterGraphQLClient:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=10).close()
            return DagsterGraphQLClient("127.0.0.1", port_number=port)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def home_of(folder: Path, data: Path, ours: bool) -> Path:
    """Write an instance's settings: the project's, or those without what is measured."""
    settings = yaml.safe_load(
        re.sub(r"\n +env: DAGSTER_INSTANCE_DIR", f" {data / 'dagster'}", (PROJECT_DIR / "dagster.yaml").read_text())
    )
    folder.mkdir()
    (folder / "dagster.yaml").write_text(
        yaml.safe_dump({name: value for name, value in settings.items() if ours or name not in OURS})
    )
    return folder


def run(client: DagsterGraphQLClient, instance: dg.DagsterInstance) -> tuple[float, float]:
    """Launch a run; return how long it took to its first step and to its end (s)."""
    launched = time.time()
    run_id = client.submit_job_execution("__ASSET_JOB", asset_selection=[ASSET])
    while not instance.get_run_by_id(run_id).is_finished:
        time.sleep(0.05)
    record = instance.get_run_record_by_id(run_id)
    if record.dagster_run.status != dg.DagsterRunStatus.SUCCESS:
        raise RuntimeError(f"A run of {ASSET.to_user_string()} ended as {record.dagster_run.status.value}.")
    [step] = instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_START)
    return step.timestamp - launched, record.end_time - launched


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="of each round, after the first; the median counts")
    parser.add_argument("--rounds", type=int, default=2, help="how often each web UI is started, in turn")
    asked = parser.parse_args()
    took: dict[tuple[bool, bool], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cli = [sys.executable, "-W", "ignore", "-m", "bigger_boat.cli"]
        environment = {**os.environ, "BIGGER_BOAT_DATA_DIR": str(folder / "shop")}
        made = ["simulate", "--out", str(folder / "csv"), "--sessions", "900", "--days", "4", "--products", "60"]
        subprocess.run([*cli, *made], check=True, stdout=subprocess.DEVNULL, env=environment)
        subprocess.run([*cli, "land", str(folder / "csv")], check=True, stdout=subprocess.DEVNULL, env=environment)
        for number in range(asked.rounds):
            for ours in (True, False):
                data = Path(shutil.copytree(folder / "shop", folder / f"data-{number}-{ours}"))
                home = home_of(folder / f"home-{number}-{ours}", data, ours)
                with web_ui(data, home) as client, dg.DagsterInstance.from_config(str(home)) as instance:
                    for at in range(asked.runs + 1):
                        took.setdefault((ours, at == 0), []).append(run(client, instance))
    for first, label in ((False, "run_start"), (True, "first_run_start")):
        ours, peer = (
            [statistics.median(part) for part in zip(*took[who, first], strict=True)] for who in (True, False)
        )
        more = {"to_the_end": round(ours[1], 2), "peer_s": round(peer[0], 2), "peer_to_the_end": round(peer[1], 2)}
        print_result(label, ours[0], "s to the first step", "Dagster's launcher and queue", peer[0] / ours[0], **more)


if __name__ == "__main__":
    main()
