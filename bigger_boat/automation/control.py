"""What a person does to an endpoint: promote a version, roll back, replay its golden requests.

The jobs of the web UI (``control_jobs.py``) and the command line call the same functions. Each change leaves an event
on the endpoint's asset: which version, why, by whom, what it changes. What belongs elsewhere: the gate
(``ml/gate.py``), the swap itself (``resources/endpoint_host.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from bigger_boat.assets.differences import changes_metadata, find_version
from bigger_boat.assets.endpoints import judge, serving_metadata
from bigger_boat.errors import GateRefused, RequestError, ServerError
from bigger_boat.resources.endpoint_host import EndpointHost, PublishResult
from bigger_boat.resources.storage import Storage

MOST_TRIES = 60


@dataclass(frozen=True)
class Change:
    """What was done to an endpoint; ``before``: the bundle that served until then, None if nothing did."""

    action: str
    result: PublishResult
    before: Path | None


def promote(name: str, version: str, storage: Storage, endpoint_host: EndpointHost) -> Change:
    """Let a version serve after the endpoint's gate let it pass, also one that was rolled back from.

    Raises BundleError if there is no such version, GateRefused if the gate or the server refuses it.
    """
    directory = find_version(version, storage, endpoint_host, name)
    for _ in judge(name, directory, endpoint_host):
        pass  # it raises behind a check that failed
    before = endpoint_host.serving_bundle(name)
    return Change("promoted", endpoint_host.publish(name, directory, readmit=True).require(), before)


def challenge(
    name: str, version: str, share: float, shadow: bool, storage: Storage, endpoint_host: EndpointHost
) -> PublishResult:
    """Let a version answer a share of the requests, or all unseen, after the endpoint's gate let it pass.

    Raises BundleError if there is no such version or nothing to challenge, GateRefused if gate or server refuse it.
    """
    directory = find_version(version, storage, endpoint_host, name)
    for _ in judge(name, directory, endpoint_host):
        pass
    return endpoint_host.challenge(name, directory, share, shadow=shadow).require()


def challenge_event(name: str, version: str, what: str, reason: str, by: str) -> dg.AssetObservation:
    """Return the event on the endpoint's asset; the version that serves is the same as before."""
    metadata = {"action": what, "challenger": version, "reason": reason or "none was given", "by": by}
    return dg.AssetObservation(f"{name}_endpoint", metadata=metadata)


def roll_back(name: str, version: str | None, endpoint_host: EndpointHost) -> Change:
    """Let an earlier version serve again (default: the one before). Raises BundleError or GateRefused if it cannot."""
    before = endpoint_host.serving_bundle(name)
    return Change("rolled back", endpoint_host.rollback(name, version).require(), before)


def event_of(
    change: Change, reason: str, by: str, storage: Storage, endpoint_host: EndpointHost
) -> dg.AssetObservation:
    """Return the event that stands on the endpoint's asset; ``by``: a run, or who typed the command."""
    from bigger_boat.ml.bundle import read_bundle

    result = change.result
    directory = find_version(result.version, storage, endpoint_host, result.name)
    metadata = {
        "action": change.action,
        "reason": reason or "none was given",
        "by": by,
        **serving_metadata(read_bundle(directory), result, endpoint_host),
        "version_before": read_bundle(change.before).version if change.before else "none",
        **changes_metadata(change.before, directory, storage),
    }
    return dg.AssetObservation(f"{result.name}_endpoint", metadata=metadata)


def replay_golden(name: str, endpoint_host: EndpointHost, api_key: str | None) -> str:
    """Ask the server the golden requests of the version that serves; return in a sentence that all was as offline.

    Raises ServerError where no server answers, GateRefused with the differences.
    """
    from bigger_boat.ml.bundle import read_bundle
    from bigger_boat.ml.gate import check_golden

    directory = endpoint_host.serving_bundle(name)
    if directory is None or not endpoint_host.is_up():
        raise ServerError(f"Nothing answers for {name} that could be asked.", "Start the server: bigger-boat serve")
    bundle = read_bundle(directory)
    try:
        answers = [_incumbents(name, entry["request"], endpoint_host, api_key) for entry in bundle.golden]
    except RequestError as error:
        raise GateRefused(f"The server declines a golden request of {name}: {error.message}") from error
    others = {answer["version"] for answer in answers} - {bundle.version}
    if others:
        raise GateRefused(
            f"Version {bundle.version} of {name} should serve, and {', '.join(sorted(others))} answered.",
            "If a version was promoted meanwhile, ask again.",
        )
    check = check_golden(bundle.golden, [answer["predictions"] for answer in answers])
    sentence = f"Version {bundle.version} of {name}: {check.description}"
    if not check.passed:
        raise GateRefused(sentence, f"Restart the server, or go back: bigger-boat rollback {name}")
    return sentence


def _incumbents(
    name: str, request: Mapping[str, Any], endpoint_host: EndpointHost, api_key: str | None
) -> dict[str, Any]:
    """Return the answer of what serves: a challenger answers at most every other request of no session."""
    challenger = endpoint_host.challenger(name)
    answer = endpoint_host.ask(name, request, api_key)
    for _ in range(MOST_TRIES):
        if answer["version"] != challenger:
            break
        answer = endpoint_host.ask(name, request, api_key)
    return answer
