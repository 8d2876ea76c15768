"""The endpoint host of the local profile: versions as folders, which the local server follows without a restart.

Belongs here: copying a bundle beside the others, making it current, learning what the server made of it. What belongs
elsewhere: the folders' layout (``serving/published.py``), the interface (``endpoint_host.py``).
"""

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from bigger_boat.errors import BundleError
from bigger_boat.ml.bundle import Bundle, read_bundle
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
from bigger_boat.serving.published import ROLLED_BACK, PublishedEndpoint, WantedChallenger, read_server

_POLL_S = 0.05
_SPARE_BYTES = 1024 * 1024
"""Left free beside a version: what serves has to be recorded, too."""
_REFUSAL_GRACE_S = 2.0
"""The server puts ``current`` back before it writes why."""

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
class _Role:
    """What a version should be, and how the server speaks of it: ``done`` and ``waits`` are states of PublishResult."""

    done: str
    waits: str
    told: Callable[[PublishedEndpoint], dict[str, Any] | None]
    wanted: Callable[[PublishedEndpoint], str | None]


def _wanted_challenger(published: PublishedEndpoint) -> str | None:
    wanted = published.challenger()
    return wanted.version if wanted else None


_INCUMBENT = _Role("serving", "waiting", PublishedEndpoint.serving, PublishedEndpoint.current)
_CHALLENGER = _Role("challenging", "challenger_waits", PublishedEndpoint.challenging, _wanted_challenger)


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
        bundle, published = read_bundle_of(name, bundle_dir), self._published(name)
        if not readmit and published.excluded().get(bundle.version) == ROLLED_BACK:
            raise rolled_back_from(name, bundle.version)
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
            if why := published.excluded().get(target):
                raise no_way_back_to(name, target, why)
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
        bundle, published = read_bundle_of(name, bundle_dir), self._published(name)
        require_share(share)
        if self.serving_version(name) in (None, bundle.version):
            raise nothing_to_challenge(name, bundle.version)
        with _disk_is_named(published):
            _copy_version(bundle, published)
            with published.locked():
                published.forget_refusal()
                published.set_challenger(WantedChallenger(bundle.version, share, shadow))
        return self._await(published, bundle.version, _CHALLENGER)

    def end_challenge(self, name: str) -> str:
        """Take away what is written down; the server follows within a second."""
        published, version = self._published(name), self.challenger(name)
        with published.locked():
            published.set_challenger(None)
        return version

    def challenger(self, name: str) -> str:
        """Return what is written down."""
        return _wanted_challenger(self._published(name)) or ""

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

    def _await(self, published: PublishedEndpoint, version: str, role: _Role = _INCUMBENT) -> PublishResult:
        """Wait for the server's word on a version in its role."""
        deadline = time.monotonic() + self.confirm_timeout_s
        displaced_at: float | None = None
        while True:
            state, reasons = _state_of(published, version, role)
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


def _state_of(published: PublishedEndpoint, version: str, role: _Role) -> tuple[str | None, list[str]]:
    """Return what the server made of a version so far (None: nothing yet), with its reasons for a refusal."""
    server, told, refused = read_server(published.directory.parent), role.told(published), published.refused()
    if refused and refused["version"] == version:
        return "refused", refused["reasons"]
    if server is None:
        return role.waits, []
    if told and told["version"] == version and told["pid"] == server.get("pid"):
        return role.done, []
    return (None if role.wanted(published) == version else "displaced"), []


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
        needed = {published.current(), published.serving_version(), _wanted_challenger(published)}
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
        raise nothing_earlier(published.name)
    return earlier[-1]
