"""SageMaker's part of the stand-in: endpoints whose containers are processes that run our own serving command.

moto keeps models, configurations and tags. Here an endpoint's ``model.tar.gz`` is fetched from the bucket and unpacked
into a folder of its own, ``deploy/serve`` is started on it as the image's command, ``GET /ping`` decides whether it is
in service, and ``invoke_endpoint`` goes to it. An update starts the new container beside the old one, and keeps the
old one if the new one does not answer or an alarm goes off. What was replaced last stays up: going back to it takes no
new start, which is most of the tests' time. moto lacks ``UpdateEndpoint`` and shadow variants, and returns empty
structures where SageMaker returns none; all is mended.

A configuration may have a second production variant, which gets its share of the requests by weight (in turn, where
SageMaker draws), or a shadow variant, which gets a copy of each. What each was asked and answered is captured.
"""

import base64
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
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from batch_stand_in import REPOSITORY, StandIn

IMAGE = "000000000000.dkr.ecr.eu-west-1.amazonaws.com/bigger-boat-serving:1"
NO_PING = (
    "The primary container for production variant AllTraffic did not pass the ping health check. Please check "
    "CloudWatch logs for this endpoint."
)
CHAMPION = "AllTraffic"
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
class Turns:
    """Says of each next one whether it is chosen, so that a ``share`` of all is."""

    share: float
    due: float = 0.0

    def next(self) -> bool:
        self.due += self.share
        chosen = self.due >= 1 - 1e-9
        self.due -= chosen
        return chosen


@dataclass
class Variant:
    """What runs beside an endpoint's first variant: a challenger with its share of the requests, or a shadow."""

    name: str
    container: Container
    turns: Turns
    shadow: bool


@dataclass
class Endpoints:
    """What the stand-in does with endpoints. ``alarm``: one goes off. ``hold``: what is on its way stays so.

    ``distort`` changes an answer before it is given, as a container that differs from the laptop would.
    ``running``: the container of each endpoint's first variant; ``beside``: its other variant. ``up``: all containers
    by their model. ``clock_file``: by which containers that start from now on, and what is captured, have another day.
    """

    here: StandIn
    alarm: bool = False
    distort: Any = None
    hold: threading.Event = field(default_factory=threading.Event)
    updates: list[dict[str, Any]] = field(default_factory=list)
    running: dict[str, Container] = field(default_factory=dict)
    logs: list[str] = field(default_factory=list)
    beside: dict[str, Variant] = field(default_factory=dict)
    up: dict[str, Container] = field(default_factory=dict)
    spare: list[Container] = field(default_factory=list)
    captures: dict[str, Turns] = field(default_factory=dict)
    clock_file: Path | None = None
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
        config, name = backend.describe_endpoint_config(config_name), endpoint.endpoint_name
        asked = [*config["ProductionVariants"], *config.get("ShadowProductionVariants", [])]
        before, started, reason = dict(self.up), [], None
        for variant in asked:
            container, reason = self._start(backend, variant)
            if reason:
                reason = reason.replace(f"variant {CHAMPION}", f"variant {variant['VariantName']}")
                break
            started.append(container)
        if self.alarm and alarms:
            reason = reason or f"One or more alarms went off during the deployment: {', '.join(alarms)}."
        if reason:
            for container in started:
                if not any(container is each for each in before.values()):
                    self._end(container)
            endpoint.failure_reason = reason
            endpoint.endpoint_status = "InService" if name in self.running else "Failed"
            return
        self._take_over(name, config, started)
        endpoint.endpoint_config_name = config_name
        endpoint.data_capture_config = _capture_summary(config)
        self.captures[name] = Turns((endpoint.data_capture_config or {}).get("CurrentSamplingPercentage", 0) / 100)
        endpoint.endpoint_status = "InService"

    def _take_over(self, name: str, config: dict[str, Any], started: list[Container]) -> None:
        """Let these containers answer; those they replace are spare, and what was spare before ends."""
        replaced, spare = self._of(name), self.spare
        self.beside.pop(name, None)
        self.running[name] = started[0]
        shadows = config.get("ShadowProductionVariants", [])
        for variant in [*config["ProductionVariants"][1:], *shadows]:
            weights = [each["InitialVariantWeight"] for each in config["ProductionVariants"]]
            share = variant["InitialVariantWeight"] / sum(weights)
            self.beside[name] = Variant(variant["VariantName"], started[1], Turns(share), bool(shadows))
        used = [container for each in self.running for container in self._of(each)]
        self.spare = [each for each in replaced if not any(each is other for other in used)]
        for container in spare:
            if not any(container is each for each in [*used, *self.spare]):
                self._end(container)

    def _of(self, name: str) -> list[Container]:
        """The containers of an endpoint."""
        beside = [self.beside[name].container] if name in self.beside else []
        return [*([self.running[name]] if name in self.running else []), *beside]

    def _start(self, backend: Any, variant: dict[str, Any]) -> tuple[Container | None, str | None]:
        """Return a container that answers with a variant's model, or why there is none."""
        model_name = variant["ModelName"]
        if container := self.up.get(model_name):
            return container, None
        described = backend.describe_model(model_name).primary_container
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
            **({"BIGGER_BOAT_CLOCK_FILE": str(self.clock_file)} if self.clock_file else {}),
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
        self.up[model_name] = container
        return container, None

    def _end(self, container: Container) -> None:
        self.up = {model: each for model, each in self.up.items() if each is not container}
        self.logs.append(container.log.read_text())
        container.stop()

    def delete(self, name: str) -> None:
        gone = self._of(name)
        self.running.pop(name, None)
        self.beside.pop(name, None)
        for container in gone:
            self._end(container)

    def invoke(self, backend: Any, name: str, body: bytes, told: dict[str, str]) -> tuple[int, bytes, str]:
        """Ask a variant's container; 4xx and 5xx come back as they are, with the variant's name.

        ``told``: ``target``, the variant that should answer; ``inference_id``, which is captured.
        """
        beside, target = self.beside.get(name), told.get("target")
        if target and target not in (CHAMPION, beside and not beside.shadow and beside.name):
            return 400, f"Variant {target} not found.".encode(), ""
        is_theirs = beside and not beside.shadow and (target == beside.name or (not target and beside.turns.next()))
        variant = beside.name if is_theirs else CHAMPION
        status, content = self._ask(backend, name, variant, body, told)
        if beside and beside.shadow:
            self._ask(backend, name, beside.name, body, told)
        return status, content, variant

    def _ask(self, backend: Any, name: str, variant: str, body: bytes, told: dict[str, str]) -> tuple[int, bytes]:
        container = self.running[name] if variant == CHAMPION else self.beside[name].container
        status, content = self._answer(container, body)
        if status == 200:
            if self.distort:
                content = json.dumps(self.distort(json.loads(content))).encode()
            self._capture(backend, name, variant, (body, content), told)
        return status, content

    def _answer(self, container: Container, body: bytes) -> tuple[int, bytes]:
        request = urllib.request.Request(f"{container.url}/invocations", data=body)
        request.add_header("Content-Type", "application/json")
        try:
            with _OPENER.open(request, timeout=60) as answer:
                return 200, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def _capture(self, backend: Any, name: str, variant: str, said: tuple[bytes, bytes], told: dict[str, str]) -> None:
        """Keep request and answer as SageMaker's data capture does: lines of JSON by hour."""
        summary = backend.endpoints[name].data_capture_config
        if not summary or not self.captures[name].next():
            return
        config = backend.describe_endpoint_config(backend.endpoints[name].endpoint_config_name)["DataCaptureConfig"]
        as_text = "application/json" in config.get("CaptureContentTypeHeader", {}).get("JsonContentTypes", [])
        apart_s = float(self.clock_file.read_text()) if self.clock_file else 0.0
        now = datetime.now(UTC) + timedelta(seconds=apart_s)
        line = record_of(*said, now, as_text=as_text, inference_id=told.get("inference_id"))
        bucket, prefix = summary["DestinationS3Uri"].removeprefix("s3://").split("/", 1)
        key = f"{prefix}/{name}/{variant}/{now:%Y/%m/%d/%H/%M-%S}-{now.microsecond // 1000:03}-{uuid.uuid4()}.jsonl"
        self.here.client("s3").put_object(Bucket=bucket, Key=key, Body=line)

    def stop(self) -> None:
        self.hold.clear()
        for thread in self.threads:
            thread.join(150)
        for container in [*(each for name in self.running for each in self._of(name)), *self.spare]:
            container.stop()


