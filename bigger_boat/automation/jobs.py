"""Jobs over assets: what a person starts from the web UI besides materializing assets by hand.

What belongs elsewhere: jobs that control the endpoints (``control_jobs.py``), when jobs run (``schedules.py``).
"""

import dagster as dg

from bigger_boat.settings import get_settings

JOB_TIMEOUT_S = 4 * 60 * 60
"""A run that lasts longer is ended by run monitoring; there is no timeout by default."""

TIMEOUT_TAG = {"dagster/max_runtime": str(JOB_TIMEOUT_S)}

DEFAULT_STATUS = dg.DefaultSensorStatus.RUNNING if get_settings().automation else dg.DefaultSensorStatus.STOPPED
"""Of the sensors, until somebody switches them in the web UI."""

PLAYED_INTERVAL_S = 5


def interval_s(usual_s: int) -> int:
    """Return how long a sensor rests between ticks: on a played clock, which jumps, as long as the daemon itself."""
    return PLAYED_INTERVAL_S if get_settings().clock_file else usual_s


SWEEP_TAG = "bigger_boat/sweep"
REASON_TAG = "bigger_boat/reason"
"""Of a run that nobody asked for by hand: why it was asked for."""

heal_days_job = dg.define_asset_job(
    "heal_days_job",
    selection=dg.AssetSelection.groups("raw", "warehouse"),
    description="Load days again from the landing zone and rebuild their sessions (choose the days on launch).",
    tags=TIMEOUT_TAG,
)

retrain_now_job = dg.define_asset_job(
    "retrain_now_job",
    selection=dg.AssetSelection.groups("datasets", "embeddings", "models", "evaluation", "champions", "endpoints"),
    description="Train everything again from the tables as they are, whatever the retraining sensor thinks: data sets, "
    "embeddings, models (their hyper-parameters can be set on launch), evaluation, champions and endpoints.",
    tags={**TIMEOUT_TAG, REASON_TAG: "Somebody asked for it: retrain_now_job."},
)

intent_sweep_job = dg.define_asset_job(
    "intent_sweep_job",
    selection=dg.AssetSelection.groups("sweeps"),
    description="One configuration of the intent model's grid per partition, and the table that compares them.",
    tags={**TIMEOUT_TAG, SWEEP_TAG: "intent"},  # dagster.yaml limits how many run side by side
)

ASSET_JOBS = [heal_days_job, retrain_now_job, intent_sweep_job]
