"""A stand-in for ECS: moto's server, whose tasks really run their container's command.

A task is a process of its own in a new, empty folder. It gets what ECS gives a container: the variables and secrets of
its task definition, the lines of its files on S3, and the launcher's command; beside that what the image has, which is
this repository where the image has /opt/bigger-boat.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from batch_stand_in import CREDENTIALS, REPOSITORY, StandIn

IN_IMAGE = "/opt/bigger-boat"


@dataclass
class Tasks:
    """ECS as it runs. ``requests``: what was asked of RunTask. ``output``: what they said, by ARN."""

    here: StandIn
    metadata_url: str
    current: dict[str, str]
    requests: list[dict[str, Any]] = field(default_factory=list)
    output: dict[str, str] = field(default_factory=dict)
    threads: list[threading.Thread] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)

    def be_a_task(self, cluster: str, arn: str) -> None:
        """Let this process be told, as ECS tells a container, which task it is."""
        self.current.update(Cluster=cluster, TaskARN=arn)


@contextmanager
def ecs(here: StandIn) -> Iterator[Tasks]:
    """Let tasks run that are started with a command."""
    from moto.ecs.models import EC2ContainerServiceBackend
    from moto.ecs.responses import EC2ContainerServiceResponse
    from moto.moto_api import state_manager

    kept = (
        EC2ContainerServiceBackend.run_task,
        EC2ContainerServiceBackend.__dict__["_calculate_task_resource_requirements"],
        EC2ContainerServiceResponse.run_task,
    )
    with _metadata() as (url, current):
        tasks = Tasks(here, url, current)

        def run(self: Any, *given: Any) -> list[Any]:
            started = kept[0](self, *given)
            for task in started:
                if task.overrides.get("containerOverrides"):
                    thread = threading.Thread(target=_run, args=(tasks, self, task), daemon=True)
                    tasks.threads.append(thread)
                    thread.start()
            return started

        def asked(self: Any) -> Any:
            tasks.requests.append(json.loads(self.body))
            return kept[2](self)

        EC2ContainerServiceBackend.run_task, EC2ContainerServiceResponse.run_task = run, asked
        nothing = {"CPU": 0, "MEMORY": 0, "PORTS": [], "PORTS_UDP": []}  # moto asks each container for its memory
        EC2ContainerServiceBackend._calculate_task_resource_requirements = staticmethod(lambda _: nothing)
        state_manager.set_transition("ecs::task", {"progression": "manual", "times": 10**9})
        try:
            yield tasks
        finally:
            tasks.is_over.set()
            for thread in tasks.threads:
                thread.join(30)
            EC2ContainerServiceBackend.run_task, EC2ContainerServiceResponse.run_task = kept[0], kept[2]
            EC2ContainerServiceBackend._calculate_task_resource_requirements = kept[1]
            state_manager.unset_transition("ecs::task")


def _run(tasks: Tasks, backend: Any, task: Any) -> None:
    """What ECS does with a task: give its container what it needs, run it, keep how it ended."""
    [override] = task.overrides["containerOverrides"]
    definition = backend.describe_task_definition(task.task_definition_arn)
    [container] = [each for each in definition.container_definitions if each["name"] == override["name"]]
    with tempfile.TemporaryDirectory(prefix="ecs-task-") as folder:
        environment = {**_of_image(tasks.here, folder), **_of_container(tasks.here, container)}
        log = Path(folder, "log")
        with log.open("w") as sink:
            process = subprocess.Popen(override["command"], cwd=folder, env=environment, stdout=sink, stderr=sink)
        while process.poll() is None:
            if tasks.is_over.wait(0.05):
                process.kill()
            elif task.last_status == "STOPPED":
                process.terminate()
        tasks.output[task.task_arn] = log.read_text()
    [ran] = task.containers
    ran.exitCode, task.stopped_reason = process.returncode, "Essential container in task exited"
    task.last_status = "STOPPED"


def _of_image(here: StandIn, folder: str) -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{Path(__file__).parent}",
        "HOME": folder,
        "BIGGER_BOAT_DATA_DIR": folder,
        "DAGSTER_INSTANCE_DIR": f"{folder}/dagster",
        **CREDENTIALS,
        "AWS_SECRET_ACCESS_KEY": "made-up",
        "AWS_ENDPOINT_URL": here.url,
    }


def _of_container(here: StandIn, container: dict[str, Any]) -> dict[str, str]:
    """Return the variables of a container: its files', its own, its secrets'."""
    found: dict[str, str] = {}
    for file in container.get("environmentFiles", []):
        bucket, _, key = file["value"].removeprefix("arn:aws:s3:::").partition("/")
        text = here.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read().decode()
        found |= dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    own = {each["name"]: each["value"].replace(IN_IMAGE, str(REPOSITORY)) for each in container["environment"]}
    secrets = here.client("secretsmanager")
    for each in container.get("secrets", []):
        own[each["name"]] = secrets.get_secret_value(SecretId=each["valueFrom"])["SecretString"]
    return {**found, **own}


@contextmanager
def _metadata() -> Iterator[tuple[str, dict[str, str]]]:
    """Run what ECS answers a container at ECS_CONTAINER_METADATA_URI_V4."""
    current: dict[str, str] = {}

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(current if self.path.endswith("/task") else {"Name": "run"}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v4/1", current
    finally:
        server.shutdown()
        server.server_close()
