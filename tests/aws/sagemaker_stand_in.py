"""SageMaker's part of the stand-in: endpoints whose containers are processes that run our own serving command.

moto keeps models, configurations and tags. Here an endpoint's ``model.tar.gz`` is fetched from the bucket and unpacked
into a folder of its own, ``deploy/serve`` is started on it as the image's command, ``GET /ping`` decides whether it is
in service, and ``invoke_endpoint`` goes to it. An update starts the new container beside the old one, and keeps the
old one if the new one does not answer or an alarm goes off. The container that was replaced last stays up: going back
to it takes no new start, which is most of the tests' time. moto lacks ``UpdateEndpoint`` and returns empty structures
where SageMaker returns none; both are mended.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from batch_stand_in import REPOSITORY, StandIn

IMAGE = "000000000000.dkr.ecr.eu-west-1.amazonaws.com/bigger-boat-serving:1"
NO_PING = (
    "The primary container for production variant AllTraffic did not pass the ping health check. Please check "
    "CloudWatch logs for this endpoint."
)
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class Container:
    """A running container."""

    process: subprocess.Popen
    folder: Path
    url: str
    log: Path

    def wait_for_ping(self, timeout_s: float) -> bool:
        end = time.monotonic() + timeout_s
        while self.process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError), _OPENER.open(f"{self.url}/ping", timeout=5) as answer:
                return answer.status == 200
            time.sleep(0.05)
        return False

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass
class Endpoints:
    """What the stand-in does with endpoints. ``alarm``: one goes off. ``hold``: what is on its way stays so.

    ``distort`` changes an answer before it is given, as a container that differs from the laptop would.
    """

    here: StandIn
    alarm: bool = False
    distort: Any = None
    hold: threading.Event = field(default_factory=threading.Event)
    updates: list[dict[str, Any]] = field(default_factory=list)
    running: dict[str, Container] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)
    spare: dict[str, Container] = field(default_factory=dict)
    threads: list[threading.Thread] = field(default_factory=list)

    def bring(self, backend: Any, endpoint: Any, config_name: str, alarms: list[str]) -> None:
        """Start the container of a configuration in the background, and let it take over if it can."""
        endpoint.endpoint_status = "Updating" if endpoint.endpoint_name in self.running else "Creating"
        endpoint.failure_reason = None
        thread = threading.Thread(target=self._bring, args=(backend, endpoint, config_name, alarms), daemon=True)
        self.threads.append(thread)
        thread.start()

    def _bring(self, backend: Any, endpoint: Any, config_name: str, alarms: list[str]) -> None:
        while self.hold.is_set():
            time.sleep(0.02)
        config = backend.describe_endpoint_config(config_name)
        container, reason = self._start(backend, config)
        if self.alarm and alarms:
            reason = reason or f"One or more alarms went off during the deployment: {', '.join(alarms)}."
        name = endpoint.endpoint_name
        if reason:
            if container:
                self._end(container)
            endpoint.failure_reason = reason
            endpoint.endpoint_status = "InService" if name in self.running else "Failed"
            return
        old, old_config = self.running.get(name), endpoint.endpoint_config_name
        self.running[name] = container
        endpoint.endpoint_config_name = config_name
        endpoint.data_capture_config = _capture_summary(config)
        endpoint.endpoint_status = "InService"
        if old:
            for spare in self.spare.values():
                self._end(spare)
            self.spare = {old_config: old}

    def _start(self, backend: Any, config: dict[str, Any]) -> tuple[Container | None, str | None]:
        """Return a container that answers, or why there is none."""
        if spare := self.spare.pop(config["EndpointConfigName"], None):
            return spare, None
        variant = config["ProductionVariants"][0]
        described = backend.describe_model(variant["ModelName"]).primary_container
        if described["Image"] != IMAGE:
            return None, f"The image '{described['Image']}' does not exist."
        folder = Path(tempfile.mkdtemp(prefix="endpoint-"))
        model, log = folder / "model", folder / "log"
        bucket, key = described["ModelDataUrl"].removeprefix("s3://").split("/", 1)
        self.here.client("s3").download_file(bucket, key, str(folder / "model.tar.gz"))
        with tarfile.open(folder / "model.tar.gz") as archive:
            archive.extractall(model, filter="data")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}/usr/bin{os.pathsep}/bin",
            "PYTHONPATH": str(REPOSITORY),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "MODEL_DIR": str(model),
            "SERVE_HOST": "127.0.0.1",
            "SAGEMAKER_BIND_TO_PORT": str(port),
            **described.get("Environment", {}),
        }
        with log.open("w") as output:
            process = subprocess.Popen(
                [str(REPOSITORY / "deploy" / "serve")], cwd=folder, env=environment, stdout=output, stderr=output
            )
        container = Container(process, folder, f"http://127.0.0.1:{port}", log)
        if not container.wait_for_ping(120):
            self._end(container)
            return None, NO_PING
        return container, None

    def _end(self, container: Container) -> None:
        self.logs.append(container.log.read_text())
        container.stop()

    def invoke(self, backend: Any, name: str, body: bytes) -> tuple[int, bytes]:
        """Ask the container; 4xx and 5xx come back as they are."""
        request = urllib.request.Request(f"{self.running[name].url}/invocations", data=body)
        request.add_header("Content-Type", "application/json")
        try:
            with _OPENER.open(request, timeout=60) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        if self.distort:
            content = json.dumps(self.distort(json.loads(content))).encode()
        self._capture(backend, name, body, content)
        return 200, content

    def _capture(self, backend: Any, name: str, body: bytes, answer: bytes) -> None:
        """Keep request and answer as SageMaker's data capture does: lines of JSON by hour."""
        config = backend.endpoints[name].data_capture_config
        if not config:
            return
        kept = {
            f"endpoint{side.title()}": {
                "observedContentType": "application/json",
                "mode": side.upper(),
                "data": data.decode(),
                "encoding": "JSON",
            }
            for side, data in (("input", body), ("output", answer))
        }
        now = datetime.now(UTC)
        about = {"eventId": str(uuid.uuid4()), "inferenceTime": f"{now:%Y-%m-%dT%H:%M:%SZ}"}
        line = {"captureData": kept, "eventMetadata": about, "eventVersion": "0"}
        bucket, prefix = config["DestinationS3Uri"].removeprefix("s3://").split("/", 1)
        key = f"{prefix}/{name}/AllTraffic/{now:%Y/%m/%d/%H}/{now:%M-%S}-{uuid.uuid4()}.jsonl"
        self.here.client("s3").put_object(Bucket=bucket, Key=key, Body=json.dumps(line).encode() + b"\n")

    def stop(self) -> None:
        self.hold.clear()
        for thread in self.threads:
            thread.join(150)
        for container in [*self.running.values(), *self.spare.values()]:
            container.stop()


