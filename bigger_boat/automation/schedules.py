"""Schedules: what is done at a time of day, whatever the sensors think."""

from datetime import UTC

import dagster as dg
from pydantic import Field

from bigger_boat.assets.common import readable_failures
from bigger_boat.automation.arrival import days_behind, unfinished_runs
from bigger_boat.automation.jobs import REASON_TAG, TIMEOUT_TAG, heal_days_job, retrain_now_job
from bigger_boat.resources.endpoint_host import EndpointHost
from bigger_boat.resources.landing_zone import LandingZone
from bigger_boat.resources.retention import sweep
from bigger_boat.resources.storage import Storage
from bigger_boat.settings import get_settings

DEFAULT_STATUS = dg.DefaultScheduleStatus[("STOPPED", "RUNNING")[get_settings().automation]]
"""Of the schedules that look after things, until somebody switches them in the web UI."""

weekly_retraining = dg.ScheduleDefinition(
    name="weekly_retraining",
    job=retrain_now_job,
    cron_schedule="0 3 * * 1",
    execution_timezone="UTC",
    tags={REASON_TAG: "Monday, 03:00 UTC: the weekly retraining."},
    description="Trains everything again each Monday, whatever the evidence says.",
)


@dg.schedule(
    name="daily_healing",
    job=heal_days_job,
    cron_schedule="30 2 * * *",
    execution_timezone="UTC",
    default_status=DEFAULT_STATUS,
    description="Makes again every day that is behind, late or after a run that failed: each is tried once a day.",
)
def daily_healing(context: dg.ScheduleEvaluationContext, landing_zone: LandingZone) -> dg.SkipReason | list:
    """The arrival sensor asks once for a content; what failed then is found here, among all days."""
    if going := unfinished_runs(context.instance, get_settings().data_dir):
        return dg.SkipReason(f"{going[0]} is going on, and may be making them: looks again tomorrow night.")
    now = context.scheduled_execution_time.astimezone(UTC)
    graph = context.repository_def.asset_graph
    requests, sentence = days_behind(graph, context.instance, landing_zone.index(), now)
    context.log.info(sentence)
    return requests or dg.SkipReason(sentence)


class Retention(dg.Config):
    """How much is kept."""

    keep: int | None = Field(
        None, ge=1, description="Versions of each thing to keep; default: BIGGER_BOAT_KEEP_VERSIONS."
    )


@dg.op(description="Remove old versions of data sets, embeddings, models and reports that nothing refers to.")
def sweep_artefacts(
    context: dg.OpExecutionContext, config: Retention, storage: Storage, endpoint_host: EndpointHost
) -> None:
    with readable_failures():
        swept = sweep(storage, endpoint_host, config.keep or get_settings().keep_versions)
    context.log.info(swept.sentence)


@dg.job(
    description="Remove what nothing needs any more: old versions of data sets, embeddings, models and reports.",
    tags=TIMEOUT_TAG,
)
def sweep_artefacts_job() -> None:
    sweep_artefacts()


artefact_sweeping = dg.ScheduleDefinition(
    name="artefact_sweeping",
    job=sweep_artefacts_job,
    cron_schedule="30 4 * * *",
    execution_timezone="UTC",
    default_status=DEFAULT_STATUS,
    tags={REASON_TAG: "04:30 UTC: old versions are swept."},
    description="Removes old versions of data sets, embeddings, models and reports each night.",
)

SCHEDULES = [weekly_retraining, daily_healing, artefact_sweeping]
