"""Where versions are published: the interface of a profile's endpoint host, and what every host refuses.

What belongs elsewhere: the hosts (``local_endpoint_host.py``, ``sagemaker_host.py``), whether a version may be
published (``ml/gate.py``), serving it (``serving/``).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from bigger_boat.errors import BundleError, GateRefused
from bigger_boat.ml.bundle import Bundle, read_bundle
from bigger_boat.serving.client import post_invocations

LARGEST_SHARE = 0.5
"""Of the requests that a challenger answers: the incumbent keeps most of the sessions."""


@dataclass(frozen=True)
class PublishResult:
    """What became of a version.

    ``state``: ``serving`` (the server answers with it), ``waiting`` (no server is up), ``challenging`` (it stands
    beside what serves), ``challenger_waits`` (it will when a server is up), ``refused`` (what served goes on serving),
    ``superseded`` (another one was published meanwhile), ``unconfirmed`` (the server did not say in time).
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

    @abstractmethod
    def challenge(self, name: str, bundle_dir: Path, share: float, *, shadow: bool = False) -> PublishResult:
        """Let a bundle answer a ``share`` of an endpoint's requests, or all of them unseen (``shadow``), until ended.

        Raises BundleError for a bundle that cannot be stored or that serves already, and where no two can be run.
        """

    @abstractmethod
    def end_challenge(self, name: str) -> str:
        """Let what serves answer alone again; return the challenger's version, "" where there was none."""

    @abstractmethod
    def challenger(self, name: str) -> str:
        """Return the version that stands beside the one that serves, "" where there is none."""

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


def read_bundle_of(name: str, bundle_dir: Path) -> Bundle:
    """Return the bundle in a directory. Raises BundleError for a damaged one, and for one of another endpoint."""
    bundle = read_bundle(Path(bundle_dir))
    if bundle.name != name:
        raise BundleError(f"A bundle for {bundle.name} cannot be published as {name}.")
    return bundle


def rolled_back_from(name: str, version: str) -> GateRefused:
    """Return the refusal of a version that may not return by itself."""
    text = f"Version {version} of {name} was rolled back from; it does not return by itself."
    return GateRefused(text, "Promote it by hand if it should serve again.")


def no_way_back_to(name: str, version: str, why: str) -> BundleError:
    """Return the refusal to go back to a version that was refused or rolled back from."""
    return BundleError(
        f"Version {version} of {name} was {why}.", "Choose another version, or promote this one by hand."
    )


def nothing_earlier(name: str) -> BundleError:
    """Return the refusal to go back where nothing is left to go back to."""
    return BundleError(f"There is no earlier version of {name} to go back to.")


def require_share(share: float) -> None:
    """Raise BundleError for a share of the requests that no challenger gets."""
    if not 0 < share <= LARGEST_SHARE:
        text = f"A challenger gets more than 0 and at most {LARGEST_SHARE:g} of the requests, not {share:g}."
        raise BundleError(text, "Promote it if it should answer more.")


def nothing_to_challenge(name: str, version: str) -> BundleError:
    """Return the refusal of a challenger where nothing serves, or it does itself."""
    return BundleError(f"{name} has nothing that {version} could challenge.", "Promote it instead.")
