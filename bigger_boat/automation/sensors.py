"""Sensors: what is noticed without anybody asking."""

import dagster as dg

from bigger_boat.automation.arrival import arrival_sensor
from bigger_boat.automation.failures import failure_sensor
from bigger_boat.automation.retraining import retraining_sensor
from bigger_boat.automation.runner import end_orphans


@dg.sensor(
    name="orphaned_run_sensor",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Marks runs failed whose process was killed, and frees their slots in the concurrency pools.",
)
def orphaned_run_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Sensors run beside the web UI, so its own runs are watched: only runs of the command line can be orphans here."""
    ended = end_orphans(context.instance, ui_is_up=True)
    return dg.SkipReason(f"{len(ended)} orphaned runs ended: {', '.join(ended) or 'none'}.")


SENSORS = [orphaned_run_sensor, arrival_sensor, retraining_sensor, failure_sensor]
