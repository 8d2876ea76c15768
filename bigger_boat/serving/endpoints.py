"""Which model answers for which endpoint: one bundle for the life of the process, or all of a data directory.

Does not belong here: how an endpoint's model is replaced while requests run (``live_endpoint.py``), HTTP (``app.py``).
All of it runs in threads; nothing here knows an event loop.
"""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bigger_boat.data.vocabulary import ENDPOINTS
from bigger_boat.errors import BundleError, RequestError
from bigger_boat.serving.challengers import Challenger
from bigger_boat.serving.graph import load_runtime
from bigger_boat.serving.live_endpoint import LiveEndpoint, Served, Verify, reason_of
from bigger_boat.serving.predictor import Predictor
from bigger_boat.serving.published import PublishedEndpoint, endpoints_id

logger = logging.getLogger("bigger_boat.serving")

WATCH_INTERVAL_S = 0.2
_STOP_TIMEOUT_S = 20


class BundleHost:
    """One model for the life of the process: what runs in the container, and privately before publishing."""

    may_have_challengers = False

    def __init__(self, bundle_dir: Path, *, verify: Verify | None):
        self.bundle_dir = Path(bundle_dir)
        self.failure: BundleError | None = None
        self._verify = verify
        self._served: Served | None = None
        self._loaded = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def holding(cls, predictor: Predictor) -> "BundleHost":
        """Return a host of a model that is loaded already; it needs no start."""
        host = cls(predictor.bundle.directory, verify=None)
        host._served = Served(predictor)
        host._loaded.set()
        return host

    def start(self, stop_server: Callable[[], None]) -> None:
        """Load in a thread; ``stop_server`` is called if the bundle cannot serve."""
        self._thread = threading.Thread(target=self._load, args=(stop_server,), name="load-bundle", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._thread:
            self._thread.join(_STOP_TIMEOUT_S)

    def wait(self, timeout_s: float) -> bool:
        """Wait until the model is loaded or has failed."""
        return self._loaded.wait(timeout_s)

    def is_ready(self) -> bool:
        return self._served is not None

    def health(self) -> dict[str, Any]:
        return {
            "status": "ok",
            "pid": os.getpid(),
            **(self._served.describe() if self._served else {"state": "loading"}),
        }

    def serving(self) -> list[tuple[str, str, str]]:
        """Return endpoint, model and version of what serves."""
        return [self._served.names()] if self._served else []

    def challenger(self, _name: str | None) -> None:
        """There is one version here, and nobody beside it."""

    def drop_challenger(self, _challenger: Challenger, _reason: str) -> None:
        """There is none."""

    def served(self, _name: str | None) -> Served:
        """Return what answers. Raises RequestError (503) while the model is being loaded."""
        if self._served is None:
            raise RequestError("The model is being loaded; ask again in a few seconds.", "loading", 503)
        return self._served

    def _load(self, stop_server: Callable[[], None]) -> None:
        try:
            load_runtime()
            predictor = Predictor.load(self.bundle_dir)
            if self._verify:
                self._verify(predictor)
            self._served = Served(predictor)
        except Exception as error:
            self.failure = error if isinstance(error, BundleError) else BundleError(reason_of(error))
            stop_server()
        finally:
            self._loaded.set()


class EndpointsHost:
    """All endpoints of a data directory, following each one's ``current``."""

    may_have_challengers = True

    def __init__(self, root: Path, *, verify: Verify, interval_s: float = WATCH_INTERVAL_S):
        self.root = Path(root)
        self._interval_s = interval_s
        self._endpoints = {name: LiveEndpoint(PublishedEndpoint(self.root, name), verify) for name in ENDPOINTS}
        self._faults: dict[str, str] = {}
        self._started = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, stop_server: Callable[[], None]) -> None:
        """Load and watch in a thread; ``stop_server`` is called if the directory disappears."""
        self._thread = threading.Thread(target=self._watch, args=(stop_server,), name="watch-endpoints", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread:
            self._thread.join(_STOP_TIMEOUT_S)

    def is_ready(self) -> bool:
        """Whether every endpoint was looked at once since the start."""
        return self._started.is_set()

    def health(self) -> dict[str, Any]:
        endpoints = {name: endpoint.describe(self.is_ready()) for name, endpoint in self._endpoints.items()}
        return {
            "status": "ok" if self.is_ready() else "starting",
            "pid": os.getpid(),
            "endpoints_id": endpoints_id(self.root),
            "endpoints": endpoints,
        }

    def serving(self) -> list[tuple[str, str, str]]:
        """Return endpoint, model and version of all that answer, challengers among them."""
        rivals = [endpoint.challenger for endpoint in self._endpoints.values()]
        seen = [endpoint.served for endpoint in self._endpoints.values()]
        return [one.names() for one in [*seen, *(r.served for r in rivals if r and not r.shadow)] if one]

    def challenger(self, name: str | None) -> Challenger | None:
        """Return the version that stands beside the one that serves."""
        endpoint = self._endpoints.get(name or "")
        return endpoint.challenger if endpoint else None

    def drop_challenger(self, challenger: Challenger, reason: str) -> None:
        """Take away a challenger that failed; what serves goes on alone. It writes: call it in a thread."""
        name, _, version = challenger.served.names()
        self._guarded(name, lambda: self._endpoints[name].drop(version, reason))

    def served(self, name: str | None) -> Served:
        """Return what answers now; a request reads it once, and finishes on the version it began with.

        Raises RequestError: 404 no such endpoint, 503 no model.
        """
        endpoint = self._endpoints.get(name or "")
        if endpoint is None:
            raise RequestError(f"There is no such endpoint; there is {', '.join(self._endpoints)}.", "not_found", 404)
        served = endpoint.served
        if served is None:
            code = "no_model" if self.is_ready() else "loading"
            hint = "materialize its endpoint asset" if self.is_ready() else "ask again in a few seconds"
            raise RequestError(f"The {name} endpoint has no model yet: {hint}.", code, 503)
        return served

    def _watch(self, stop_server: Callable[[], None]) -> None:
        identity = _identity(self.root)
        for name, endpoint in self._endpoints.items():
            self._guarded(name, endpoint.start)
        self._started.set()
        load_runtime()  # the first model that is published should not wait for it
        while not self._stopping.wait(self._interval_s):
            if identity is None or _identity(self.root) != identity:
                logger.warning("The endpoints directory %s is gone: the server stops.", self.root)
                stop_server()
                return
            for name, endpoint in self._endpoints.items():
                self._guarded(name, endpoint.follow)

    def _guarded(self, name: str, step: Callable[[], None]) -> None:
        """Do a step; a full or vanished disk is told once, and must not end the watch: what serves goes on."""
        try:
            step()
            self._faults.pop(name, None)
        except OSError as error:
            reason = error.strerror or str(error)
            if self._faults.get(name) != reason:
                self._faults[name] = reason
                logger.error("The endpoints directory cannot be used: %s", error)


def _identity(directory: Path) -> tuple[int, int] | None:
    """Tell a directory from another one made later under the same name."""
    try:
        status = directory.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
