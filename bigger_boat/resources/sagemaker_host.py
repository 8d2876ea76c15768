"""The endpoint host of the aws profile: versions as SageMaker models, one endpoint per name, updated in place.

Belongs here: the order of things, so that a version that cannot serve leaves the old one serving. What belongs
elsewhere: what SageMaker is asked (``sagemaker_endpoint.py``), judging a version (``ml/gate.py``).

A kill anywhere leaves an endpoint that serves or is on its way; publishing again waits for it and goes on. What a
version's tag says of being rolled back from holds once another one serves: it is written before the endpoint moves, so
that no kill lets the version return by itself.

A way back is not watched by alarms: they may be on because of what is gone back from, and would end it.
"""

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from bigger_boat.errors import BundleError, CloudError, ServerError
from bigger_boat.ml.bundle import ARCHIVE_FILE, BUNDLE_FILE, Bundle, read_bundle
from bigger_boat.ml.gate import check_golden
from bigger_boat.resources.endpoint_host import (
    EndpointHost,
    PublishResult,
    no_way_back_to,
    nothing_earlier,
    read_bundle_of,
    rolled_back_from,
)
from bigger_boat.resources.s3_storage import S3Storage, version_of
from bigger_boat.resources.sagemaker_endpoint import (
    CAPTURED,
    EndpointShape,
    EndpointState,
    SageMakerEndpoint,
    endpoint_name,
)
from bigger_boat.resources.sagemaker_guards import put_alarms, put_scaling, remove_scaling
from bigger_boat.serving.captured import OURS
from bigger_boat.serving.published import REFUSED, ROLLED_BACK, utc_now

EXCLUDED, ADDRESS, SERVED = "excluded", "address", "served"
"""Tags of a version: why it may not return by itself; where its bundle lies in the storage; when it began to serve."""

_FAULTS = (
    ("health check", "Read its log group in CloudWatch, or start it here: bigger-boat serve --bundle DIR."),
    ("image", "Check BIGGER_BOAT_SERVING_IMAGE, and that BIGGER_BOAT_ENDPOINT_ROLE may pull it."),
    ("alarm", "Look at the endpoint's alarms in CloudWatch: the new version answered badly, or they were on before."),
    ("capacity", "Try again later, or choose another BIGGER_BOAT_ENDPOINT_INSTANCE."),
)
"""Words of SageMaker's reasons, and what to do."""


