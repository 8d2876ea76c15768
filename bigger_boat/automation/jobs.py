"""Jobs: what a person starts from the web UI besides materializing assets by hand."""

from typing import Literal

import dagster as dg
from pydantic import Field

from bigger_boat.errors import BundleError
from bigger_boat.resources.endpoint_host import EndpointHost
from bigger_boat.settings import get_settings

JOB_TIMEOUT_S = 4 * 60 * 60
"""A run that lasts longer is ended by run monitoring; there is no timeout by default."""

TIMEOUT_TAG = {"dagster/max_runtime": str(JOB_TIMEOUT_S)}

DEFAULT_STATUS = dg.DefaultSensorStatus.RUNNING if get_settings().automation else dg.DefaultSensorStatus.STOPPED
"""Of the sensors, until somebody switches them in the web UI."""

SWEEP_TAG = "bigger_boat/sweep"
REASON_TAG = "bigger_boat/reason"
"""Of a run that nobody asked for by hand: why it was asked for."""

heal_days_job = dg.define_asset_job(
    "heal_days_job",
    selection=dg.AssetSelection.groups("raw", "warehouse"),
    description="Load days again from the landing zone and rebuild their sessions (choose the days on launch).",
    tags=TIMEOUT_TAG,
)

retrain_job = dg.define_asset_job(
    "retrain_job",
    selection=dg.AssetSelection.groups("datasets", "embeddings", "models", "evaluation", "champions", "endpoints"),
    description="Data sets, embeddings, models, evaluation, champions and endpoints, from the tables as they are.",
    tags=TIMEOUT_TAG,
)

intent_sweep_job = dg.define_asset_job(
    "intent_sweep_job",
    selection=dg.AssetSelection.groups("sweeps"),
    description="One configuration of the intent model's grid per partition, and the table that compares them.",
    tags={**TIMEOUT_TAG, SWEEP_TAG: "intent"},  # dagster.yaml limits how many run side by side
)


class Rollback(dg.Config):
    """What should serve again."""

    endpoint: Literal["recommendation", "intent"] = Field(description="The endpoint to roll back.")
    version: str | None = Field(None, description="The version to go back to; default: the one that served before.")


@dg.op(description="Let an earlier version serve again; the one that serves does not return by itself.")
def roll_back(context: dg.OpExecutionContext, config: Rollback, endpoint_host: EndpointHost) -> str:
    try:
        result = endpoint_host.rollback(config.endpoint, config.version)
    except BundleError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    if result.state == "refused":
        raise dg.Failure(result.sentence, allow_retries=False)
    metadata = {"version": result.version, "state": result.state, "sentence": result.sentence, "rolled_back": True}
    context.log_event(dg.AssetObservation(f"{config.endpoint}_endpoint", metadata=metadata))
    return result.version


@dg.job(description="Let an earlier version of an endpoint serve again, without a restart.", tags=TIMEOUT_TAG)
def rollback_job() -> None:
    roll_back()


JOBS = [heal_days_job, retrain_job, intent_sweep_job, rollback_job]

weekly_retraining = dg.ScheduleDefinition(
    name="weekly_retraining",
    job=retrain_job,
    cron_schedule="0 3 * * 1",
    execution_timezone="UTC",
    tags={REASON_TAG: "Monday, 03:00 UTC: the weekly retraining."},
    description="Trains everything again each Monday, whatever the evidence says.",
)

SCHEDULES = [weekly_retraining]
