"""Jobs: what a person starts from the web UI besides materializing assets by hand."""

import dagster as dg

JOB_TIMEOUT_S = 4 * 60 * 60
"""A run that lasts longer is ended by run monitoring; there is no timeout by default."""

TIMEOUT_TAG = {"dagster/max_runtime": str(JOB_TIMEOUT_S)}

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

JOBS = [heal_days_job, retrain_job]
