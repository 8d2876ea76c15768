"""Experiment tracking: what was trained, with what, how well, kept by a service that compares runs.

A service is a class with three methods, ``start``, ``log`` and ``finish`` (``Tracker``), and a line in ``TRACKERS``;
docs/experiments.md adds one. What belongs here: the resource that assets use, and the thread that keeps a slow or
absent service out of training's way. What does not: a service's own client (``tracking_mlflow.py``,
``tracking_wandb.py``), which is imported in that thread, and only where a setting asks for it.
"""

import math
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Protocol

import dagster as dg

from bigger_boat.errors import SettingsError
from bigger_boat.settings import Settings

TRACKERS = {
    "mlflow": "bigger_boat.resources.tracking_mlflow:MlflowTracker",
    "wandb": "bigger_boat.resources.tracking_wandb:WandbTracker",
}
"""By the setting ``TRACKING``; a class is imported when its first run starts. ``off`` is none of them."""

EXPERIMENT = "bigger-boat"
PATIENCE_S = 120.0
"""How long a finished training waits for its service: the first record of a data folder makes a database."""


_NOWHERE = (
    "This training is not recorded: what a job writes to its own disk is gone with it. Name an MLflow server "
    "(bigger-boat deploy platform --set TrackingUri=ADDRESS), or set BIGGER_BOAT_TRACKING=off."
)


class Tracker(Protocol):
    """One run at one service. It is used by one thread. Whatever it raises becomes a warning, and training goes on."""

    def __init__(self, uri: str, folder: str) -> None:
        """``uri``: the setting ``TRACKING_URI``, may be ""; ``folder``: where local files may lie."""

    def start(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Open a run. Parameters are flat: dotted names, plain values."""

    def log(self, metrics: Mapping[str, float], step: int | None) -> None:
        """Keep numbers, all finite; ``step`` is the epoch, None for results of the whole run."""

    def finish(self, success: bool, tags: Mapping[str, str]) -> None:
        """Close the run; ``tags`` are those known only now, such as the bundle."""


class TrackedRun:
    """What a training tells of itself. Calls return at once; a thread passes them on. Without a tracker: nothing."""

    def __init__(
        self, make: Callable[[], Tracker] | None, warn: Callable[[str], None], patience_s: float | None = None
    ):
        self._make, self._warn, self._patience_s = make, warn, PATIENCE_S if patience_s is None else patience_s
        self._calls: queue.SimpleQueue[Callable[[Tracker], None] | None] = queue.SimpleQueue()
        self._tags: dict[str, str] = {}
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True) if make else None
        if self._thread:
            self._thread.start()

    def start(self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Open the run; nested ``parameters`` get dotted names."""
        self._pass_on(lambda tracker: tracker.start(name, flat(parameters), dict(tags)))

    def log(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Keep numbers, nested or not; what is no finite number is left out."""
        numbers = {name: float(value) for name, value in flat(metrics).items() if _is_finite(value)}
        if numbers:
            self._pass_on(lambda tracker: tracker.log(numbers, step))

    def tag(self, **tags: str) -> None:
        """Add what is known only now, such as the bundle's address."""
        self._tags |= tags

    def finish(self, success: bool) -> None:
        """Close the run; wait for the service, but not long. Warns once if it failed or did not answer."""
        if not self._thread:
            return
        tags = dict(self._tags)
        self._pass_on(lambda tracker: tracker.finish(success, tags))
        self._calls.put(None)
        self._thread.join(self._patience_s)
        if self._thread.is_alive():
            self._warn(f"Tracking did not answer within {self._patience_s:g} s; training goes on without.")
        elif self._fault:
            kind, text = type(self._fault).__name__, str(self._fault).strip() or "no reason given"
            self._warn(f"Tracking failed, training goes on without: {kind}: {text.splitlines()[0][:300]}")

    def _pass_on(self, call: Callable[[Tracker], None]) -> None:
        if self._thread:
            self._calls.put(call)

    def _work(self) -> None:
        tracker = None
        while (call := self._calls.get()) is not None:
            if self._fault:
                continue
            try:
                tracker = tracker or self._make()
                call(tracker)
            except Exception as error:  # whatever a service does, a model is worth more than its record
                self._fault = error


class Tracking(dg.ConfigurableResource):
    """``kind``: mlflow, wandb or off; ``uri``: the service's address, "" for its local default below ``folder``.

    ``in_a_job``: this machine's disk goes with the step, so that files on it would be no record.
    """

    kind: str = "off"
    uri: str = ""
    folder: str = ""
    in_a_job: bool = False

    @contextmanager
    def run(
        self, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str] | None = None
    ) -> Iterator[TrackedRun]:
        """Yield a run named after an asset; leaving with an error closes it as failed."""
        warn, nowhere = dg.get_dagster_logger("tracking").warning, self.in_a_job and self._only_here
        if nowhere:
            warn(_NOWHERE)
        run = TrackedRun(None if self.kind == "off" or nowhere else self._make, warn)
        run.start(name, parameters, tags or {})
        success = False
        try:
            yield run
            success = True
        finally:
            run.finish(success)

    @property
    def _only_here(self) -> bool:
        return self.kind == "mlflow" and not self.uri

    def _make(self) -> Tracker:
        module, _, name = TRACKERS[self.kind].partition(":")
        return getattr(import_module(module), name)(self.uri, self.folder)


def ui_command(settings: Settings, port: int) -> list[str]:
    """Return the command that shows what is recorded here. Raises SettingsError where another service shows it."""
    if settings.tracking != "mlflow":
        raise SettingsError(
            f"BIGGER_BOAT_TRACKING is {settings.tracking}: MLflow has nothing to show.",
            "Set it to mlflow, or look at wandb.ai (wandb sync DATA_DIR/wandb/wandb/offline-* sends what lies here).",
        )
    from bigger_boat.resources.tracking_mlflow import store_uri

    if settings.tracking_uri.startswith("http"):
        raise SettingsError("Trainings are recorded by a server.", f"Open {settings.tracking_uri} in a browser.")
    store = store_uri(settings.tracking_uri, str(settings.tracking_dir))
    return [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        store,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return nested mappings, and lists of them, as one with dotted names; lists of plain values become text."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, list | tuple) and value and all(isinstance(each, Mapping) for each in value):
            value = dict(enumerate(value))
        if isinstance(value, Mapping):
            found |= flat(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = str(list(value)) if isinstance(value, list | tuple) else value
    return found


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
