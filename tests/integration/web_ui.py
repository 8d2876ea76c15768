"""The web UI as a person has it: ``bigger-boat up`` as processes, driven by the GraphQL that its pages send."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from whole_shop import environment, free_port

LOCATION = {"repositoryLocationName": "bigger_boat", "repositoryName": "__repository__"}
PATIENCE_S = 900

LAUNCH_BACKFILL = """mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
LAUNCH_RUN = """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
TERMINATE = """mutation ($id: String!) { terminateRun(runId: $id) {
  __typename ... on TerminateRunFailure { message } } }"""
RUN = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status tags { key value } } } }"
RUNS = "query { runsOrError { ... on Runs { results { runId status tags { key value } } } } }"
EVENTS = """query ($id: ID!) { logsForRun(runId: $id, limit: 10000) { ... on EventConnection { events {
  __typename ... on MessageEvent { message level stepKey } } } } }"""
BACKFILL = """query ($id: String!) { partitionBackfillOrError(backfillId: $id) { __typename ... on PartitionBackfill {
  status numPartitions assetBackfillData { assetBackfillStatuses { ... on AssetPartitionsStatusCounts {
  assetKey { path } numPartitionsTargeted numPartitionsInProgress numPartitionsMaterialized numPartitionsFailed } } }
  runs: runs(limit: 50) { runId status tags { key value } } } } }"""
STATS = """query ($keys: [AssetKeyInput!]) { assetNodes(assetKeys: $keys) { assetKey { path } partitionStats {
  numMaterialized numMaterializing } } }"""


TICKS = """query ($sensor: SensorSelector!) { sensorOrError(sensorSelector: $sensor) { ... on Sensor { sensorState {
  id ticks(limit: 1000) { status skipReason runIds error { message } } } } } }"""
START_SENSOR = """mutation ($sensor: SensorSelector!) { startSensor(sensorSelector: $sensor) {
  __typename ... on PythonError { message } } }"""
STOP_SENSOR = """mutation ($id: String!) { stopSensor(id: $id) { __typename ... on PythonError { message } } }"""
OVER = ("SUCCESS", "FAILURE", "CANCELED")


class WebUI:
    """A running web UI at ``url``; ``log``: the file of what it and its daemon say; ``pid``: of ``bigger-boat up``."""

    def __init__(self, url: str, log: Path, pid: int):
        self.url, self.log, self.pid = url, log, pid

    def ask(self, query: str, **variables: Any) -> Any:
        """Send a query; return the first field of its data."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            data = json.load(answer)
        assert "errors" not in data, data["errors"]
        [found] = data["data"].values()
        return found

    def backfill(self, assets: Sequence[str], days: Sequence[str], tags: Mapping[str, str]) -> str:
        """Launch what the backfill dialogue launches; return the backfill's id."""
        selection = [{"path": name.split("/")} for name in assets]
        params = {"assetSelection": selection, "partitionNames": list(days), "fromFailure": False}
        params |= {"tags": [{"key": key, "value": value} for key, value in tags.items()]}
        launched = self.ask(LAUNCH_BACKFILL, params=params)
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return launched["backfillId"]

    def launch(self, assets: Sequence[str], day: str | None = None) -> str:
        """Launch what "Materialize" launches for these assets, of a day; return the run's id."""
        tags = [{"key": "dagster/partition", "value": day}] if day else []
        selector = {**LOCATION, "pipelineName": "__ASSET_JOB"}
        selector |= {"assetSelection": [{"path": name.split("/")} for name in assets]}
        params = {"selector": selector, "mode": "default", "executionMetadata": {"tags": tags}}
        launched = self.ask(LAUNCH_RUN, params=params)
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def launch_job(self, job: str, **config: Any) -> str:
        """Launch a job of one op, named as the job without ``_job``, with the op's config; return the run's id."""
        selector = {**LOCATION, "pipelineName": job}
        run_config = {"ops": {job.removesuffix("_job"): {"config": config}}}
        params = {"selector": selector, "mode": "default", "runConfigData": run_config}
        launched = self.ask(LAUNCH_RUN, params=params)
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def runs_by_sensor(self, sensor: str) -> list[dict[str, str]]:
        """Return the runs that a sensor asked for, oldest first: their tags, ``id`` and ``status``."""
        told = [
            {**{tag["key"]: tag["value"] for tag in run["tags"]}, "id": run["runId"], "status": run["status"]}
            for run in reversed(self.runs())
        ]
        return [run for run in told if run.get("dagster/sensor_name") == sensor]

    def sentences(self, sensor: str) -> list[str]:
        """Return what a sensor's ticks said that asked for nothing, oldest first. A tick that failed fails the test."""
        ticks = self._state_of(sensor)["ticks"]
        assert not [tick["error"] for tick in ticks if tick["error"]], ticks
        return [tick["skipReason"] for tick in reversed(ticks) if tick["skipReason"]]

    def switch(self, sensor: str, on: bool) -> None:
        """Turn a sensor on or off, as the switch on its page does."""
        if on:
            switched = self.ask(START_SENSOR, sensor={**LOCATION, "sensorName": sensor})
        else:
            switched = self.ask(STOP_SENSOR, id=self._state_of(sensor)["id"])
        assert switched["__typename"] in ("Sensor", "StopSensorMutationResult"), switched

    def _state_of(self, sensor: str) -> dict[str, Any]:
        return self.ask(TICKS, sensor={**LOCATION, "sensorName": sensor})["sensorState"]

    def status(self, run_id: str) -> str:
        return self.ask(RUN, id=run_id)["status"]

    def runs(self) -> list[dict[str, Any]]:
        return self.ask(RUNS)["results"]

    def events(self, run_id: str) -> list[dict[str, Any]]:
        return self.ask(EVENTS, id=run_id)["events"]

    def terminate(self, run_id: str) -> None:
        ended = self.ask(TERMINATE, id=run_id)
        assert ended["__typename"] == "TerminateRunSuccess", ended

    def backfill_state(self, backfill_id: str) -> dict[str, Any]:
        """Return what the backfill's page shows."""
        return self.ask(BACKFILL, id=backfill_id)

    def partition_stats(self, assets: Sequence[str]) -> dict[str, dict[str, int]]:
        """Return by asset's name how many days its page shows as made, and as being made."""
        nodes = self.ask(STATS, keys=[{"path": name.split("/")} for name in assets])
        return {node["assetKey"]["path"][-1]: node["partitionStats"] for node in nodes}

    def wait(self, what: Callable[[], Any]) -> Any:
        """Return what the first true answer of ``what`` is."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := what()):
            assert time.monotonic() < deadline, "What was waited for did not come."
            time.sleep(0.5)
        return found

    def end_of(self, run_id: str) -> str:
        """Wait for the end of a run; return its status."""
        return self.wait(lambda: (status := self.status(run_id)) in OVER and status)


@contextmanager
def web_ui(root: Path, **settings: str) -> Iterator[WebUI]:
    """Run ``bigger-boat up`` on a data folder until the block ends."""
    port = free_port()
    log = root.parent / "up.txt"
    with log.open("w") as out:
        command = [sys.executable, "-m", "bigger_boat.cli", "up"]
        process = subprocess.Popen(
            command, env=environment(root, BIGGER_BOAT_UI_PORT=str(port), **settings), stdout=out, stderr=out
        )
    ui = WebUI(f"http://127.0.0.1:{port}", log, process.pid)
    try:
        ui.wait(lambda: _is_up(ui, process))
        yield ui
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(60)


def _is_up(ui: WebUI, process: subprocess.Popen) -> bool:
    assert process.poll() is None, "The web UI ended."
    try:
        query = "query { repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }"
        return bool(ui.ask(query)["nodes"])
    except (urllib.error.URLError, OSError, KeyError):
        return False