def _capture_summary(config: dict[str, Any]) -> dict[str, Any] | None:
    """What SageMaker says of a configuration's data capture once it runs."""
    asked = config.get("DataCaptureConfig")
    if not (asked and asked["EnableCapture"]):
        return None
    rate = {"CaptureStatus": "Started", "CurrentSamplingPercentage": asked["InitialSamplingPercentage"]}
    return {"EnableCapture": True, "DestinationS3Uri": asked["DestinationS3Uri"], **rate}


@contextmanager
def sagemaker(here: StandIn) -> Iterator[Endpoints]:
    """Let the running stand-in have endpoints."""
    from moto.core.responses import ActionResult
    from moto.sagemaker.exceptions import ValidationError
    from moto.sagemaker.models import SageMakerModelBackend
    from moto.sagemaker.responses import SageMakerResponse
    from moto.sagemakerruntime.responses import SageMakerRuntimeResponse

    ends = Endpoints(here)
    create, delete = SageMakerModelBackend.create_endpoint, SageMakerModelBackend.delete_endpoint
    described = {
        name: getattr(SageMakerResponse, f"describe_{name}") for name in ("model", "endpoint", "endpoint_config")
    }

    def create_endpoint(self: Any, endpoint_name: str, endpoint_config_name: str, tags: Any) -> Any:
        endpoint = create(self, endpoint_name, endpoint_config_name, tags)
        endpoint.data_capture_config = None
        ends.bring(self, endpoint, endpoint_config_name, [])
        return endpoint

    def delete_endpoint(self: Any, endpoint_name: str) -> None:
        delete(self, endpoint_name)
        if container := ends.running.pop(endpoint_name, None):
            ends._end(container)

    def update_endpoint(self: Any) -> Any:
        request = json.loads(self.body)
        backend, name = self.sagemaker_backend, request["EndpointName"]
        if backend.describe_endpoint(name)["EndpointStatus"] != "InService":
            raise ValidationError(message=f"Cannot update in-progress endpoint '{name}'.")
        backend.describe_endpoint_config(request["EndpointConfigName"])
        ends.updates.append(request)
        rollback = request.get("DeploymentConfig", {}).get("AutoRollbackConfiguration", {})
        asked = [alarm["AlarmName"] for alarm in rollback.get("Alarms", [])]
        known = here.client("cloudwatch").describe_alarms(AlarmNames=asked)["MetricAlarms"] if asked else []
        alarms = [alarm["AlarmName"] for alarm in known]
        ends.bring(backend, backend.endpoints[name], request["EndpointConfigName"], alarms)
        return ActionResult({"EndpointArn": backend.endpoints[name].arn})

    def invoke_endpoint(self: Any) -> Any:
        from moto.sagemaker.models import sagemaker_backends

        backend = sagemaker_backends[self.current_account][self.region]
        name = self.path.split("/")[2]
        if name not in ends.running:
            body = json.dumps({"Message": f"Endpoint {name} of account {self.current_account} not found."})
            return 400, {"status": 400, "x-amzn-ErrorType": "ValidationError"}, body
        body = self.body if isinstance(self.body, bytes) else self.body.encode()
        status, content = ends.invoke(backend, name, body)
        if status == 200:
            return 200, {"Content-Type": "application/json", "x-Amzn-Invoked-Production-Variant": "AllTraffic"}, content
        said = {
            "Message": f"Received client error ({status}) from primary with message",
            "OriginalStatusCode": status,
            "OriginalMessage": content.decode(),
        }
        return 424, {"status": 424, "x-amzn-ErrorType": "ModelError"}, json.dumps(said)

    def without_empties(describe: Any) -> Any:
        return lambda self: ActionResult({k: v for k, v in describe(self).result.items() if v not in ({}, None)})

    kept = SageMakerRuntimeResponse.invoke_endpoint
    SageMakerModelBackend.create_endpoint, SageMakerModelBackend.delete_endpoint = create_endpoint, delete_endpoint
    SageMakerResponse.update_endpoint = update_endpoint
    SageMakerRuntimeResponse.invoke_endpoint = invoke_endpoint
    for name, describe in described.items():
        setattr(SageMakerResponse, f"describe_{name}", without_empties(describe))
    try:
        yield ends
    finally:
        ends.stop()
        SageMakerModelBackend.create_endpoint, SageMakerModelBackend.delete_endpoint = create, delete
        SageMakerRuntimeResponse.invoke_endpoint = kept
        for name, describe in described.items():
            setattr(SageMakerResponse, f"describe_{name}", describe)
        del SageMakerResponse.update_endpoint
