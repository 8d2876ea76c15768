"""A small shop at SageMaker whose containers answer at once: none is a process. ``conftest.py`` makes it a fixture.

What a real container does is ``test_sagemaker_host.py``'s.
"""

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from batch_stand_in import BUCKET
from sagemaker_stand_in import IMAGE, NO_PING, Endpoints

from bigger_boat.resources import sagemaker_host
from bigger_boat.resources.s3_storage import S3Storage
from bigger_boat.resources.sagemaker_endpoint import EndpointShape, SageMakerEndpoint
from bigger_boat.resources.sagemaker_host import SageMakerHost

NAME = "recommendation"
FIRST, SECOND, THIRD = (f"2026010{day}T000000000Z-aaaaaaaa" for day in (1, 2, 3))
RIGHT, WRONG = (
    [{"skus": list(skus), "scores": [0.9, 0.1], "fallback": False, "unknown_skus": []}] for skus in ("ab", "ba")
)
NO_ROOM = "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error"
OTHER_IMAGE = IMAGE.replace(":1", ":2")


@dataclass
class Container:
    version: str
    image: str
    log: Path

    def stop(self) -> None:
        """Nothing runs."""


@dataclass
class Shop:
    """An endpoint name of its own, two bundles, and what their containers do."""

    ends: Endpoints
    root: Path
    prefix: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:8]}")
    wrong: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=lambda: {IMAGE, OTHER_IMAGE})
    broken: set[str] = field(default_factory=set)
    full: bool = False
    on_wrong: list = field(default_factory=list)
    number: int = 0

    def host(self, image: str = IMAGE, **shape) -> SageMakerHost:
        return SageMakerHost(
            storage=S3Storage(base_dir=str(self.root), root=f"s3://{BUCKET}/{self.prefix}"),
            role="arn:aws:iam::123456789012:role/endpoint",
            image=image,
            prefix=self.prefix,
            shape=EndpointShape(instance_type="ml.m5.large", **shape),
            timeout_s=60,
            poll_s=0.01,
        )

    @property
    def endpoint(self) -> SageMakerEndpoint:
        return self.host()._endpoint(NAME)

    @property
    def running(self) -> Container | None:
        return self.ends.running.get(self.endpoint.name)

    def bundle(self, path: Path) -> SimpleNamespace:
        golden = [{"request": {"sessions": [["x"]]}, "predictions": RIGHT}]
        version = path.parent.name
        return SimpleNamespace(name=NAME, version=version, directory=path, golden=golden, kind="tiny", info={})

    def folder(self, version: str) -> Path:
        path = self.root / "bundles" / NAME / version / "bundle"
        path.mkdir(parents=True, exist_ok=True)
        (path / "bundle.json").write_text(version)
        return path

    def publish(self, version: str, host: SageMakerHost | None = None):
        return (host or self.host()).publish(NAME, self.folder(version))

    def start(self, backend, variant: dict):
        image = backend.describe_model(variant["ModelName"]).primary_container["Image"]
        version = self.endpoint.version_of(variant["ModelName"])
        if image not in self.images:
            return None, f"The image '{image}' does not exist."
        if self.full:
            return None, f"{NO_ROOM} in the availability zones."
        log = self.root / "log"
        log.touch()
        return (None, NO_PING) if version in self.broken else (Container(version, image, log), None)

    def answer(self, container: Container, body: bytes) -> tuple[int, bytes]:
        version = container.version
        predictions = WRONG if version in self.wrong else RIGHT
        for react in self.on_wrong if predictions is WRONG else ():
            react()
        self.number += 1
        names = {"model": "tiny", "version": version, "request_id": f"own-{self.number}"}
        when = {"answered_at_ms": int(time.time() * 1000), "latency_ms": 1.5}
        return 200, json.dumps({**names, "predictions": predictions, **when}).encode()


@contextmanager
def open_shop(ends: Endpoints, root: Path) -> Iterator[Shop]:
    """A shop in the stand-in, whose endpoint goes with it."""
    made = Shop(ends, root)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ends, "_start", made.start)
        patched.setattr(ends, "_answer", made.answer)
        patched.setattr(ends, "alarm", False)
        patched.setattr(ends, "spare", [])
        patched.setattr(sagemaker_host, "read_bundle_of", lambda name, path: made.bundle(path))
        patched.setattr(sagemaker_host, "read_bundle", made.bundle)
        yield made
        made.endpoint.delete()
