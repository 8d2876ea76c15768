"""A stand-in for AWS: moto's server with S3 and Batch, whose jobs really run their container's command.

A job is a process of its own in a new, empty folder. It gets the variables of its image, of its job definition and of
its submission, this server's address and made-up credentials, and shares nothing else with who submitted it: code and
definitions are on its PYTHONPATH, as they would be in its image; on its PATH there is Python alone. Most jobs are forks
of a process that has Dagster imported, which saves seconds each; those of a ``fresh`` stand-in are Pythons of their
own. moto forgets a submission's retryStrategy; the whole request is kept here and followed.
"""

import contextlib
import fnmatch
import json
import logging
import multiprocessing
import os
import re
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from account_stand_in import Account
from recorded_calls import recording_to

REPOSITORY = Path(__file__).resolve().parents[2]
BUCKET, QUEUE, DEFINITION = "boat", "gpu", "training"
PREFIX = f"s3://{BUCKET}/steps"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "made-up", "AWS_DEFAULT_REGION": "eu-west-1"}
EXITED = "Essential container in task exited"
KILLED, TIMED_OUT = 137, -1
"""Exit codes: of what SIGKILL ended; for us, of what took too long."""
DOCKERFILE = REPOSITORY / "deploy" / "Dockerfile"
ROOT_OF = {"BIGGER_BOAT_DATA_DIR"}
"""Variables of the image that name a folder in it; a job's own folder stands for the container's root."""


@dataclass
class StandIn:
    """The running server.

    ``fresh``: jobs are no forks. ``hold``: jobs stay RUNNABLE. ``deaths``: what is said of the next attempts that fail;
    with an exit code, what happens instead of running them. ``calls``: a file that forks write their calls of AWS to.
    ``missing_images``: what no job can pull. ``second_s``: how long a second of a job's timeout takes here.
    """

    url: str
    image: Path
    fresh: bool = False
    hold: bool = False
    missing_images: set[str] = field(default_factory=set)
    second_s: float = 1.0
    calls: Path | None = None
    deaths: list[dict[str, Any]] = field(default_factory=list)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    jobs: list[Any] = field(default_factory=list)
    output: dict[str, str] = field(default_factory=dict)
    refusals: list["Refusal"] = field(default_factory=list)
    account: Account = field(default_factory=Account)

    @contextmanager
    def refusing(self, service: str, what: str, code: str, status: int, times: int = 10**9) -> Iterator["Refusal"]:
        """Answer requests to a service with an error; ``what``: their HTTP method, or an operation in their headers."""
        refusal = Refusal(service, what, code, status, times)
        self.refusals.append(refusal)
        try:
            yield refusal
        finally:
            self.refusals.remove(refusal)

    def client(self, service: str) -> Any:
        """Return a client of boto3."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
            aws_access_key_id="made-up",
            aws_secret_access_key="made-up",
        )

    def objects(self, prefix: str = "", bucket: str = BUCKET) -> dict[str, bytes]:
        """Return a bucket's objects by key."""
        s3 = self.client("s3")
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
        return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


