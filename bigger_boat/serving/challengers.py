"""A challenger beside the version that serves: which requests it answers, and its answers in the shadow.

Belongs here: choosing requests, asking off the request path. Does not belong here: loading and dropping versions
(``live_endpoint.py``), who may be a challenger (``ml/gate.py``), where it is written down (``published.py``).
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bigger_boat import clock
from bigger_boat.data.prediction_files import SHADOW, shadow_id
from bigger_boat.errors import RequestError
from bigger_boat.serving.answered import Answered
from bigger_boat.serving.contract import PredictionRequest

MOST_WAITING = 32
"""Requests that wait for a challenger in the shadow; more are left out, and counted."""

Predictions = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Challenger:
    """A version that answers a ``share`` of the requests, or, as a ``shadow``, none that anybody sees."""

    served: Any  # endpoints.Served, which imports this
    share: float
    shadow: bool

    @property
    def version(self) -> str:
        return self.served.version

    def answers(self, key: str) -> bool:
        """Whether it answers requests of this key: a session always gets the same of the two versions."""
        return not self.shadow and position(self.version, key) < self.share

    def describe(self) -> dict[str, Any]:
        told = {"state": SHADOW} if self.shadow else {"state": "canary", "share": self.share}
        return {**self.served.describe(), **told}


def key_of(asked: PredictionRequest, request_id: str) -> str:
    """Return what a request is chosen by: its first session's id, or its own where sessions have none."""
    return asked.session_ids[0] if asked.session_ids else request_id


def position(version: str, key: str) -> float:
    """Return a number in [0, 1) for a key, the same on every machine, and another for each version."""
    digest = hashlib.blake2b(f"{version}:{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


class Shadows:
    """What challengers in the shadow are asked. All of it belongs to the event loop."""

    def __init__(
        self,
        ask: Callable[[Challenger, PredictionRequest], Awaitable[Predictions]],
        *,
        offer: Callable[[Answered], None] | None,
        observe: Callable[[str, str], None],
        failed: Callable[[Challenger, Exception], Awaitable[None]],
    ):
        """``offer`` takes answers for the log; ``observe`` hears endpoint and outcome: same, other, or left out."""
        self._ask, self._offer, self._observe, self._failed = ask, offer, observe, failed
        self._tasks: set[asyncio.Task] = set()

    def follow(self, challenger: Challenger, asked: PredictionRequest, answered: Predictions, request_id: str) -> None:
        """Ask the challenger what was just answered, behind the answer. Never waits."""
        if len(self._tasks) >= MOST_WAITING:
            self._observe(challenger.served.names()[0], "left out")
            return
        task = asyncio.create_task(self._compare(challenger, asked, answered, request_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _compare(
        self, challenger: Challenger, asked: PredictionRequest, answered: Predictions, request_id: str
    ) -> None:
        endpoint, model, version = challenger.served.names()
        started = time.monotonic()
        try:
            predictions = await self._ask(challenger, asked)
        except RequestError:
            self._observe(endpoint, "left out")  # its queue was full
            return
        except Exception as error:
            await self._failed(challenger, error)
            return
        same = list(map(_first, answered)) == list(map(_first, predictions))
        self._observe(endpoint, "same" if same else "other")
        if self._offer:
            latency_s = time.monotonic() - started
            name = shadow_id(request_id)
            at_s = clock.timestamp()
            self._offer(Answered(name, SHADOW, endpoint, model, version, asked, predictions, latency_s, at_s))


def _first(prediction: Mapping[str, Any]) -> Any:
    """Return the first product, or the probability to two digits."""
    if "skus" in prediction:
        return prediction["skus"][:1]
    return round(prediction["purchase_probability"], 2)
