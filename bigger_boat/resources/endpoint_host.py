"""Where versions are published: the interface, and the endpoint host of the local profile.

Belongs here: copying a bundle beside the others, making it current, learning what the server made of it. Does not
belong here: whether it may be published (``ml/gate.py``), serving it (``serving/``).
"""

import contextlib
import os
import shutil
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from bigger_boat.errors import BundleError, GateRefused
from bigger_boat.ml.bundle import Bundle, read_bundle
from bigger_boat.serving.client import post_invocations
from bigger_boat.serving.published import ROLLED_BACK, PublishedEndpoint, WantedChallenger, read_server

_POLL_S = 0.05
_SPARE_BYTES = 1024 * 1024
"""Left free beside a version: what serves has to be recorded, too."""
_REFUSAL_GRACE_S = 2.0
"""The server puts ``current`` back before it writes why."""

LARGEST_SHARE = 0.5
"""Of the requests that a challenger answers: the incumbent keeps most of the sessions."""

StateOf = Callable[[PublishedEndpoint, str], tuple[str | None, list[str]]]

_SENTENCES = {
    "serving": "Version {version} of {name} serves.",
    "challenging": "Version {version} challenges what serves for {name}.",
    "challenger_waits": "Version {version} will challenge what serves for {name} when a server starts; none is up.",
    "waiting": "Version {version} of {name} is published; no server is up, it will load at its next start.",
    "refused": "The server refused version {version} of {name}: {reasons}",
    "superseded": "Version {version} of {name} was superseded by {current}.",
    "unconfirmed": "The server has not said yet whether it takes version {version} of {name}.",
}


@dataclass(frozen=True)
class PublishResult:
    """What became of a version.

    ``state``: ``serving`` (the server answers with it), ``waiting`` (no server is up), ``refused`` (the old one goes on
    serving), ``superseded`` (another one was published meanwhile), ``unconfirmed`` (the server did not say in time).
    """

    name: str
    version: str
    state: str
    sentence: str
    url: str
    reasons: list[str] = field(default_factory=list)

    def require(self) -> "PublishResult":
        """Raise GateRefused if the server refused the version."""
        if self.state == "refused":
            raise GateRefused(self.sentence, "What serves goes on serving. Materialize the model again.")
        return self


