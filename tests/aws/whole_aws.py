"""All that the aws profile reaches, as stand-ins, and a laptop with its settings: S3, AWS Batch, SageMaker, SNS and
CloudFormation on one server, Snowflake's, and API Gateway with what the platform's API stack has deployed behind it.

Belongs here: starting them, and the command line as a user types it. The story is told by the test.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "snowflake"))  # importlib mode puts no test folder on the path

from batch_stand_in import REPOSITORY, StandIn
from lambda_stand_in import Function, deployed_function, gateway
from made_platform import MadePlatform
from platform_stand_in import platform
from recorded_calls import Need, needs_of, recorded
from sagemaker_stand_in import IMAGE, Endpoints
from snowflake_graph import StandIn as Snowflake
from snowflake_graph import new_key
from snowflake_graph import stand_in as snowflake_stand_in

__all__ = ["PREFIX", "Cloud", "new_key", "whole_aws"]

STACK, PREFIX, TAG = "whole-platform", "whole", "0123456789ab"
"""Names of its own: other modules' stacks and endpoints are in the same stand-in."""


class DeployedApi:
    """Answers API Gateway's events with the function of the API's stack, which is there once that was deployed."""

    def __init__(self, name: str, folder: Path):
        self._name, self._folder, self._lock = name, folder, threading.Lock()
        self.function: Function | None = None

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.function = self.function or deployed_function(self._name, self._folder)
        return self.function(event)


@dataclass
class Cloud:
    """The stand-ins and the laptop. ``root``: its data folder; ``said``: what each command said."""

    aws: StandIn
    ends: Endpoints
    platform: MadePlatform
    snowflake: Snowflake
    api: DeployedApi
    url: str
    folder: Path
    environment: dict[str, str]
    said: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "laptop"

    def cli(self, *arguments: str) -> str:
        """Run ``bigger-boat`` to its end, which must be a good one; return what it said."""
        command = [sys.executable, str(Path(__file__).with_name("recorded_cli.py")), str(self._calls), *arguments]
        ended = subprocess.run(
            command, env=self.environment, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.said.append(ended.stdout)
        assert ended.returncode == 0, f"{ended.stdout}\n{self.trouble()}"
        return ended.stdout

    def objects(self) -> dict[str, bytes]:
        """Return what lies in the platform's bucket, by key."""
        return self.aws.objects(bucket=self.platform.outputs["Bucket"])

    def version(self, asset: str) -> Path:
        """Return the folder of what an asset made last, as the laptop has it."""
        address = json.loads(self.objects()[f"data/addresses/{asset}.json"])["address"]
        return self.root / address

    def jobs(self) -> list[dict[str, Any]]:
        """Return what was submitted to this platform's queues."""
        return [each for each in self.aws.submitted if STACK in each["jobQueue"]]

    def models(self) -> list[str]:
        """Return the names of this platform's models; moto lists those of all tests, whatever name is asked for."""
        known = self.aws.client("sagemaker").list_models(NameContains=PREFIX)["Models"]
        return [each["ModelName"] for each in known if each["ModelName"].startswith(f"{PREFIX}-")]

    def needs(self) -> dict[str, set[Need]]:
        """Return by role of the platform what it did, of its own calls and of those that AWS makes in its name."""
        described = [self.aws.client("sagemaker").describe_model(ModelName=name) for name in self.models()]
        archives = [each["PrimaryContainer"]["ModelDataUrl"].removeprefix("s3://").split("/", 1) for each in described]
        read = [needs_of("s3", "GetObject", {"Bucket": bucket, "Key": key}) for bucket, key in archives]
        return {
            "OrchestratorRole": recorded(self._calls),
            "JobRole": recorded(self.aws.calls),
            "FunctionRole": set().union(*(needs_of(*call) for call in self.api.function.calls)),
            "EndpointRole": set().union(*read),
        }

    def trouble(self) -> str:
        """Return what the jobs and the containers wrote last: where a test fails, it says why."""
        ours = {job.job_id for job in self.aws.jobs if STACK in job.job_queue.name}
        jobs = [f"{name}:\n{said[-2000:]}" for name, said in self.aws.output.items() if name.split("/")[0] in ours]
        return "\n".join([*jobs, *(said[-2000:] for said in self.ends.logs)])

    @property
    def _calls(self) -> Path:
        return self.folder / "calls.jsonl"


@contextmanager
def whole_aws(aws: StandIn, ends: Endpoints, folder: Path, secrets: dict[str, str]) -> Iterator[Cloud]:
    """Make the platform and start what it lacks. ``secrets``: settings of the laptop, beside those it needs."""
    api, calls = DeployedApi(f"{PREFIX}-api", folder), aws.calls
    with platform(aws), snowflake_stand_in(folder) as snowflake, gateway(api) as url:
        made = MadePlatform(aws, STACK, PREFIX, {"ImageTag": TAG})
        aws.calls = folder / "job_calls.jsonl"
        environment = _environment(made, snowflake, url, folder / "laptop") | secrets
        cloud = Cloud(aws, ends, made, snowflake, api, url, folder, environment)
        try:
            yield cloud
        finally:
            aws.calls = calls
            if api.function:
                api.function.stop()


def _environment(made: MadePlatform, snowflake: Snowflake, url: str, data_dir: Path) -> dict[str, str]:
    """Return the laptop's: what ``deploy platform`` prints for ``.env``, and where the stand-ins are."""
    own = {
        "PROFILE": "aws",
        "REMOTE_STEPS": "true",
        "SIZE": "quick",
        "DATA_DIR": str(data_dir),
        "PLATFORM_STACK": STACK,
        "ENDPOINT_PREFIX": PREFIX,
        "API_STACK": f"{PREFIX}-api",
        "API_URL": url,
        "SERVING_IMAGE": IMAGE,  # the stand-in has one image
        "SNOWFLAKE_ACCOUNT": "fakesnow",
        "SNOWFLAKE_USER": "loader",
        "SNOWFLAKE_WAREHOUSE": "LOADING",
        "SNOWFLAKE_DATABASE": "BY_COMMAND",  # as in tests/snowflake: dbt's manifest names it, and is shared
        "SNOWFLAKE_HOST": "127.0.0.1",
        "SNOWFLAKE_PORT": str(snowflake.port),
        "SNOWFLAKE_PROTOCOL": "http",
    }
    printed = dict(line.split("=", 1) for line in made.lines if not line.startswith("#"))
    named = {f"BIGGER_BOAT_{name}": value for name, value in own.items()}
    return {**os.environ, **printed, **named, "PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": "0"}
