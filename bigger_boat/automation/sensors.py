"""Sensors: what is noticed without anybody asking."""

import dagster as dg

from bigger_boat.automation.arrival import arrival_sensor
from bigger_boat.automation.failures import failure_sensor
from bigger_boat.automation.jobs import interval_s
from bigger_boat.automation.retraining import retraining_sensor
from bigger_boat.automation.runner import end_orphans
from bigger_boat.automation.stuck_runs import end_stuck
from bigger_boat.automation.watching import watching_sensor


@dg.sensor(
    name="stuck_run_sensor",
    minimum_interval_seconds=interval_s(60),
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends runs whose process is gone or that have taken too long, and frees their slots.",
)
def stuck_run_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Of the command line and of the web UI; each run's page says why it was ended, and so does the failure sensor."""
    ended = [*end_orphans(context.instance, ui_is_up=True)]
    ended += [f"{one.run_id} ({one.sentence})" for one in end_stuck(context.instance)]
    return dg.SkipReason(f"{len(ended)} stuck runs ended: {', '.join(ended)}." if ended else "No run is stuck.")


SENSORS = [stuck_run_sensor, arrival_sensor, retraining_sensor, watching_sensor, failure_sensor]