class EndpointHost(dg.ConfigurableResource, ABC):
    """Publishes versions of endpoints, goes back to earlier ones, and says which serves."""

    keep_versions: int = Field(default=5, description="Versions kept beside the one that serves; older ones are swept.")

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the endpoints are."""

    @abstractmethod
    def publish(self, name: str, bundle_dir: Path, *, readmit: bool = False) -> PublishResult:
        """Make a bundle the version of an endpoint that serves, and wait until it does or is refused.

        ``readmit`` lets a version return that was rolled back from. Raises BundleError for a damaged bundle or one of
        another endpoint or where it cannot be stored, GateRefused for a version that was rolled back from.
        """

    @abstractmethod
    def rollback(self, name: str, version: str | None = None) -> PublishResult:
        """Let an earlier version serve again (default: the newest before the one that serves).

        The version rolled back from does not return by itself. Raises BundleError if there is no such version.
        """

    def challenge(
        self,
        name: str,
        bundle_dir: Path,  # noqa: ARG002
        share: float,  # noqa: ARG002
        *,
        shadow: bool = False,  # noqa: ARG002
    ) -> PublishResult:
        """Let a bundle answer a ``share`` of an endpoint's requests, or all of them unseen (``shadow``), until ended.

        Raises BundleError for a bundle that cannot be stored or that serves already, or where a host knows none.
        """
        raise BundleError(f"{type(self).__name__} has no challengers for {name}.", "Promote the version instead.")

    def end_challenge(self, name: str) -> str:  # noqa: ARG002
        """Let what serves answer alone again; return the challenger's version, "" where there was none."""
        return ""

    def challenger(self, name: str) -> str:  # noqa: ARG002
        """Return the version that stands beside the one that serves, "" where there is none."""
        return ""

    @abstractmethod
    def serving_version(self, name: str) -> str | None:
        """Return the incumbent, None where nothing was published."""

    @abstractmethod
    def serving_bundle(self, name: str) -> Path | None:
        """Return the directory of the incumbent's bundle."""

    def is_up(self) -> bool:
        """Whether something answers now."""
        return True

    def versions(self, name: str) -> list[Path]:  # noqa: ARG002
        """Return the directories of published versions that lie on this machine, oldest first."""
        return []

    def bundle(self, name: str, version: str) -> Path | None:
        """Return the directory of a published version, brought to this machine if need be; None where it is not."""
        return next((path for path in self.versions(name) if path.name == version), None)

    def serving_since(self, name: str) -> str | None:  # noqa: ARG002
        """Return since when the incumbent serves (ISO 8601, UTC), None where that is not known."""
        return None

    def ask(self, name: str, request: Mapping[str, Any], api_key: str | None = None) -> dict[str, Any]:
        """Return what the endpoint answers to a shop. Raises RequestError or ServerError where it does not."""
        return post_invocations(self.url, name, request, api_key=api_key)

    @abstractmethod
    def sweep(self, name: str) -> list[str]:
        """Remove all but the newest ``keep_versions`` versions and those that serve; return which. ``publish`` does."""

    def description(self, name: str, version: str) -> dict[str, Any] | None:  # noqa: ARG002
        """Return what the bundle of a version says of itself, also when it was swept; None where that is not kept."""
        return None

    def answers(self, bundle_dir: Path, requests: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
        """Start a private server for the bundle, ask it over HTTP, stop it; return the predictions, request by request.

        Raises BundleError if the bundle cannot be loaded. Golden answers are not judged here but by the gate.
        """
        from bigger_boat.serving.server import private_server

        with private_server(Path(bundle_dir)) as url:
            return [post_invocations(url, None, request)["predictions"] for request in requests]


class LocalEndpointHost(EndpointHost):
    """Publishes to ``endpoints_dir``, which the local server follows without a restart."""

    endpoints_dir: str = Field(description="Directory of the published versions, under the data directory.")
    port: int = Field(default=8080, description="Port of the local server.")
    confirm_timeout_s: float = Field(default=120.0, description="How long to wait for the server to take a version.")

    @property
    def url(self) -> str:
        """Address of the server of this directory if one is up, else where it will be."""
        server = read_server(Path(self.endpoints_dir))
        return server["url"] if server else f"http://127.0.0.1:{self.port}"

    def is_up(self) -> bool:
        """Whether a server follows this directory now."""
        return read_server(Path(self.endpoints_dir)) is not None

    def publish(self, name: str, bundle_dir: Path, *, readmit: bool = False) -> PublishResult:
        """Make a bundle the current version, and wait for the server if one is up. Raises what the interface says."""
        bundle = read_bundle(Path(bundle_dir))
        if bundle.name != name:
            raise BundleError(f"A bundle for {bundle.name} cannot be published as {name}.")
        published = self._published(name)
        if not readmit and published.excluded().get(bundle.version) == ROLLED_BACK:
            text = f"Version {bundle.version} of {name} was rolled back from; it does not return by itself."
            raise GateRefused(text, "Promote it by hand if it should serve again.")
        with _disk_is_named(published):
            _copy_version(bundle, published)
            published.keep_description(bundle.version)
            with published.locked():
                published.exclude(bundle.version, None)
                published.forget_refusal()
                published.point_at(bundle.version)
                if self.challenger(name) == bundle.version:
                    published.set_challenger(None)  # it has won
        result = self._await(published, bundle.version)
        self.sweep(name)
        return result

    def rollback(self, name: str, version: str | None = None) -> PublishResult:
        """Make an earlier version current again. Raises BundleError if there is no such version."""
        published = self._published(name)
        with _disk_is_named(published), published.locked():
            current = published.current()
            target = version or _earlier_version(published, current)
            read_bundle(published.path_of(target))
            if target in published.excluded():
                text = f"Version {target} of {name} was {published.excluded()[target]}."
                raise BundleError(text, "Choose another version, or promote this one by hand.")
            if current and current != target:
                published.exclude(current, ROLLED_BACK)
            published.forget_refusal()
            published.point_at(target)
        result = self._await(published, target)
        if result.state == "refused" and current:
            with published.locked():
                published.exclude(current, None)
        return result

    def challenge(self, name: str, bundle_dir: Path, share: float, *, shadow: bool = False) -> PublishResult:
        """Write down who challenges, beside ``current``: it survives restarts. Raises what the interface says."""
        bundle = read_bundle(Path(bundle_dir))
        published = self._published(name)
        if bundle.name != name:
            raise BundleError(f"A bundle for {bundle.name} cannot challenge {name}.")
        if not 0 < share <= LARGEST_SHARE:
            text = f"A challenger gets more than 0 and at most {LARGEST_SHARE:g} of the requests, not {share:g}."
            raise BundleError(text, "Promote it if it should answer more.")
        if self.serving_version(name) in (None, bundle.version):
            raise BundleError(f"{name} has nothing that {bundle.version} could challenge.", "Promote it instead.")
        with _disk_is_named(published):
            _copy_version(bundle, published)
            with published.locked():
                published.forget_refusal()
                published.set_challenger(WantedChallenger(bundle.version, share, shadow))
        return self._await(published, bundle.version, _state_of_challenger)

    def end_challenge(self, name: str) -> str:
        """Take away what is written down; the server follows within a second."""
        published, version = self._published(name), self.challenger(name)
        with published.locked():
            published.set_challenger(None)
        return version

    def challenger(self, name: str) -> str:
        """Return what is written down."""
        wanted = self._published(name).challenger()
        return wanted.version if wanted else ""

    def serving_version(self, name: str) -> str | None:
        """Return the incumbent: what the server serves, or, when none is up, what it will load."""
        published = self._published(name)
        if self.is_up():
            return published.serving_version()
        return published.current() or published.serving_version()

    def serving_bundle(self, name: str) -> Path | None:
        """Return the directory of the incumbent's bundle."""
        version = self.serving_version(name)
        return self._published(name).path_of(version) if version else None

    def versions(self, name: str) -> list[Path]:
        """Return the directories of the versions that are published, oldest first."""
        published = self._published(name)
        return [published.path_of(version) for version in published.list_versions()]

    def serving_since(self, name: str) -> str | None:
        """Return since when the incumbent serves; None if no server has loaded it yet."""
        told = self._published(name).serving() or {}
        return told.get("since") if told.get("version") == self.serving_version(name) else None

    def sweep(self, name: str) -> list[str]:
        """Remove old versions' directories."""
        return _sweep(self._published(name), self.keep_versions)

    def description(self, name: str, version: str) -> dict[str, Any] | None:
        """Return what the version's bundle says of itself, from its own copy or from what was kept of it."""
        return self._published(name).description(version)

    def _published(self, name: str) -> PublishedEndpoint:
        return PublishedEndpoint(Path(self.endpoints_dir), name)

    def _await(self, published: PublishedEndpoint, version: str, state_of: "StateOf | None" = None) -> PublishResult:
        """Wait for the server's word; ``state_of`` reads it."""
        state_of = state_of or _state_of
        deadline = time.monotonic() + self.confirm_timeout_s
        displaced_at: float | None = None
        while True:
            state, reasons = state_of(published, version)
            if state == "displaced":
                displaced_at = displaced_at or time.monotonic()
                state = "superseded" if time.monotonic() - displaced_at > _REFUSAL_GRACE_S else None
            if state is None and time.monotonic() > deadline:
                state = "unconfirmed"
            if state:
                sentence = _SENTENCES[state].format(
                    version=version, name=published.name, reasons=" ".join(reasons), current=published.current()
                )
                return PublishResult(published.name, version, state, sentence, self.url, reasons)
            time.sleep(_POLL_S)


def _state_of(published: PublishedEndpoint, version: str) -> tuple[str | None, list[str]]:
    """Return what the server made of a version so far (None: nothing yet), with its reasons for a refusal."""
    server, serving, refused = read_server(published.directory.parent), published.serving(), published.refused()
    if refused and refused["version"] == version:
        return "refused", refused["reasons"]
    if server is None:
        return "waiting", []
    if serving and serving["version"] == version and serving["pid"] == server.get("pid"):
        return "serving", []
    return ("displaced" if published.current() != version else None), []


def _state_of_challenger(published: PublishedEndpoint, version: str) -> tuple[str | None, list[str]]:
    """Return what the server made of a challenger so far (None: nothing yet), with its reasons for a refusal."""
    server, told, refused = read_server(published.directory.parent), published.challenging(), published.refused()
    if refused and refused["version"] == version:
        return "refused", refused["reasons"]
    if server is None:
        return "challenger_waits", []
    if told and told["version"] == version and told["pid"] == server.get("pid"):
        return "challenging", []
    wanted = published.challenger()
    return (None if wanted and wanted.version == version else "displaced"), []


def _copy_version(bundle: Bundle, published: PublishedEndpoint) -> None:
    """Copy a bundle to its place, verified and with one rename; a good copy that is there already stays."""
    target = published.path_of(bundle.version)
    if target.exists():
        try:
            read_bundle(target)
            return
        except BundleError:
            os.rename(target, published.versions / f".damaged-{uuid.uuid4().hex[:8]}")
    published.versions.mkdir(parents=True, exist_ok=True)
    _require_room(bundle, published)
    temporary = published.versions / f".copying-{uuid.uuid4().hex}"
    try:
        shutil.copytree(bundle.directory, temporary, copy_function=_copy_synced)
        read_bundle(temporary)
        if not target.exists():
            os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for damaged in published.versions.glob(".damaged-*"):
            shutil.rmtree(damaged, ignore_errors=True)


def _require_room(bundle: Bundle, published: PublishedEndpoint) -> None:
    size = sum(path.stat().st_size for path in bundle.directory.rglob("*") if path.is_file()) + _SPARE_BYTES
    free = shutil.disk_usage(published.versions).free
    if free < size:
        needed, there = (f"{count / 2**20:.1f} MiB" for count in (size, free))
        raise BundleError(
            f"There is too little disk for version {bundle.version} of {published.name}: it needs {needed}, {there} "
            f"are free at {published.versions}.",
            "Free some space, or lower BIGGER_BOAT_KEEP_VERSIONS. What serves goes on serving.",
        )


@contextlib.contextmanager
def _disk_is_named(published: PublishedEndpoint) -> Iterator[None]:
    """Say in words what a disk did not let us write. Every write before the last one leaves what serves as it is."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise BundleError(
            f"The versions of {published.name} cannot be changed in {published.directory}: {reason}.",
            "Free some space or correct the rights there. What serves goes on serving.",
        ) from error


def _copy_synced(source: str, target: str) -> str:
    shutil.copyfile(source, target)
    with open(target, "rb+") as stream:
        os.fsync(stream.fileno())
    return target


def _sweep(published: PublishedEndpoint, keep: int) -> list[str]:
    """Remove all but the newest ``keep`` versions and those that serve, served last, or should serve; return which."""
    with published.locked():
        wanted = published.challenger()
        needed = {published.current(), published.serving_version(), wanted.version if wanted else None}
        others = [version for version in published.list_versions() if version not in needed]
        swept = others[: max(0, len(others) - keep)]
        for version in swept:
            published.keep_description(version)
            doomed = published.versions / f".swept-{uuid.uuid4().hex[:8]}"
            os.rename(published.path_of(version), doomed)
            shutil.rmtree(doomed, ignore_errors=True)
    return swept


def _earlier_version(published: PublishedEndpoint, current: str | None) -> str:
    excluded = published.excluded()
    earlier = [name for name in published.list_versions() if name not in excluded and (not current or name < current)]
    if not earlier:
        raise BundleError(f"There is no earlier version of {published.name} to go back to.")
    return earlier[-1]