@dataclass
class Refusal:
    """An error in place of an answer, as AWS words it."""

    service: str
    what: str
    code: str
    status: int
    times: int
    message: str = "the stand-in refuses"

    def concerns(self, environ: dict[str, Any]) -> bool:
        signed = environ.get("HTTP_AUTHORIZATION", "")
        asked = {environ["REQUEST_METHOD"], environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]}
        return self.times > 0 and f"/{self.service}/aws4_request" in signed and self.what in asked

    def answer(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.times -= 1
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        said = f"<Error><Code>{self.code}</Code><Message>{self.message}</Message></Error>"
        as_json = json.dumps({"__type": self.code, "message": self.message})
        is_query = self.service in ("cloudformation", "cloudwatch", "iam", "sts")
        body = said if self.service == "s3" else f"<ErrorResponse>{said}</ErrorResponse>" if is_query else as_json
        kind = "application/x-amz-json-1.1" if body is as_json else "application/xml"
        start_response(f"{self.status} refused", [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body.encode()]


def _refusing(here: StandIn, application: Any) -> Any:
    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        for refusal in here.refusals:
            if refusal.concerns(environ):
                return refusal.answer(environ, start_response)
        return application(environ, start_response)

    return answer


@contextmanager
def stand_in(image: Path) -> Iterator[StandIn]:
    """Run the server on a free port; ``image`` holds the definitions' module, beside our package."""
    from moto.batch.models import Job
    from moto.batch.responses import BatchResponse
    from moto.moto_api import state_manager
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line per request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    here = StandIn("http://{}:{}".format(*server.get_host_and_port()), image)
    server._server.app = _refusing(here, server._server.app)
    kept = Job.run, Job.describe, BatchResponse.submitjob
    submit = kept[2]

    def submit_and_keep(self: Any) -> str:
        here.submitted.append(json.loads(self.body))
        return submit(self)

    Job.run, Job.describe = (lambda job: _run(here, job)), (lambda job: _describe(kept[1], job))
    BatchResponse.submitjob = submit_and_keep
    state_manager.set_transition("batch::job", {"progression": "manual", "times": 10**9})
    try:
        _make_platform(here)
        yield here
    finally:
        for job in here.jobs:
            job.stop = True
        for job in here.jobs:
            job.join(10)
        Job.run, Job.describe, BatchResponse.submitjob = kept
        state_manager.unset_transition("batch::job")
        server.stop()


def _make_platform(here: StandIn) -> None:
    """Bucket, queue and job definition, as the platform's stack would make them."""
    where = {"LocationConstraint": CREDENTIALS["AWS_DEFAULT_REGION"]}
    here.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=where)
    role = here.client("iam").create_role(RoleName="batch", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    batch = here.client("batch")
    environment = batch.create_compute_environment(
        computeEnvironmentName="machines", type="UNMANAGED", state="ENABLED", serviceRole=role
    )["computeEnvironmentArn"]
    order = [{"order": 1, "computeEnvironment": environment}]
    batch.create_job_queue(jobQueueName=QUEUE, state="ENABLED", priority=1, computeEnvironmentOrder=order)
    container = {"image": "bigger-boat-training", "vcpus": 1, "memory": 512, "command": ["true"]}
    batch.register_job_definition(jobDefinitionName=DEFINITION, type="container", containerProperties=container)


def _run(here: StandIn, job: Any) -> None:
    """What AWS Batch does with a job: wait for a machine, run the attempts, keep what came of them."""
    here.jobs.append(job)
    request = next(each for each in here.submitted if each["jobName"] == job.job_name)
    job.last, job.status_reason, job.status = {}, "", "RUNNABLE"
    while here.hold and not job.stop:
        time.sleep(0.02)
    strategy = request.get("retryStrategy", {"attempts": 1})
    for attempt in range(1, strategy["attempts"] + 1):
        if job.stop:
            break
        job.status = "RUNNING"
        code, said = _attempt(here, job, request, attempt)
        job.status_reason = said.get("statusReason", EXITED)
        container = {"exitCode": code, "reason": said.get("reason")}
        job.last = {name: value for name, value in container.items() if value is not None}
        ended = {"container": job.last, "statusReason": job.status_reason, "stoppedAt": int(time.time() * 1000)}
        job.attempts.append(ended)
        if code == 0 or not _starts_again(strategy, job.status_reason):
            break
        job.status = "RUNNABLE"
    if job.stop:
        job.status_reason = job.job_stopped_reason or "the stand-in ends"
    job.status = "SUCCEEDED" if job.last.get("exitCode") == 0 and not job.stop else "FAILED"


def _attempt(here: StandIn, job: Any, request: dict[str, Any], attempt: int) -> tuple[int | None, dict[str, Any]]:
    """Return an attempt's exit code, None for one that never started, and what AWS Batch says of it."""
    image = job.job_definition.container_properties["image"]
    if image in here.missing_images:
        said = f"CannotPullContainerError: pull image manifest has been retried 5 time(s): {image}: not found"
        return None, {"statusReason": "Task failed to start", "reason": said}
    death = here.deaths[0] if here.deaths else {}
    longest_s = request.get("timeout", {}).get("attemptDurationSeconds", 10**9) * here.second_s
    code = death.get("exitCode") or _run_attempt(here, job, request["containerOverrides"], attempt, longest_s)
    if code == TIMED_OUT:
        return KILLED, {"statusReason": "Job attempt duration exceeded timeout"}
    return code, here.deaths.pop(0) if code and here.deaths else {}


def _starts_again(strategy: dict[str, Any], status_reason: str) -> bool:
    for rule in strategy.get("evaluateOnExit", []):
        if fnmatch.fnmatch(status_reason, rule.get("onStatusReason", "*")):
            return rule["action"] == "RETRY"
    return True


def _run_attempt(here: StandIn, job: Any, container: dict[str, Any], attempt: int, longest_s: float) -> int:
    """Run the container's command until it ends or the job is stopped; return its exit code as a shell would.

    After ``longest_s`` it is killed, and TIMED_OUT returned.
    """
    end, is_late = time.monotonic() + longest_s, False
    with tempfile.TemporaryDirectory(prefix="batch-job-") as folder:
        environment = {
            **{name: folder * (name in ROOT_OF) + value for name, value in image_environment("training").items()},
            "PATH": str(Path(sys.executable).parent),
            "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{here.image}",
            **CREDENTIALS,
            "AWS_SECRET_ACCESS_KEY": "of-the-job",
            "AWS_ENDPOINT_URL": here.url,
            "AWS_BATCH_JOB_ID": job.job_id,
            "AWS_BATCH_JOB_ATTEMPT": str(attempt),
            **_variables(job.job_definition.container_properties),
            **_variables(container),
        }
        log = Path(folder, "log")
        log.touch()
        process = (_start if here.fresh else partial(_fork, here.calls))(container["command"], folder, environment)
        while process.exitcode is None:
            is_late = is_late or time.monotonic() > end
            if job.stop or is_late:
                process.kill()
            process.join(0.02)
        here.output[f"{job.job_id}/{attempt}"] = log.read_text()
    if is_late:
        return TIMED_OUT
    return process.exitcode if process.exitcode >= 0 else 128 - process.exitcode


def _variables(container: dict[str, Any]) -> dict[str, str]:
    named = [{name.lower(): value for name, value in each.items()} for each in container.get("environment", [])]
    return {each["name"]: each["value"] for each in named}


def image_environment(target: str) -> dict[str, str]:
    """Return the variables that a target of ``deploy/Dockerfile`` sets, those of the stages below it included."""
    stages: dict[str, dict[str, str]] = {}
    own: dict[str, str] = {}
    for line in DOCKERFILE.read_text().splitlines():
        if stage := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            own = stages[stage[2]] = dict(stages.get(stage[1], {}))
        elif line.startswith("ENV "):
            own |= dict(each.split("=", 1) for each in line.split()[1:])
    return stages[target]


class _Fresh(subprocess.Popen):
    """A process with the few words of multiprocessing's."""

    @property
    def exitcode(self) -> int | None:
        return self.poll()

    def join(self, timeout_s: float) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(timeout_s)


def _start(command: list[str], folder: str, environment: dict[str, str]) -> _Fresh:
    with Path(folder, "log").open("w") as log:
        return _Fresh(command, cwd=folder, env=environment, stdout=log, stderr=log)


def _fork(
    calls: Path | None, command: list[str], folder: str, environment: dict[str, str]
) -> multiprocessing.process.BaseProcess:
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["bigger_boat.resources.batch_worker", "boto3"])
    process = forks.Process(target=_become, args=(calls, command, folder, environment))
    process.start()
    return process


def _become(calls: Path | None, command: list[str], folder: str, environment: dict[str, str]) -> None:
    """Do in this process what ``python -m MODULE ARGUMENTS`` does in a new one; ``calls`` gets its calls of AWS."""
    log = os.open(Path(folder, "log"), os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    installed = [path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix))]
    sys.path[:] = [folder, *environment["PYTHONPATH"].split(os.pathsep), *installed]
    python, dash_m, module, *arguments = command
    assert (python, dash_m) == ("python", "-m"), command
    sys.argv[1:] = arguments
    with recording_to(calls) if calls else contextlib.nullcontext():
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def _describe(describe: Any, job: Any) -> dict[str, Any]:
    return {
        **(found := describe(job)),
        "statusReason": getattr(job, "status_reason", ""),
        "attempts": list(job.attempts),
        "container": {**found["container"], **getattr(job, "last", {}), "logStreamName": f"training/{job.job_id}"},
    }
