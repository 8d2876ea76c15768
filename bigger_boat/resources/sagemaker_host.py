"""The endpoint host of the aws profile: versions as SageMaker models, one endpoint per name, updated in place.

Belongs here: the order of things, so that a version that cannot serve leaves the old one serving. What belongs
elsewhere: what SageMaker is asked (``sagemaker_endpoint.py``), waiting for it (``sagemaker_moves.py``), judging a
version (``ml/gate.py``).

A kill anywhere leaves an endpoint that serves or is on its way; publishing again waits for it and goes on. What a
version's tag says of being rolled back from holds once another one serves: it is written before the endpoint moves, so
that no kill lets the version return by itself.

A way back is not watched by alarms: they may be on because of what is gone back from, and would end it.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from bigger_boat.errors import BundleError, CloudError, ServerError
from bigger_boat.ml.bundle import ARCHIVE_FILE, BUNDLE_FILE, Bundle, read_bundle
from bigger_boat.resources.endpoint_host import (
    EndpointHost,
    PublishResult,
    no_way_back_to,
    nothing_earlier,
    nothing_to_challenge,
    read_bundle_of,
    require_share,
    rolled_back_from,
)
from bigger_boat.resources.s3_storage import S3Storage, version_of
from bigger_boat.resources.sagemaker_config import (
    CAPTURED,
    CHALLENGER_VARIANT,
    SHARE_DIGITS,
    VARIANT,
    EndpointShape,
    Rival,
)
from bigger_boat.resources.sagemaker_endpoint import EndpointState, SageMakerEndpoint, endpoint_name
from bigger_boat.resources.sagemaker_guards import put_alarms, put_scaling
from bigger_boat.resources.sagemaker_moves import Moves
from bigger_boat.serving.published import REFUSED, ROLLED_BACK, utc_now

EXCLUDED, ADDRESS, SERVED = "excluded", "address", "served"
"""Tags of a version: why it may not return by itself; where its bundle lies in the storage; when it began to serve."""


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
        """Deploy a bundle of this storage, ask it its golden requests, and go back if they differ.

        A challenger stays beside it, unless it is the one that is published.
        """
        bundle, endpoint = read_bundle_of(name, bundle_dir), self._endpoint(name)
        was_left = endpoint.tags(bundle.version).get(EXCLUDED) == ROLLED_BACK
        if was_left and not readmit and self._now(endpoint) != bundle.version:
            raise rolled_back_from(name, bundle.version)
        self._add(endpoint, bundle)
        endpoint.tag(bundle.version, EXCLUDED, None)
        result = self._switch(endpoint, name, bundle, put_alarms(endpoint.name))
        self.sweep(name)
        return result

    def rollback(self, name: str, version: str | None = None) -> PublishResult:
        """Let an earlier version serve again, by the same steps as a new one."""
        endpoint = self._endpoint(name)
        current = endpoint.version_of(self._moves(endpoint).settled().config)
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

    def challenge(self, name: str, bundle_dir: Path, share: float, *, shadow: bool = False) -> PublishResult:
        """Let a bundle answer beside what serves, as a second variant, or unseen, as a shadow variant.

        A challenger that was there before goes. A shadow cannot be asked its golden requests through SageMaker.
        """
        bundle, endpoint = read_bundle_of(name, bundle_dir), self._endpoint(name)
        share = round(share, SHARE_DIGITS)
        require_share(share)
        if not endpoint.shape.instance_type:
            text = f"{name} is a serverless endpoint, which runs one version at a time."
            raise BundleError(text, "Set BIGGER_BOAT_ENDPOINT_INSTANCE, and materialize the endpoint, for challengers.")
        moves = self._moves(endpoint)
        before = moves.settled()
        serving = endpoint.version_of(before.config) if before.serves else None
        if serving in (None, bundle.version):
            raise nothing_to_challenge(name, bundle.version)
        self._add(endpoint, bundle)
        config = endpoint.add_config(serving, Rival(bundle.version, share, shadow))
        if before.config != config:
            moves.bring(config, f"challenger {bundle.version}", [])
        if not shadow and (reasons := moves.differences(bundle, CHALLENGER_VARIANT)):
            back = before.config if before.config != config else endpoint.add_config(serving)
            moves.bring(back, f"version {serving} alone", [])
            said = f"Endpoint {endpoint.name} refused challenger {bundle.version} of {name}: {' '.join(reasons)} "
            said += moves.words(endpoint.state())
            return PublishResult(name, bundle.version, "refused", said, self.url, reasons)
        does = "is asked all requests unseen" if shadow else f"answers {share:.0%} of the requests"
        sentence = f"Version {bundle.version} {does} at SageMaker endpoint {endpoint.name}, beside {serving}."
        return PublishResult(name, bundle.version, "challenging", sentence, self.url)

    def end_challenge(self, name: str) -> str:
        """Let what serves answer alone again, and wait until it does."""
        endpoint = self._endpoint(name)
        state = self._moves(endpoint).settled()
        rival = endpoint.rival_of(state.config)
        if rival:
            self._leave_alone(endpoint, state)
        return rival.version if rival else ""

    def challenger(self, name: str) -> str:
        """Return the version that the endpoint runs beside what serves."""
        endpoint = self._endpoint(name)
        rival = endpoint.rival_of(endpoint.state().config)
        return rival.version if rival else ""

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
        config = endpoint.state().config
        serving, rival = endpoint.version_of(config) or "", endpoint.rival_of(config)
        there = [version for version in endpoint.versions() if version < serving and not _is(rival, version)]
        older = {version: endpoint.tags(version) for version in there}
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

    def _moves(self, endpoint: SageMakerEndpoint) -> Moves:
        return Moves(endpoint, self.timeout_s, self.poll_s)

    def _add(self, endpoint: SageMakerEndpoint, bundle: Bundle) -> None:
        """Put a bundle into the storage, and make its model."""
        address = self.storage.publish(bundle.directory)
        model_data = f"{self.storage.root.rstrip('/')}/{version_of(address)}/{ARCHIVE_FILE}"
        endpoint.add_version(bundle.version, model_data, _lineage(bundle, address))

    def _leave_alone(self, endpoint: SageMakerEndpoint, state: EndpointState) -> EndpointState:
        """Take away what stands beside the version that serves; return how the endpoint stands then."""
        version = endpoint.version_of(state.config) or ""
        return self._moves(endpoint).bring(endpoint.add_config(version), f"version {version} alone", [])

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
        moves = self._moves(endpoint)
        before = moves.settled()
        if before.status == "Failed":  # it never served; SageMaker updates no such endpoint
            moves.end()
            before = moves.settled()
        rival = endpoint.rival_of(before.config) if endpoint.shape.instance_type else None
        if _is(rival, bundle.version):  # what it answered is known: now it goes the way of any new version
            before, rival = self._leave_alone(endpoint, before), None
        config = endpoint.add_config(bundle.version, rival)
        if before.config != config:
            moves.bring(config, f"version {bundle.version}", alarms)
        if reasons := moves.differences(bundle, VARIANT if rival else ""):
            after = self._take_back(endpoint, bundle.version, before, config)
            said = f"Endpoint {endpoint.name} refused version {bundle.version} of {name}: {' '.join(reasons)} {after}"
            return PublishResult(name, bundle.version, "refused", said, self.url, reasons)
        put_scaling(endpoint.name, endpoint.shape)
        endpoint.tag(bundle.version, SERVED, utc_now())
        sentence = f"Version {bundle.version} of {name} serves at SageMaker endpoint {endpoint.name}."
        return PublishResult(name, bundle.version, "serving", sentence, self.url)

    def _take_back(self, endpoint: SageMakerEndpoint, version: str, before: EndpointState, config: str) -> str:
        """Let what served before serve again, a version that served all along included; return in words what serves.

        Raises CloudError where the version that answers otherwise could not be taken back.
        """
        back, moves = before.config, self._moves(endpoint)
        if back == config:
            if SERVED in endpoint.tags(version):
                return f"It served before, and is left: look at it. {moves.words(endpoint.state())}"
            others = (other for other in self._good(endpoint) if other != version)
            good = next(others, None)  # a kill came between its going live and its being asked
            back = endpoint.add_config(good) if good else ""
        endpoint.tag(version, EXCLUDED, REFUSED)
        if back:
            moves.go_to(back, alarms=[])
        else:
            moves.end()
        after = moves.settled()
        if after.config != back:
            text = f"Endpoint {endpoint.name} answers otherwise than version {version} did offline, and could not be "
            text += f"taken back: {after.reason or f'it is {after.status}.'} {moves.words(after)}"
            raise CloudError(text, "Look at it in SageMaker; bigger-boat rollback NAME --version VERSION tries again.")
        return moves.words(after)


def _is(rival: Rival | None, version: str) -> bool:
    return rival is not None and rival.version == version


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
