"""Jobs by which a person controls the endpoints from the web UI; what they do stands in ``control.py``."""

from typing import Literal

import dagster as dg
from pydantic import Field

from bigger_boat.assets.common import readable_failures
from bigger_boat.automation import control
from bigger_boat.automation.jobs import TIMEOUT_TAG
from bigger_boat.data.vocabulary import ENDPOINTS
from bigger_boat.resources.endpoint_host import EndpointHost
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
    with readable_failures():
        change = control.roll_back(config.endpoint, config.version, endpoint_host)
        context.log_event(control.event_of(change, config.reason, _by(context), storage, endpoint_host))
    return change.result.version


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


@dg.job(description="Let an earlier version of an endpoint serve again, without a restart.", tags=TIMEOUT_TAG)
def roll_back_job() -> None:
    roll_back()


@dg.job(description="Does the server answer its golden requests as the models did offline?", tags=TIMEOUT_TAG)
def replay_golden_job() -> None:
    replay_golden()


CONTROL_JOBS = [promote_version_job, roll_back_job, replay_golden_job]


def _by(context: dg.OpExecutionContext) -> str:
    return f"run {context.run_id} of {context.job_name}"
