"""One endpoint of a data directory: what serves now, what stands beside it, and the step to what is current.

Belongs here: loading versions beside the old one, checking, swapping, falling back. What belongs elsewhere: which
endpoints there are, and when each is looked at (``endpoints.py``); the directory's layout (``published.py``).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bigger_boat.errors import BiggerBoatError, BundleError
from bigger_boat.serving.challengers import Challenger
from bigger_boat.serving.graph import give_back_memory
from bigger_boat.serving.predictor import Predictor
from bigger_boat.serving.published import PublishedEndpoint, utc_now

logger = logging.getLogger("bigger_boat.serving")

_CHECKED = "digests and golden answers"

Verify = Callable[[Predictor], None]
"""Replays the golden requests, which also warms the graph. Raises BundleError if an answer differs."""


@dataclass
class Served:
    """A version that answers."""

    predictor: Predictor
    since: str = field(default_factory=utc_now)

    @property
    def version(self) -> str:
        return self.predictor.bundle.version

    def names(self) -> tuple[str, str, str]:
        """Return endpoint, model and version."""
        bundle = self.predictor.bundle
        return bundle.name, bundle.kind, bundle.version

    def describe(self) -> dict[str, Any]:
        bundle = self.predictor.bundle
        return {"state": "serving", "version": self.version, "model": bundle.kind, "since": self.since}


class LiveEndpoint:
    """One endpoint: what serves now, and the step to what is current."""

    def __init__(self, published: PublishedEndpoint, verify: Verify):
        self.published = published
        self._verify = verify
        self.served: Served | None = None
        self.challenger: Challenger | None = None
        self._retired = False
        self._given_up: str | None = None
        self._dropped: str | None = None
        self._recorded: str | None = None
        self._unsaid: dict[str, Callable[[], None]] = {}

    def start(self) -> None:
        """Load the current version, or the one that served last if the current cannot."""
        current, last = self.published.current(), self.published.serving_version()
        reasons = self._load(current) if current else []
        if self.served is None and last and last != current:
            self._load(last)
        if reasons:
            self._refuse(current, reasons)
        self._record()
        self._follow_challenger()

    def follow(self) -> None:
        """Go to the current version if it is another than the one that serves."""
        if self._retired:  # a look later, so that the requests which it was answering have ended
            self._retired = False
            give_back_memory()
        self._record()
        self._follow_current()
        self._follow_challenger()
        self._say_what_is_unsaid()

    def drop(self, version: str, reason: str) -> None:
        """Let go of a challenger that failed, and say why; it returns only when somebody names it again."""
        if self.challenger and self.challenger.version == version:
            self.challenger, self._retired = None, True
        if self._dropped == version:
            return  # requests that failed together
        self._dropped = version
        logger.error("%s: challenger %s drops out: %s", self.published.name, version, reason)
        self._say(version, lambda: self.published.drop_challenger(version, [reason]))

    def _follow_current(self) -> None:
        wanted = self.published.current()
        if wanted is None or wanted == self._given_up or (self.served and wanted == self.served.version):
            return
        if reasons := self._load(wanted):
            self._refuse(wanted, reasons)
        self._record()

    def describe(self, started: bool) -> dict[str, Any]:
        if self.served:
            rival = {"challenger": self.challenger.describe()} if self.challenger else {}
            return {**self.served.describe(), **rival}
        return {"state": "no model" if started else "loading", "version": None, "model": None, "since": None}

    def _load(self, version: str) -> list[str]:
        """Load, check and warm a version beside the one that serves, then swap; return why not, if not."""
        predictor, reasons = self._checked(version)
        if predictor:
            self._retired |= self.served is not None
            self.served = Served(predictor)
            logger.info("%s: version %s serves.", self.published.name, version)
        return reasons

    def _checked(self, version: str) -> tuple[Predictor | None, list[str]]:
        """Return a version loaded, checked and warm, or why it cannot answer."""
        try:
            predictor = Predictor.load(self.published.path_of(version))
            bundle = predictor.bundle
            if (bundle.name, bundle.version) != (self.published.name, version):
                text = f"{bundle.name} version {bundle.version} lies where {self.published.name} {version} belongs."
                raise BundleError(text)
            self._verify(predictor)
        except Exception as error:
            self._retired = True
            return None, [reason_of(error)]
        return predictor, []

    def _follow_challenger(self) -> None:
        """Go to the challenger that is wanted, if another version serves; one that cannot answer drops out."""
        wanted = self.published.challenger()
        if wanted is None or self.served is None or wanted.version == self.served.version:
            if self.challenger:
                self._unsaid.pop(self.challenger.version, None)
            self._retired |= self.challenger is not None
            self.challenger = self._dropped = None
            return
        if wanted.version == self._dropped:
            return
        if self.challenger and self.challenger.version == wanted.version:
            self.challenger = Challenger(self.challenger.served, wanted.share, wanted.shadow)
            return
        predictor, reasons = self._checked(wanted.version)
        if predictor is None:
            self.drop(wanted.version, " ".join(reasons))
            return
        self._retired |= self.challenger is not None
        self.challenger = Challenger(Served(predictor), wanted.share, wanted.shadow)
        self._say(wanted.version, lambda: self.published.record_challenging(wanted.version, predictor.bundle.kind))

    def _say(self, version: str, write: Callable[[], None]) -> None:
        """Write down what became of a version, at the next look again if the disk is full: it is not loaded again.

        Raises OSError.
        """
        self._unsaid[version] = write
        self._say_what_is_unsaid()

    def _say_what_is_unsaid(self) -> None:
        for version, write in list(self._unsaid.items()):
            write()
            if self._unsaid.get(version) is write:  # what a request's thread has to say meanwhile stays
                del self._unsaid[version]

    def _record(self) -> None:
        """Say what serves; a disk that was full is tried again at the next look."""
        if self.served and self._recorded != self.served.version:
            self.published.record_serving(self.served.version, self.served.predictor.bundle.kind, _CHECKED)
            self._recorded = self.served.version

    def _refuse(self, version: str, reasons: list[str]) -> None:
        logger.error("%s: version %s is refused: %s", self.published.name, version, " ".join(reasons))
        self._given_up = version

        def say() -> None:
            self.published.put_back(version, self.served.version if self.served else None)
            self.published.record_refusal(version, reasons)
            self._given_up = None  # it is no longer current; whoever publishes it again gets another look

        self._say(version, say)


def reason_of(error: Exception) -> str:
    """Return in a sentence why a version cannot answer."""
    if isinstance(error, BiggerBoatError):
        return error.message
    return f"It cannot be loaded: {str(error) or type(error).__name__}"
