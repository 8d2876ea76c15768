"""MLflow: by default an SQLite file in the data folder, else any MLflow server.

What belongs elsewhere: when a run starts and what happens if MLflow is away (``tracking.py``). MLflow's client is used
without its fluent layer, so that nothing global is set and runs of several threads do not meet.
"""

import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bigger_boat.resources.tracking import EXPERIMENT

DATABASE, ARTIFACTS = "mlflow.db", "artifacts"
PARAMETERS_AT_ONCE, METRICS_AT_ONCE = 100, 1000
LONGEST_PARAMETER = 5000
"""Limits of MLflow's batches and values."""


def store_uri(uri: str, folder: str) -> str:
    """Return MLflow's address of the runs: ``uri``, or the SQLite file in ``folder``."""
    return uri or f"sqlite:///{Path(folder) / DATABASE}"


class MlflowTracker:
    """One MLflow run. ``uri``: an MLflow server or database, "" for SQLite in ``folder``."""

    def __init__(self, uri: str, folder: str):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "15")
        from mlflow import MlflowClient

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        local = not uri
        if local:
            Path(folder).mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(store_uri(uri, folder))
        self._artifacts = (Path(folder) / ARTIFACTS).as_uri() if local else None
        self._run = ""

    def start(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Create a run in the experiment, with its parameters."""
        from mlflow.entities import Param

        run = self._client.create_run(self._experiment(), run_name=name, tags={**tags, "asset": name})
        self._run = run.info.run_id
        kept = [Param(_name(key), str(value)[:LONGEST_PARAMETER]) for key, value in parameters.items()]
        for first in range(0, len(kept), PARAMETERS_AT_ONCE):
            self._client.log_batch(self._run, params=kept[first : first + PARAMETERS_AT_ONCE])

    def log(self, metrics: Mapping[str, float], step: int | None) -> None:
        """Add metrics; those of the whole run are step 0."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        kept = [Metric(_name(key), value, now, step or 0) for key, value in metrics.items()]
        for first in range(0, len(kept), METRICS_AT_ONCE):
            self._client.log_batch(self._run, metrics=kept[first : first + METRICS_AT_ONCE])

    def finish(self, success: bool, tags: Mapping[str, str]) -> None:
        """Set the last tags and the run's status."""
        for key, value in tags.items():
            self._client.set_tag(self._run, key, value)
        self._client.set_terminated(self._run, "FINISHED" if success else "FAILED")

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found:
            return found.experiment_id
        try:
            return self._client.create_experiment(EXPERIMENT, self._artifacts)
        except Exception:
            found = self._client.get_experiment_by_name(EXPERIMENT)  # another process made it meanwhile
            if not found:
                raise
            return found.experiment_id


def _name(key: str) -> str:
    """MLflow's names hold letters, digits, and a few signs; ``@`` is none of them."""
    return re.sub(r"[^\w\-. /]", "_", key)
