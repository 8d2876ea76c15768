"""What every command that touches the graph sets up first: this process's environment, dbt's manifest."""

import os
from pathlib import Path

from bigger_boat.settings import Settings, get_settings


def prepare_process(size: str | None = None, max_workers: int | None = None, data_dir: Path | None = None) -> Settings:
    """Set up this process and its children for Dagster, on another data folder if one is named; return the settings."""
    if size:
        os.environ["BIGGER_BOAT_SIZE"] = size
    if max_workers:
        os.environ["BIGGER_BOAT_MAX_WORKERS"] = str(max_workers)
    if data_dir:
        os.environ["BIGGER_BOAT_DATA_DIR"] = str(data_dir)
    get_settings.cache_clear()
    settings = get_settings()
    instance_dir = settings.data_dir / "dagster"
    instance_dir.mkdir(parents=True, exist_ok=True)
    os.environ["BIGGER_BOAT_DATA_DIR"] = str(settings.data_dir)
    os.environ["DAGSTER_INSTANCE_DIR"] = str(instance_dir)
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    quiet_tensorflow()
    if settings.profile == "local":  # without Dagster, which takes seconds to import
        from bigger_boat.resources.dbt_manifest import ensure_manifest

        ensure_manifest(settings.dbt_project_dir)
    else:
        from bigger_boat.profiles import dbt

        dbt(settings).ensure_manifest()
    return settings


def quiet_tensorflow() -> None:
    """Let TensorFlow print errors only, here and in what this process starts."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
