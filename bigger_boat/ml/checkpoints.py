"""The state of a training between two epochs, in one file without pickles: a kill costs at most the epoch it came in.

What belongs elsewhere: when it is written, and what an epoch's record holds (``intent_training.py``,
``sequence_training.py``).
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

GROUPS = ("now", "optimizer", "best")


def values(variables) -> list[np.ndarray]:
    """Return copies of Keras variables' values."""
    return [np.array(variable.value) for variable in variables]


def assign(variables, arrays: list[np.ndarray]) -> None:
    """Give variables these values, in order."""
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def save(network, best: list[np.ndarray] | None, history: Sequence[tuple[float, ...]], path: Path) -> None:
    """Write weights, random states, optimizer, best weights and history to a sibling, then rename."""
    groups = {"now": values(network.variables), "optimizer": values(network.optimizer.variables), "best": best or []}
    arrays = {f"{group}_{index}": array for group in GROUPS for index, array in enumerate(groups[group])}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        np.savez(file, history=np.array(history), **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, path)


def restore(network, path: Path | None) -> tuple[list[np.ndarray] | None, list[tuple[float, ...]]]:
    """Put a checkpoint's state into ``network``; return its best weights and history (nothing without one)."""
    if path is None or not path.exists():
        return None, []
    with np.load(path, allow_pickle=False) as stored:
        groups = {
            group: [stored[f"{group}_{index}"] for index in range(sum(name.startswith(f"{group}_") for name in stored))]
            for group in GROUPS
        }
        history = [tuple(record) for record in stored["history"].tolist()]
    assign(network.variables, groups["now"])
    assign(network.optimizer.variables, groups["optimizer"])
    return groups["best"] or None, history
