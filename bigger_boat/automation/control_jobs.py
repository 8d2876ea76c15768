"""Jobs by which a person controls the endpoints from the web UI; what they do stands in ``control.py``."""

from typing import Literal

import dagster as dg
from pydantic import Field

from bigger_boat.assets.common import readable_failures
from bigger_boat.automation import control
from bigger_boat.automation.jobs import TIMEOUT_TAG
from bigger_boat.data.vocabulary import ENDPOINTS
from bigger_boat.resources.endpoint_host import LARGEST_SHARE, EndpointHost
from bigger_boat.resources.local_server import api_key
from bigger_boat.resources.storage import Storage
from bigger_boat.settings import get_settings

Endpoint = Literal["recommendation", "intent"]


class Promotion(dg.Config):
    """What should serve, and why."""

    endpoint: Endpoint = Field(description="The endpoint whose version changes.")
    version: str = Field(description="The version that should serve: published, or still among the champions' bundles.")
    reason: str = Field(description="Why, in a sentence: it stands on the endpoint's asset.", min_length=3)


class Rollback(dg.Config):
    """What should serve again, and why."""

    endpoint: Endpoint = Field(description="The endpoint to roll back.")
    version: str | None = Field(None, description="The version to go back to; default: the one that served before.")
    reason: str = Field("", description="Why, in a sentence: it stands on the endpoint's asset.")


class Challenge(dg.Config):
    """Which version stands beside the one that serves, for how many requests."""

    endpoint: Endpoint = Field(description="The endpoint that gets a challenger.")
    version: str = Field(description="The version that challenges: published, or among the champions' bundles.")
    share: float = Field(0.1, gt=0, le=LARGEST_SHARE, description="Share of the sessions that it answers.")
    shadow: bool = Field(False, description="Answer nobody: be asked everything unseen, for the log of answers.")
    reason: str = Field("", description="Why, in a sentence: it stands on the endpoint's asset.")


class EndOfChallenge(dg.Config):
    """Which endpoint answers alone again."""

    endpoint: Endpoint = Field(description="The endpoint whose challenger goes.")
    reason: str = Field("", description="Why, in a sentence: it stands on the endpoint's asset.")


class Replay(dg.Config):
    """Which endpoint is asked."""

    endpoint: Literal["recommendation", "intent", "both"] = Field("both", description="The endpoint to ask.")


@dg.op(description="Judge a version by the endpoint's gate and let it serve, also one that was rolled back from.")
def promote_version(
    context: dg.OpExecutionContext, config: Promotion, storage: Storage, endpoint_host: EndpointHost
) -> str:
    with readable_failures():
        change = control.promote(config.endpoint, config.version, storage, endpoint_host)
        context.log_event(control.event_of(change, config.reason, _by(context), storage, endpoint_host))
    return change.result.version


@dg.op(description="Let an earlier version serve again; the one that serves does not return by itself.")
def roll_back(context: dg.OpExecutionContext, config: Rollback, storage: Storage, endpoint_host: EndpointHost) -> str:
    with readable_failures(again=False):  # without a version named, a second try would go back one more
        change = control.roll_back(config.endpoint, config.version, endpoint_host)
        context.log_event(control.event_of(change, config.reason, _by(context), storage, endpoint_host))
    return change.result.version


@dg.op(description="Judge a version by the endpoint's gate and let it answer a share of the requests, or all unseen.")
def challenge(context: dg.OpExecutionContext, config: Challenge, storage: Storage, endpoint_host: EndpointHost) -> None:
    name, version = config.endpoint, config.version
    with readable_failures():
        result = control.challenge(name, version, config.share, config.shadow, storage, endpoint_host)
    what = "shadow" if config.shadow else f"canary, {config.share:.0%} of the sessions"
    context.log_event(control.challenge_event(name, version, what, config.reason, _by(context)))
    context.log.info(result.sentence)


@dg.op(description="Let what serves answer alone again.")
def end_challenge(context: dg.OpExecutionContext, config: EndOfChallenge, endpoint_host: EndpointHost) -> None:
    version = endpoint_host.end_challenge(config.endpoint)
    if not version:
        raise dg.Failure(f"{config.endpoint} has no challenger.", allow_retries=False)
    event = control.challenge_event(config.endpoint, version, "challenge ended", config.reason, _by(context))
    context.log_event(event)


@dg.op(description="Ask the running server the golden requests, and fail with what is answered otherwise than offline.")
def replay_golden(context: dg.OpExecutionContext, config: Replay, endpoint_host: EndpointHost) -> None:
    with readable_failures():
        for name in ENDPOINTS if config.endpoint == "both" else [config.endpoint]:
            context.log.info(control.replay_golden(name, endpoint_host, api_key(get_settings())))


@dg.job(
    description="Let a version of an endpoint serve after its gate. The only way back for one rolled back from.",
    tags=TIMEOUT_TAG,
)
def promote_version_job() -> None:
    promote_version()


@dg.job(
    description="Let an earlier version of an endpoint serve again, without a restart.",
    tags={**TIMEOUT_TAG, "dagster/max_retries": "0"},  # as above
)
def roll_back_job() -> None:
    roll_back()


@dg.job(
    description="A version answers a share of the sessions beside what serves (canary), or all unseen (shadow).",
    tags=TIMEOUT_TAG,
)
def canary_job() -> None:
    challenge()


@dg.job(description="End a canary or shadow: what serves answers alone again.", tags=TIMEOUT_TAG)
def end_canary_job() -> None:
    end_challenge()


@dg.job(description="Does the server answer its golden requests as the models did offline?", tags=TIMEOUT_TAG)
def replay_golden_job() -> None:
    replay_golden()


CONTROL_JOBS = [promote_version_job, roll_back_job, canary_job, end_canary_job, replay_golden_job]


def _by(context: dg.OpExecutionContext) -> str:
    return f"run {context.run_id} of {context.job_name}"
