"""Sweeps: configurations of a grid, one partition each, and a table that compares them. Made on demand only.

A partition can be seen, run and run again by itself in the web UI; ``bigger-boat sweep`` runs those that are missing.
What belongs elsewhere: how many run side by side (``automation/sweep.py``), the model.
"""

import json
import time
from pathlib import Path
from typing import Any

import dagster as dg

from bigger_boat.assets.common import (
    ML_OWNERS,
    SIZE,
    SUMMARY,
    load_embeddings,
    readable_failures,
    table,
    tracked,
    verified_dataset,
)
from bigger_boat.ml.grid import comparison, configurations
from bigger_boat.resources.storage import Storage
from bigger_boat.resources.tracking import Tracking
from bigger_boat.resources.training import Training

GROUP = "sweeps"

INTENT_GRID = {"units": (16, 32, 64), "dropout": (0.1, 0.3), "ahead_weight": (0.0, 0.1)}
"""What is tried of the intent LSTM; the rest comes from the size (quick or full)."""

INTENT_CONFIGURATIONS = configurations(INTENT_GRID)
INTENT_SWEEP = dg.StaticPartitionsDefinition(list(INTENT_CONFIGURATIONS))
BEST_BY = "log_loss"


@dg.asset(
    group_name=GROUP,
    partitions_def=INTENT_SWEEP,
    owners=ML_OWNERS,
    kinds={"python", "tensorflow", "keras"},
    code_version="1",
)
def intent_sweep(
    context: dg.AssetExecutionContext,
    intent_dataset: str,
    product_embeddings: str,
    storage: Storage,
    training: Training,
    tracking: Tracking,
) -> dg.MaterializeResult:
    """The intent LSTM in one configuration of the grid, fitted on the training days, judged on validation."""
    from dataclasses import replace

    from bigger_boat.ml.intent_model import IntentConfig
    from bigger_boat.ml.intent_task import KIND, IntentTask

    name = context.partition_key
    with readable_failures():
        folder, manifest = verified_dataset(storage, intent_dataset)
        task = IntentTask(folder, checkpoints=storage.checkpoints)
        embeddings, prod2vec, items_version = load_embeddings(storage, product_embeddings)
        base = IntentConfig.quick() if training.size == "quick" else IntentConfig.full()
        chosen = replace(base, **INTENT_CONFIGURATIONS[name])
        data = {"intent_dataset": manifest.version, "recommendation_dataset": items_version}
        started = time.monotonic()
        with tracked(tracking, f"intent_sweep.{name}", task.configuration_of(chosen, prod2vec), data) as run:
            task.on_epoch = run.log
            model, choice = task.fit(embeddings, chosen)
            scores = model.report(task.validation).pooled
            shown = {key: getattr(scores, key) for key in ("log_loss", "pr_auc", "auc", "calibration_error")}
            run.log({"validation": {KIND: shown}})
    result = {
        "name": name,
        "parameters": INTENT_CONFIGURATIONS[name],
        "scores": {**shown, "epochs": choice["epochs"], "seconds": round(time.monotonic() - started, 1)},
        "dataset": manifest.data_version,
        "size": training.size,
    }
    _write(_results(storage) / f"{name}.json", result)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(f"{manifest.data_version}-{training.size}"),
        metadata={
            SUMMARY: f"log loss {shown['log_loss']:.4f}, PR-AUC {shown['pr_auc']:.3f}",
            SIZE: training.size,
            **shown,
        },
    )


@dg.asset(group_name=GROUP, deps=[intent_sweep], owners=ML_OWNERS, kinds={"python"}, code_version="1")
def intent_sweep_table(intent_dataset: str, storage: Storage) -> dg.MaterializeResult:
    """What has been tried so far, best on validation first; each run of the sweep brings it up to date."""
    with readable_failures():
        _, manifest = verified_dataset(storage, intent_dataset)
    found = [json.loads(path.read_text()) for path in sorted(_results(storage).glob("*.json"))]
    rows = comparison([each for each in found if each["name"] in INTENT_CONFIGURATIONS], BEST_BY, manifest.data_version)
    tried = [row for row in rows if row["data"] == "this"]
    best = tried[0]["configuration"] if tried else "none yet"
    return dg.MaterializeResult(
        metadata={
            SUMMARY: f"{len(tried)} of {len(INTENT_CONFIGURATIONS)} configurations tried, best: {best}",
            "best": best,
            "dagster/row_count": len(rows),
            "comparison": table(rows),
        }
    )


def _results(storage: Storage) -> Path:
    return storage.folder("sweeps/intent")


def _write(path: Path, result: dict[str, Any]) -> None:
    """Replace a configuration's result atomically: a table that is made beside it reads the old one, or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(result, indent=2) + "\n")
    draft.replace(path)
