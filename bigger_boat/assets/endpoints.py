"""Endpoints: the champion, replayed through a private server, judged by the gate, published; and the public API."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import dagster as dg

from bigger_boat.assets.common import (
    ADDRESS_IO,
    ML_OWNERS,
    SUMMARY,
    WINDOW,
    gate_specs,
    readable_failures,
    refusals_show,
    shown,
    table,
)
from bigger_boat.assets.differences import changes_metadata
from bigger_boat.errors import BundleError, GateRefused, RequestError
from bigger_boat.resources.endpoint_host import EndpointHost, PublishResult
from bigger_boat.resources.public_api import PublicApi
from bigger_boat.resources.storage import Storage

if TYPE_CHECKING:
    from bigger_boat.ml.bundle import Bundle
    from bigger_boat.ml.gate import GateCheck

GATE = ("bundle_is_intact", "passed_the_champions_gate", "endpoint_agrees_with_offline", "version_was_taken")
INTENT_QUESTION = "x=start,view,detail,add,view,end"


@dg.asset(
    group_name="endpoints",
    io_manager_key=ADDRESS_IO,
    owners=ML_OWNERS,
    kinds={"python", "sagemaker"},
    code_version="1",
    check_specs=gate_specs("intent_endpoint", *GATE),
)
def intent_endpoint(
    intent_champion: str, storage: Storage, endpoint_host: EndpointHost
) -> Iterator[dg.AssetCheckResult | dg.Output[str]]:
    """Will this cart be bought? The version that answers."""
    yield from _publish("intent", intent_champion, storage, endpoint_host)


@dg.asset(
    group_name="endpoints",
    io_manager_key=ADDRESS_IO,
    owners=ML_OWNERS,
    kinds={"python", "sagemaker"},
    code_version="1",
    check_specs=gate_specs("recommendation_endpoint", *GATE),
)
def recommendation_endpoint(
    recommendation_champion: str, storage: Storage, endpoint_host: EndpointHost
) -> Iterator[dg.AssetCheckResult | dg.Output[str]]:
    """Which products come next? The version that answers."""
    yield from _publish("recommendation", recommendation_champion, storage, endpoint_host)


@dg.asset(
    group_name="endpoints",
    io_manager_key=ADDRESS_IO,
    owners=ML_OWNERS,
    kinds={"python"},
    code_version="1",
)
def prediction_api(
    intent_endpoint: str, recommendation_endpoint: str, storage: Storage, public_api: PublicApi
) -> dg.Output[str]:
    """What the shop calls. Asked once, as the shop would."""
    from bigger_boat.ml.bundle import read_bundle

    with readable_failures():
        deployed = public_api.deploy()
        popular = read_bundle(storage.fetch(recommendation_endpoint)).golden[0]["predictions"][0]["skus"]
        questions = [INTENT_QUESTION, f"session={quote(','.join(popular[:2]), safe=',')}"]
        answers = [public_api.get(question) for question in questions]
    return dg.Output(
        public_api.url,
        metadata={
            SUMMARY: public_api.url,
            "url": dg.MetadataValue.url(public_api.url),
            "questions": [f"{public_api.url}/predict?{question}" for question in questions],
            "answers": answers,
            **deployed,
            "published": {"intent": intent_endpoint, "recommendation": recommendation_endpoint},
        },
    )


def judge(name: str, directory: Path, endpoint_host: EndpointHost) -> Iterator["GateCheck"]:
    """Yield each check of the endpoint's gate as it is made; raise GateRefused behind one that failed."""
    from bigger_boat.ml import gate
    from bigger_boat.ml.bundle import read_bundle

    intact = gate.check_digests(directory)
    yield intact
    gate.require([intact], f"The {name} champion")
    bundle = read_bundle(directory)
    subject = f"Version {bundle.version} of {name}"
    judged = gate.check_judged(bundle.info)
    yield judged
    gate.require([judged], subject)
    agrees = gate.check_golden(bundle.golden, _private_answers(bundle, endpoint_host))
    yield agrees
    gate.require([agrees], subject)


def serving_metadata(
    bundle: "Bundle", result: PublishResult, endpoint_host: EndpointHost
) -> dict[str, dg.MetadataValue | str]:
    """Return what an endpoint shows of the version that serves: since when, on what evidence, fitted on which days."""
    info = bundle.info
    evidence = [{"check": c["name"], "passed": c["passed"], "says": c["description"]} for c in info.get("gate") or []]
    return {
        "version": bundle.version,
        "state": result.state,
        "sentence": result.sentence,
        "since": endpoint_host.serving_since(bundle.name) or "not loaded yet: no server is up",
        "evidence": info.get("candidate", {}).get("reason", "none was written down"),
        "champions_gate": table(evidence),
        "url": dg.MetadataValue.url(result.url),
        "configuration": dg.MetadataValue.json(info.get("configuration") or {}),
        **({WINDOW: dg.MetadataValue.json(info["refit"])} if info.get("refit") else {}),
    }


def _publish(
    name: str, address: str, storage: Storage, endpoint_host: EndpointHost
) -> Iterator[dg.AssetCheckResult | dg.Output[str]]:
    from bigger_boat.ml import gate
    from bigger_boat.ml.bundle import read_bundle

    with readable_failures():
        directory = storage.fetch(address)
        before, old = endpoint_host.serving_version(name), endpoint_host.serving_bundle(name)
        checks = []
        with refusals_show(lambda: changes_metadata(old, directory, storage)):
            for check in judge(name, directory, endpoint_host):
                checks.append(check)
                yield from shown([check])
            bundle = read_bundle(directory)
            result, taken = _hand_over(bundle, endpoint_host)
            yield from shown([taken])
            gate.require([taken], f"Version {bundle.version} of {name}")
        stays = before == bundle.version
        changes = {} if stays else changes_metadata(old, directory, storage)
    sentence = f"Nothing new: version {bundle.version} of {name} stays." if stays else result.sentence
    yield dg.Output(
        address,
        data_version=dg.DataVersion(bundle.version),
        metadata={
            SUMMARY: f"{bundle.kind} {bundle.version} {'stays' if stays else result.state}",
            **serving_metadata(bundle, replace(result, sentence=sentence), endpoint_host),
            "gate": table([asdict(check) for check in checks]),
            **changes,
        },
    )


def _hand_over(bundle: "Bundle", endpoint_host: EndpointHost) -> tuple[PublishResult, "GateCheck"]:
    """Publish; return what became of it, also as a check that can be shown before the gate refuses."""
    from bigger_boat.ml.gate import GateCheck

    try:
        result = endpoint_host.publish(bundle.name, bundle.directory)
    except (BundleError, GateRefused) as error:
        result = PublishResult(bundle.name, bundle.version, "refused", error.message, endpoint_host.url)
    return result, GateCheck("version_was_taken", result.state != "refused", result.sentence)


def _private_answers(bundle: "Bundle", endpoint_host: EndpointHost) -> list[list[dict]]:
    """Ask the golden requests of a private server. A graph that fails to load or to answer is refused."""
    try:
        return endpoint_host.answers(bundle.directory, [entry["request"] for entry in bundle.golden])
    except (BundleError, RequestError) as error:
        raise GateRefused(
            f"Version {bundle.version} of {bundle.name} is not promoted: it does not answer the golden requests. "
            f"{error.message}",
            "What serves goes on serving. Materialize the model again.",
        ) from error