class SageMakerHost(EndpointHost):
    """Publishes bundles to SageMaker."""

    storage: S3Storage
    role: str = Field(description="ARN of the role that endpoints run with")
    image: str = Field(description="address of the serving image in ECR")
    prefix: str = Field("bigger-boat", pattern="^[a-z0-9][a-z0-9-]{0,10}$", description="how endpoint names begin")
    shape: EndpointShape = Field(EndpointShape(), description="what a version runs on")
    timeout_s: float = Field(3600.0, gt=0, description="how long to wait for an endpoint to settle, in s")
    poll_s: float = Field(10.0, gt=0, description="how often it is asked how it stands, in s")

    @property
    def url(self) -> str:
        """Where the endpoints are: SageMaker's runtime API, which asks for signed requests."""
        from bigger_boat.resources.aws import aws_client

        return aws_client("sagemaker-runtime").meta.endpoint_url

    def endpoint_name(self, name: str) -> str:
        """Return the name that SageMaker knows an endpoint by."""
        return endpoint_name(self.prefix, name)

    def publish(self, name: str, bundle_dir: Path, *, readmit: bool = False) -> PublishResult:
        """Deploy a bundle of this storage, ask it its golden requests, and go back if they differ."""
        bundle, endpoint = read_bundle_of(name, bundle_dir), self._endpoint(name)
        was_left = endpoint.tags(bundle.version).get(EXCLUDED) == ROLLED_BACK
        if was_left and not readmit and self._now(endpoint) != bundle.version:
            raise rolled_back_from(name, bundle.version)
        address = self.storage.publish(bundle.directory)
        model_data = f"{self.storage.root.rstrip('/')}/{version_of(address)}/{ARCHIVE_FILE}"
        endpoint.add_version(bundle.version, model_data, _lineage(bundle, address))
        endpoint.tag(bundle.version, EXCLUDED, None)
        result = self._switch(endpoint, name, bundle, put_alarms(endpoint.name))
        self.sweep(name)
        return result

    def rollback(self, name: str, version: str | None = None) -> PublishResult:
        """Let an earlier version serve again, by the same steps as a new one."""
        endpoint = self._endpoint(name)
        current = endpoint.version_of(self._settled(endpoint).config)
        target = version or self._earlier(endpoint, name, current)
        tags = endpoint.tags(target)
        if ADDRESS not in tags:
            raise BundleError(f"There is no version {target} of {name} at SageMaker.")
        if EXCLUDED in tags and target != current:
            raise no_way_back_to(name, target, tags[EXCLUDED])
        bundle = read_bundle(self.storage.fetch(tags[ADDRESS]))
        if current and current != target:
            endpoint.tag(current, EXCLUDED, ROLLED_BACK)
        try:
            return self._switch(endpoint, name, bundle, alarms=[])
        finally:
            self._readmit_what_serves(endpoint)

    def serving_version(self, name: str) -> str | None:
        """Return the version that answers now."""
        return self._now(self._endpoint(name))

    def serving_bundle(self, name: str) -> Path | None:
        """Return its bundle's directory, fetched from the storage."""
        version = self.serving_version(name)
        return self.bundle(name, version) if version else None

    def bundle(self, name: str, version: str) -> Path | None:
        """Return the directory of a version that was published, fetched from the storage."""
        address = self._endpoint(name).tags(version).get(ADDRESS)
        return self.storage.fetch(address) if address else None

    def description(self, name: str, version: str) -> dict[str, Any] | None:
        """Return what the bundle says of itself, which stays in the storage when its model is swept."""
        address = self._endpoint(name).tags(version).get(ADDRESS, f"bundles/{name}_champion/{version}/bundle")
        text = self.storage.store.read_text(f"{address}/{BUNDLE_FILE}")
        return json.loads(text) if text else None

    def serving_since(self, name: str) -> str | None:
        """Return when the golden answers of the version that serves were found right."""
        version = self.serving_version(name)
        return self._endpoint(name).tags(version).get(SERVED) if version else None

    def ask(self, name: str, request: Mapping[str, Any], api_key: str | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Ask through SageMaker's runtime, whose requests are signed. Raises ServerError where it does not answer."""
        try:
            return self._endpoint(name).ask(request)
        except CloudError as error:
            raise ServerError(error.message, error.hint) from error

    def sweep(self, name: str) -> list[str]:
        """Remove models and configurations of old versions, and of those that never served; their files stay on S3.

        What was rolled back from stays, because its model says so.
        """
        endpoint = self._endpoint(name)
        serving = endpoint.version_of(endpoint.state().config) or ""
        older = {version: endpoint.tags(version) for version in endpoint.versions() if version < serving}
        removable = {version: SERVED in tags for version, tags in older.items() if tags.get(EXCLUDED) != ROLLED_BACK}
        served = [version for version, has_served in removable.items() if has_served]
        doomed = [version for version in removable if version not in served[-self.keep_versions :]]
        for version in doomed:
            endpoint.remove_version(version)
        return doomed

    def _endpoint(self, name: str) -> SageMakerEndpoint:
        capture = f"{self.storage.root.rstrip('/')}/{CAPTURED}" if self.shape.capture_percent else ""
        shape = EndpointShape(**{**self.shape.model_dump(), "capture_root": self.shape.capture_root or capture})
        return SageMakerEndpoint(self.endpoint_name(name), self.role, self.image, shape)

    def _earlier(self, endpoint: SageMakerEndpoint, name: str, current: str | None) -> str:
        for version in self._good(endpoint):
            if not current or version < current:
                return version
        raise nothing_earlier(name)

    def _good(self, endpoint: SageMakerEndpoint) -> Iterator[str]:
        """Yield the versions that served and may return by themselves, newest first."""
        for version in reversed(endpoint.versions()):
            tags = endpoint.tags(version)
            if SERVED in tags and EXCLUDED not in tags:
                yield version

    def _now(self, endpoint: SageMakerEndpoint) -> str | None:
        state = endpoint.state()
        return endpoint.version_of(state.config) if state.serves else None

    def _readmit_what_serves(self, endpoint: SageMakerEndpoint) -> None:
        """Where a way back did not arrive, what serves on was not rolled back from. What is on its way may arrive."""
        with contextlib.suppress(CloudError):  # then its tag stays, which holds for no version that serves
            state = endpoint.state()
            if state.serves and not state.is_moving and (version := endpoint.version_of(state.config)):
                endpoint.tag(version, EXCLUDED, None)

    def _switch(self, endpoint: SageMakerEndpoint, name: str, bundle: Bundle, alarms: list[str]) -> PublishResult:
        """Bring the endpoint to a version; what cannot serve, or answers otherwise, is taken back."""
        before = self._settled(endpoint)
        if before.status == "Failed":  # it never served; SageMaker updates no such endpoint
            _end(endpoint)
            before = self._settled(endpoint)
        config = endpoint.add_config(bundle.version)
        if before.config != config:
            self._go_to(endpoint, config, alarms)
            after = self._settled(endpoint)
            if after.status != "InService" or after.config != config:
                raise self._failed(endpoint, bundle.version, after)
        if reasons := self._differences(endpoint, bundle):
            after = self._take_back(endpoint, bundle.version, before, config)
            said = f"Endpoint {endpoint.name} refused version {bundle.version} of {name}: {' '.join(reasons)} {after}"
            return PublishResult(name, bundle.version, "refused", said, self.url, reasons)
        put_scaling(endpoint.name, endpoint.shape)
        endpoint.tag(bundle.version, SERVED, utc_now())
        sentence = f"Version {bundle.version} of {name} serves at SageMaker endpoint {endpoint.name}."
        return PublishResult(name, bundle.version, "serving", sentence, self.url)

    def _go_to(self, endpoint: SageMakerEndpoint, config: str, alarms: list[str]) -> None:
        """Begin to bring the endpoint to a configuration. Raises CloudError that says what serves then."""
        try:
            endpoint.go_to(config, alarms)
        except CloudError as error:
            serves = _words(endpoint, endpoint.state())
            raise CloudError(f"{error.message.rstrip('.')}. {serves}", error.hint, may_pass=error.may_pass) from error

    def _settled(self, endpoint: SageMakerEndpoint) -> EndpointState:
        """Wait until nothing is on its way, and tell how it stands meanwhile; return how it stands then."""
        tell, began, known = dg.get_dagster_logger("endpoints").info, time.monotonic(), ""
        while True:
            state = endpoint.state()
            waited_s = time.monotonic() - began
            known = _tell(tell, endpoint.name, state, known, waited_s)
            if not state.is_moving:
                return state
            if waited_s > self.timeout_s:
                raise CloudError(
                    f"Endpoint {endpoint.name} is still {state.status} after {waited_s:.0f} s. "
                    f"{_words(endpoint, state)}",
                    "SageMaker goes on, or back to the old version. Materialize the endpoint again to follow it.",
                )
            time.sleep(self.poll_s)

    def _failed(self, endpoint: SageMakerEndpoint, version: str, state: EndpointState) -> CloudError:
        """Return in words why an update did not arrive."""
        if state.status == "Failed":
            _end(endpoint)  # it bills nothing, but it could never be updated
        reason = state.reason or f"SageMaker gives no reason; the endpoint is {state.status or 'gone'}."
        hints = [hint for word, hint in _FAULTS if word in reason.lower()]
        return CloudError(
            f"Endpoint {endpoint.name} could not be brought to version {version}: {reason} {_words(endpoint, state)}",
            hints[0] if hints else f"Look at log group /aws/sagemaker/Endpoints/{endpoint.name} in CloudWatch.",
        )

    def _differences(self, endpoint: SageMakerEndpoint, bundle: Bundle) -> list[str]:
        """Ask the golden requests through SageMaker; return what is wrong with the answers."""
        try:
            answers = [endpoint.ask(entry["request"], f"{OURS}{uuid.uuid4()}") for entry in bundle.golden]
        except CloudError as error:
            return [error.message]
        versions = {answer.get("version") for answer in answers} - {bundle.version}
        if versions:
            return [f"Version {', '.join(map(str, versions))} answered."]
        check = check_golden(bundle.golden, [answer["predictions"] for answer in answers])
        return [] if check.passed else [check.description]

    def _take_back(self, endpoint: SageMakerEndpoint, version: str, before: EndpointState, config: str) -> str:
        """Let what served before serve again, a version that served all along included; return in words what serves.

        Raises CloudError where the version that answers otherwise could not be taken back.
        """
        back = before.config
        if back == config:
            if SERVED in endpoint.tags(version):
                return f"It served before, and is left: look at it. {_words(endpoint, endpoint.state())}"
            others = (other for other in self._good(endpoint) if other != version)
            good = next(others, None)  # a kill came between its going live and its being asked
            back = endpoint.add_config(good) if good else ""
        endpoint.tag(version, EXCLUDED, REFUSED)
        if back:
            self._go_to(endpoint, back, alarms=[])
        else:
            _end(endpoint)
        after = self._settled(endpoint)
        if after.config != back:
            text = f"Endpoint {endpoint.name} answers otherwise than version {version} did offline, and could not be "
            text += f"taken back: {after.reason or f'it is {after.status}.'} {_words(endpoint, after)}"
            raise CloudError(text, "Look at it in SageMaker; bigger-boat rollback NAME --version VERSION tries again.")
        return _words(endpoint, after)


def _words(endpoint: SageMakerEndpoint, state: EndpointState) -> str:
    """Return in words what serves, as SageMaker says."""
    if not state.serves:
        return "Nothing serves."
    return f"Version {endpoint.version_of(state.config) or f'of configuration {state.config}'} goes on serving."


def _end(endpoint: SageMakerEndpoint) -> None:
    """Delete an endpoint, with what scales it; its versions stay."""
    remove_scaling(endpoint.name)
    endpoint.delete()


def _lineage(bundle: Bundle, address: str) -> dict[str, str]:
    """Return what a version's tags say of it."""
    data = bundle.info.get("data_versions", {})
    return {
        ADDRESS: address,
        "version": bundle.version,
        "kind": bundle.kind,
        "git_commit": str(bundle.info.get("git_commit", "")),
        **{f"data.{name}": str(version) for name, version in data.items()},
    }


def _tell(tell: Callable[[str], None], name: str, state: EndpointState, known: str, waited_s: float) -> str:
    """Log a change, and each minute that it lasts; return what is known now."""
    now = f"{state.status or 'absent'} {waited_s // 60:.0f}"
    if state.is_moving and now != known:
        tell(f"Endpoint {name} is {state.status}, for {waited_s:.0f} s.")
    return now
