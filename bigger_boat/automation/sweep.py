"""Runs the configurations of a sweep, so many side by side, each a run of its own that the web UI shows.

What belongs elsewhere: the grid and what a configuration is (``assets/sweeps.py``), the command line.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import dagster as dg

from bigger_boat.assets.sweeps import INTENT_CONFIGURATIONS, intent_sweep
from bigger_boat.errors import DatasetError, SettingsError

SWEEP_JOB = "intent_sweep_job"
DATA_VERSION = "dagster/data_version"


def missing(instance: dg.DagsterInstance, size: str) -> list[str]:
    """Return the configurations without a result on the present data set at this size, in the grid's order."""
    latest = instance.get_latest_materialization_event(dg.AssetKey("intent_dataset"))
    if latest is None:
        raise DatasetError("There is no intent_dataset to train on.", "bigger-boat run --select +intent_model")
    dataset = latest.asset_materialization.tags[DATA_VERSION]
    made = {
        record.partition_key
        for record in instance.fetch_materializations(intent_sweep.key, limit=10_000).records
        if (record.asset_materialization.tags or {}).get(DATA_VERSION) == f"{dataset}-{size}"
    }
    return [name for name in INTENT_CONFIGURATIONS if name not in made]


def run_one(definitions: dg.Definitions, instance: dg.DagsterInstance, name: str) -> bool:
    """Train one configuration in this process and bring the table up to date; return whether it went well."""
    if name not in INTENT_CONFIGURATIONS:
        raise SettingsError(f"There is no configuration {name!r}.", f"Known: {', '.join(INTENT_CONFIGURATIONS)}.")
    job = definitions.resolve_job_def(SWEEP_JOB)
    return job.execute_in_process(instance=instance, partition_key=name, raise_on_error=False).success


def run_all(
    names: Sequence[str], at_once: int, run: Callable[[str], bool], done: Callable[[str, bool], None]
) -> list[str]:
    """Call ``run`` for each name, at most ``at_once`` at a time; tell ``done`` of each; return those that failed."""
    failed = []
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        for name, good in zip(names, pool.map(run, names), strict=True):
            done(name, good)
            if not good:
                failed.append(name)
    return failed