def record_of(
    asked: bytes, said: bytes, at: datetime, *, as_text: bool = True, inference_id: str | None = None
) -> bytes:
    """A line as data capture writes it; bodies are Base64 unless their content type was told to be text."""
    kept = {
        f"endpoint{side.title()}": {
            "observedContentType": "application/json",
            "mode": side.upper(),
            "data": data.decode() if as_text else base64.b64encode(data).decode(),
            "encoding": "JSON" if as_text else "BASE64",
        }
        for side, data in (("input", asked), ("output", said))
    }
    about = {"eventId": str(uuid.uuid4()), **({"inferenceId": inference_id} if inference_id else {})}
    about["inferenceTime"] = f"{at:%Y-%m-%dT%H:%M:%SZ}"
    return json.dumps({"captureData": kept, "eventMetadata": about, "eventVersion": "0"}).encode() + b"\n"


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
    create_config = SageMakerResponse.create_endpoint_config
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
        ends.delete(endpoint_name)

    def create_endpoint_config(self: Any) -> Any:
        result = create_config(self)
        config = self.sagemaker_backend.endpoint_configs[self._get_param("EndpointConfigName")]
        shadows = self._get_param("ShadowProductionVariants") or []
        if shadows and (len(shadows), len(config.production_variants)) != (1, 1):
            raise ValidationError(message="One production variant and one shadow variant can be specified.")
        config.shadow_production_variants = shadows
        return result

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
        names = {"target": "Target-Variant", "inference_id": "Inference-Id"}
        told = {key: self.headers.get(f"X-Amzn-SageMaker-{header}", "") for key, header in names.items()}
        status, content, variant = ends.invoke(backend, name, body, told)
        if status == 200:
            return 200, {"Content-Type": "application/json", "x-Amzn-Invoked-Production-Variant": variant}, content
        if not variant:
            said = json.dumps({"Message": content.decode()})
            return 400, {"status": 400, "x-amzn-ErrorType": "ValidationError"}, said
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
    SageMakerResponse.create_endpoint_config = create_endpoint_config
    SageMakerRuntimeResponse.invoke_endpoint = invoke_endpoint
    for name, describe in described.items():
        setattr(SageMakerResponse, f"describe_{name}", without_empties(describe))
    try:
        yield ends
    finally:
        ends.stop()
        SageMakerModelBackend.create_endpoint, SageMakerModelBackend.delete_endpoint = create, delete
        SageMakerRuntimeResponse.invoke_endpoint = kept
        SageMakerResponse.create_endpoint_config = create_config
        for name, describe in described.items():
            setattr(SageMakerResponse, f"describe_{name}", describe)
        del SageMakerResponse.update_endpoint
