"""Which model answers for which endpoint, and how it is replaced while requests run.

Belongs here: loading versions beside the old one, checking, swapping, falling back. Does not belong here: HTTP
(``server.py``), the directory's layout (``published.py``). All of it runs in threads; nothing here knows an event loop.
"""

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bigger_boat.errors import BiggerBoatError, BundleError, RequestError, ServerError
from bigger_boat.serving.contract import DEFAULT_LIMITS, ENDPOINTS, Limits, format_answer, parse_request
from bigger_boat.serving.predictor import Predictor, load_runtime
from bigger_boat.serving.published import PublishedEndpoint, endpoints_id, utc_now

logger = logging.getLogger("bigger_boat.serving")

WATCH_INTERVAL_S = 0.2
_STOP_TIMEOUT_S = 20
_CHECKED = "digests and golden answers"


@dataclass
class Served:
    """A version that answers."""

    predictor: Predictor
    since: str = field(default_factory=utc_now)

    @property
    def version(self) -> str:
        return self.predictor.bundle.version

    def answer(self, payload: Any, request_id: str, limits: Limits) -> dict[str, Any]:
        request = parse_request(payload, limits)
        try:
            predictions = self.predictor.predict(request)
        except ServerError as error:
            logger.error("Version %s failed on request %s: %s", self.version, request_id, error)
            raise
        return format_answer(self.predictor.bundle.kind, self.version, request_id, predictions)

    def describe(self) -> dict[str, Any]:
        bundle = self.predictor.bundle
        return {"state": "serving", "version": self.version, "model": bundle.kind, "since": self.since}


class BundleHost:
    """One model for the life of the process: what runs in the container, and privately before publishing."""

    def __init__(self, bundle_dir: Path, *, verify_golden: bool = True, limits: Limits = DEFAULT_LIMITS):
        self.bundle_dir = Path(bundle_dir)
        self.limits = limits
        self.failure: BundleError | None = None
        self._verify_golden = verify_golden
        self._served: Served | None = None
        self._loaded = threading.Event()
        self._thread: threading.Thread | None = None

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

    def answer(self, _name: str | None, payload: Any, request_id: str) -> dict[str, Any]:
        """Answer a contract request. Raises RequestError: 400 for a bad one, 503 while the model is loading."""
        if self._served is None:
            raise RequestError("The model is being loaded; ask again in a few seconds.", "loading", 503)
        return self._served.answer(payload, request_id, self.limits)

    def _load(self, stop_server: Callable[[], None]) -> None:
        try:
            predictor = Predictor.load(self.bundle_dir)
            if self._verify_golden:
                predictor.verify_golden()
            self._served = Served(predictor)
        except Exception as error:
            self.failure = error if isinstance(error, BundleError) else BundleError(_reason(error))
            stop_server()
        finally:
            self._loaded.set()


class EndpointsHost:
    """All endpoints of a data directory, following each one's ``current``."""

    def __init__(self, root: Path, *, limits: Limits = DEFAULT_LIMITS, interval_s: float = WATCH_INTERVAL_S):
        self.root = Path(root)
        self.limits = limits
        self._interval_s = interval_s
        self._endpoints = {name: LiveEndpoint(PublishedEndpoint(self.root, name)) for name in ENDPOINTS}
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

    def answer(self, name: str | None, payload: Any, request_id: str) -> dict[str, Any]:
        """Answer a contract request. Raises RequestError: 404 no such endpoint, 503 no model, 400 a bad one."""
        endpoint = self._endpoints.get(name or "")
        if endpoint is None:
            raise RequestError(f"There is no such endpoint; there is {', '.join(self._endpoints)}.", "not_found", 404)
        served = endpoint.served  # read once: the request finishes on the version it began with
        if served is None:
            code = "no_model" if self.is_ready() else "loading"
            hint = "materialize its endpoint asset" if self.is_ready() else "ask again in a few seconds"
            raise RequestError(f"The {name} endpoint has no model yet: {hint}.", code, 503)
        return served.answer(payload, request_id, self.limits)

    def _watch(self, stop_server: Callable[[], None]) -> None:
        identity = _identity(self.root)
        for endpoint in self._endpoints.values():
            self._guarded(endpoint.start)
        self._started.set()
        load_runtime()  # the first model that is published should not wait for it
        while not self._stopping.wait(self._interval_s):
            if identity is None or _identity(self.root) != identity:
                logger.warning("The endpoints directory %s is gone: the server stops.", self.root)
                stop_server()
                return
            for endpoint in self._endpoints.values():
                self._guarded(endpoint.follow)

    @staticmethod
    def _guarded(step: Callable[[], None]) -> None:
        try:
            step()
        except OSError as error:  # a full or vanished disk must not end the watch; what serves goes on
            logger.error("The endpoints directory cannot be used: %s", error)


class LiveEndpoint:
    """One endpoint: what serves now, and the step to what is current."""

    def __init__(self, published: PublishedEndpoint):
        self.published = published
        self.served: Served | None = None
        self._given_up: str | None = None
        self._recorded: str | None = None

    def start(self) -> None:
        """Load the current version, or the one that served last if the current cannot."""
        current, last = self.published.current(), self.published.serving_version()
        reasons = self._load(current) if current else []
        if self.served is None and last and last != current:
            self._load(last)
        if reasons:
            self._refuse(current, reasons)
        self._record()

    def follow(self) -> None:
        """Go to the current version if it is another than the one that serves."""
        self._record()
        wanted = self.published.current()
        if wanted is None or wanted == self._given_up or (self.served and wanted == self.served.version):
            return
        if reasons := self._load(wanted):
            self._refuse(wanted, reasons)
        self._record()

    def describe(self, started: bool) -> dict[str, Any]:
        if self.served:
            return self.served.describe()
        return {"state": "no model" if started else "loading", "version": None, "model": None, "since": None}

    def _load(self, version: str) -> list[str]:
        """Load, check and warm a version beside the one that serves, then swap; return why not, if not."""
        try:
            predictor = Predictor.load(self.published.path_of(version))
            bundle = predictor.bundle
            if (bundle.name, bundle.version) != (self.published.name, version):
                text = f"{bundle.name} version {bundle.version} lies where {self.published.name} {version} belongs."
                raise BundleError(text)
            predictor.verify_golden()
        except Exception as error:
            return [_reason(error)]
        self.served = Served(predictor)
        logger.info("%s: version %s serves.", self.published.name, version)
        return []

    def _record(self) -> None:
        """Say what serves; a disk that was full is tried again at the next look."""
        if self.served and self._recorded != self.served.version:
            self.published.record_serving(self.served.version, self.served.predictor.bundle.kind, _CHECKED)
            self._recorded = self.served.version

    def _refuse(self, version: str, reasons: list[str]) -> None:
        logger.error("%s: version %s is refused: %s", self.published.name, version, " ".join(reasons))
        self._given_up = version
        self.published.put_back(version, self.served.version if self.served else None)
        self.published.record_refusal(version, reasons)
        self._given_up = None  # it is no longer current; whoever publishes it again gets another look


def _reason(error: Exception) -> str:
    if isinstance(error, BiggerBoatError):
        return error.message
    return f"It cannot be loaded: {str(error) or type(error).__name__}"


def _identity(directory: Path) -> tuple[int, int] | None:
    """Tell a directory from another one made later under the same name."""
    try:
        status = directory.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
