"""Assembles assets, checks, jobs and resources; the only place that does. Importing it reads ``.env``, dbt's manifest
and the landing zone's index, and nothing else."""

import dagster as dg

from bigger_boat.assets import (
    arrival,
    champions,
    datasets,
    embeddings,
    endpoints,
    evaluation,
    landing,
    live,
    models,
    monitoring,
    parity,
    raw,
    sweeps,
    warehouse,
)
from bigger_boat.assets.freshness import with_freshness
from bigger_boat.automation.control_jobs import CONTROL_JOBS
from bigger_boat.automation.gpu_probe import gpu_probe_job
from bigger_boat.automation.incoming import incoming_sensor, land_incoming_job
from bigger_boat.automation.jobs import ASSET_JOBS
from bigger_boat.automation.schedules import SCHEDULES, sweep_artefacts_job
from bigger_boat.automation.sensors import SENSORS
from bigger_boat.profiles import build_resources
from bigger_boat.settings import Settings, get_settings

GRAPH = [
    landing,
    raw,
    warehouse,
    arrival,
    datasets,
    embeddings,
    models,
    sweeps,
    evaluation,
    champions,
    endpoints,
    live,
    monitoring,
]
"""The modules of the graph, in its order."""


def build_definitions(settings: Settings, **overrides: object) -> dg.Definitions:
    """Return the whole graph for these settings; ``overrides`` replace resources by key (tests)."""
    on_aws = settings.profile == "aws"
    return dg.Definitions(
        assets=with_freshness(dg.load_assets_from_modules(GRAPH)),
        asset_checks=dg.load_asset_checks_from_modules([*GRAPH, *([parity] if on_aws else [])]),
        jobs=[*ASSET_JOBS, *CONTROL_JOBS, gpu_probe_job, sweep_artefacts_job, *([land_incoming_job] if on_aws else [])],
        sensors=[*SENSORS, *([incoming_sensor] if on_aws else [])],
        schedules=SCHEDULES,
        resources={**build_resources(settings), **overrides},
        executor=_executor(settings.max_workers),
    )


def _executor(max_workers: int) -> dg.ExecutorDefinition:
    """Return one process for one worker (TensorFlow is imported once), else a process per step, so many at a time."""
    if max_workers == 1:
        return dg.in_process_executor
    # a forked step has the definitions already: it starts in a tenth of a second instead of several
    preloaded = {"forkserver": {"preload_modules": [__name__]}}
    return dg.multiprocess_executor.configured({"max_concurrent": max_workers, "start_method": preloaded})


defs = build_definitions(get_settings())
