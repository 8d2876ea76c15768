"""Endpoints: the champion, replayed through a private server, judged by the gate, published; and the public API."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import dagster as dg

from bigger_boat.assets.common import ADDRESS_IO, ML_OWNERS, SUMMARY, gate_specs, readable_failures, shown, table
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
        questions = [INTENT_QUESTION, f"session={','.join(popular[:2])}"]
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


def _publish(
    name: str, address: str, storage: Storage, endpoint_host: EndpointHost
) -> Iterator[dg.AssetCheckResult | dg.Output[str]]:
    from bigger_boat.ml import gate
    from bigger_boat.ml.bundle import read_bundle

    with readable_failures():
        directory = storage.fetch(address)
        intact = gate.check_digests(directory)
        yield from shown([intact])
        gate.require([intact], f"The {name} champion")
        bundle = read_bundle(directory)
        judged = [intact, gate.check_judged(bundle.info)]
        yield from shown(judged[1:])
        gate.require(judged, f"Version {bundle.version} of {name}")
        answers = _private_answers(bundle, endpoint_host)
        checks = [*judged, gate.check_golden(bundle.golden, answers)]
        yield from shown(checks[2:])
        gate.require(checks, f"Version {bundle.version} of {name}")
        before = endpoint_host.serving_version(name)
        result, taken = _hand_over(bundle, endpoint_host)
        yield from shown([taken])
        gate.require([taken], f"Version {bundle.version} of {name}")
    stays = before == bundle.version
    yield dg.Output(
        address,
        data_version=dg.DataVersion(bundle.version),
        metadata={
            SUMMARY: f"{bundle.kind} {bundle.version} {'stays' if stays else result.state}",
            "version": bundle.version,
            "state": result.state,
            "sentence": f"Nothing new: version {bundle.version} of {name} stays." if stays else result.sentence,
            "url": dg.MetadataValue.url(result.url),
            "gate": table([asdict(check) for check in checks]),
            "configuration": bundle.info["configuration"],
            "window": bundle.info["refit"],
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
