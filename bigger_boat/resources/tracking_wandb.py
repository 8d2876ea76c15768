"""Weights & Biases, an extra (``pip install 'bigger-boat[wandb]'``): its cloud, a server, or files for later.

What belongs elsewhere: when a run starts and what happens if it is away (``tracking.py``). The key comes from
``WANDB_API_KEY`` or ``wandb login``, as W&B documents it; no setting of ours holds it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bigger_boat.resources.tracking import EXPERIMENT

OFFLINE = "offline"


class WandbTracker:
    """One W&B run. ``uri``: a server's address, "" for W&B's own, "offline" for files in ``folder``."""

    def __init__(self, uri: str, folder: str):
        import wandb

        self._wandb, self._offline, self._folder = wandb, uri == OFFLINE, folder
        self._base_url = "" if self._offline else uri
        self._run: Any = None

    def start(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Open a run of the project; W&B's own tags are labels, so ours are part of its configuration."""
        Path(self._folder).mkdir(parents=True, exist_ok=True)
        settings = {"silent": True, "console": "off", "disable_git": True, "x_disable_stats": True}
        if self._base_url:
            settings["base_url"] = self._base_url
        self._run = self._wandb.init(
            project=EXPERIMENT,
            name=name,
            job_type=name,
            config={**parameters, **{f"tag.{key}": value for key, value in tags.items()}},
            dir=self._folder,
            mode="offline" if self._offline else "online",
            reinit="create_new",
            settings=self._wandb.Settings(**settings),
        )

    def log(self, metrics: Mapping[str, float], step: int | None) -> None:
        """Add metrics of an epoch to the history; those of the whole run to the summary."""
        if step is None:
            self._run.summary.update(dict(metrics))
        else:
            self._run.log({**metrics, "epoch": step})

    def finish(self, success: bool, tags: Mapping[str, str]) -> None:
        """Put the last tags into the summary and close the run."""
        self._run.summary.update(dict(tags))
        self._run.finish(exit_code=0 if success else 1)
