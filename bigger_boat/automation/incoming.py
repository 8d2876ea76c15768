"""Landing what Firehose wrote, in the ``aws`` profile: the job that does it, and the sensor that asks for it.

What belongs elsewhere: judging and landing events (``resources/landing_incoming.py``), making days of what has landed
(``arrival.py``).
"""

import time

import dagster as dg

from bigger_boat import clock
from bigger_boat.assets.common import readable_failures
from bigger_boat.automation.arrival import UNFINISHED
from bigger_boat.automation.jobs import DEFAULT_STATUS, REASON_TAG, TIMEOUT_TAG
from bigger_boat.resources.landing_zone import LandingZone

AGAIN_S = 600
"""A run that failed is asked for again in the next ten minutes, not every minute."""


@dg.op(description="Judge what Firehose wrote, land each good event once, put the others aside, and take it away.")
def land_incoming(context: dg.OpExecutionContext, landing_zone: LandingZone) -> None:
    with readable_failures():
        taken = landing_zone.take_incoming(clock.utc_now())
    context.log.info(taken.sentence)


@dg.job(description="Land the events that the public API's /collect handed to Firehose.", tags=TIMEOUT_TAG)
def land_incoming_job() -> None:
    land_incoming()


@dg.sensor(
    name="incoming_sensor",
    job=land_incoming_job,
    minimum_interval_seconds=60,
    default_status=DEFAULT_STATUS,
    description="Lands what Firehose wrote, one run at a time.",
)
def incoming_sensor(context: dg.SensorEvaluationContext, landing_zone: LandingZone) -> dg.RunRequest | dg.SkipReason:
    """Asks once for the object that has waited longest, and again after a while if that did not take it away."""
    waiting = landing_zone.incoming()
    if not waiting:
        return dg.SkipReason("Nothing of Firehose waits.")
    going = context.instance.get_runs(dg.RunsFilter(job_name=land_incoming_job.name, statuses=UNFINISHED), limit=1)
    if going:
        return dg.SkipReason(f"{_objects(waiting)} wait for run {going[0].run_id}.")
    window = int(time.time() // AGAIN_S)
    return dg.RunRequest(run_key=f"{waiting[0]}@{window}", tags={REASON_TAG: f"{_objects(waiting)} of Firehose wait."})


def _objects(names: list[str]) -> str:
    return f"{len(names):,} object{'s' if len(names) != 1 else ''}"
