"""Requests that wait together are answered together.

Belongs here: the bounded queue of an endpoint, and who drains it. Does not belong here: what a model is
(``predictor.py``), which one answers (``endpoints.py``), HTTP (``app.py``).

There is no timer: whatever has come while a batch was running is the next batch. One client alone never waits, and
many clients share one pass over the product matrix.

A call that takes a few milliseconds runs on the event loop itself, after all that has come was read: waking a thread
and being woken by it takes about as long. Everything else goes to threads, so that probes, timeouts and other
endpoints are not held up. What is quick is measured for each version, never assumed.
"""

import asyncio
import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bigger_boat.errors import RequestError
from bigger_boat.serving.contract import PredictionRequest
from bigger_boat.serving.predictor import LARGEST_CALL_SESSIONS, Predictor

Predictions = list[dict[str, Any]]

_SMALL_SESSIONS, _SMALL_EVENTS = 8, 256
"""A small call: what may be answered on the event loop, and what tells how quick a version is."""
_QUICK_S = 0.008
"""How long a version's small calls may take, smoothed, to be answered there."""
_SMOOTHING = 0.1


@dataclass(slots=True)
class _Job:
    predictor: Predictor
    request: PredictionRequest
    future: asyncio.Future
    loop: asyncio.AbstractEventLoop
    sessions: int
    events: int
    result: Predictions | Exception | None = None

    def fits(self, other: "_Job") -> bool:
        """Whether one call can answer both: the same version, k and exclusion."""
        mine, others = self.request, other.request
        same_rules = (mine.k, mine.exclude_seen) == (others.k, others.exclude_seen)
        return self.predictor is other.predictor and same_rules


class Batcher:
    """The queue of one endpoint. Each job carries its version: a swap needs no pause, and nothing is mixed."""

    def __init__(
        self,
        name: str,
        *,
        queue_sessions: int,
        queue_events: int = 1_000_000,
        workers: int = 1,
        on_batch: Callable[[str, int, float], None] | None = None,
        threads_only: bool = False,
    ):
        """The limits bound what waits; ``on_batch`` hears name, sessions and seconds of a batch.

        With ``threads_only`` nothing is answered on the event loop, however quick it is.
        """
        self.name = name
        self._queue_sessions = queue_sessions
        self._queue_events = queue_events
        self._on_batch = on_batch
        self._jobs: deque[_Job] = deque()
        self._waiting_sessions = self._waiting_events = 0
        self._threads_only = threads_only
        self._closed = False
        self._busy_threads = 0
        self._turn_of: asyncio.AbstractEventLoop | None = None
        self._small_call_s: weakref.WeakKeyDictionary[Predictor, float] = weakref.WeakKeyDictionary()
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, name=f"answer-{name}-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting_sessions(self) -> int:
        return self._waiting_sessions

    async def answer(self, predictor: Predictor, request: PredictionRequest) -> Predictions:
        """Wait in the queue for the predictions. Raises RequestError (503 ``overloaded``) where the queue is full."""
        loop = asyncio.get_running_loop()
        events = sum(map(len, request.sessions))
        job = _Job(predictor, request, loop.create_future(), loop, len(request.sessions), events)
        with self._changed:
            if self._closed or (self._jobs and not self._has_room(job)):
                raise RequestError("Too many requests are waiting; ask again in a moment.", "overloaded", 503)
            self._jobs.append(job)
            self._waiting_sessions += job.sessions
            self._waiting_events += job.events
            self._want_turn(loop)
        return await job.future

    def close(self) -> None:
        """Answer what waits, then end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _has_room(self, job: _Job) -> bool:
        sessions, events = self._waiting_sessions + job.sessions, self._waiting_events + job.events
        return sessions <= self._queue_sessions and events <= self._queue_events

    def _want_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have ``loop`` look at the queue after it has read what else came."""
        if self._turn_of is not loop:
            self._turn_of = loop
            loop.call_soon(self._take_turn, loop)

    def _take_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer here what is quick, or wake a thread; a thread that is busy takes what waits when it is done."""
        with self._changed:
            self._turn_of = None
            if self._closed or not self._is_quick():
                self._changed.notify()
                return
            batch = self._take()
            if self._jobs:
                self._want_turn(loop)
        if batch:
            self._answer(batch)
            self._hand_out(batch, loop)

    def _is_quick(self) -> bool:
        """Whether all that waits is one small call, or a few, of a version that is known to be quick."""
        if self._threads_only or self._busy_threads:
            return False
        if self._waiting_sessions > _SMALL_SESSIONS or self._waiting_events > _SMALL_EVENTS:
            return False
        return all(self._small_call_s.get(job.predictor, _QUICK_S) < _QUICK_S for job in self._jobs)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._jobs:
                    if self._closed:
                        return
                    self._changed.wait()
                batch = self._take()
                self._busy_threads += 1
                if self._jobs:
                    self._changed.notify()  # another thread may be free
            if batch:
                self._answer(batch)
                self._hand_out(batch)
            with self._changed:
                self._busy_threads -= 1

    def _take(self) -> list[_Job]:
        """Take the oldest job and those behind it that fit into its call; who is gone is dropped."""
        batch: list[_Job] = []
        left: deque[_Job] = deque()
        sessions = 0
        for job in self._jobs:
            gone = job.future.cancelled()
            if not gone and batch and not (sessions + job.sessions <= LARGEST_CALL_SESSIONS and job.fits(batch[0])):
                left.append(job)
                continue
            self._waiting_sessions -= job.sessions
            self._waiting_events -= job.events
            if not gone:
                batch.append(job)
                sessions += job.sessions
        self._jobs = left
        return batch

    def _answer(self, batch: list[_Job]) -> None:
        began = time.perf_counter()
        first = batch[0]
        try:
            predictions = first.predictor.predict(_merged([job.request for job in batch]))
            start = 0
            for job in batch:
                job.result = predictions[start : start + job.sessions]
                start += job.sessions
        except Exception as error:
            for job in batch:  # one request's fault must not be its neighbours'
                job.result = _alone(job) if len(batch) > 1 else error
        seconds = time.perf_counter() - began
        self._note_pace(batch, seconds)
        if self._on_batch:
            self._on_batch(self.name, sum(job.sessions for job in batch), seconds)

    def _note_pace(self, batch: list[_Job], seconds: float) -> None:
        if sum(job.sessions for job in batch) > _SMALL_SESSIONS or sum(job.events for job in batch) > _SMALL_EVENTS:
            return
        predictor = batch[0].predictor
        before = self._small_call_s.get(predictor, seconds)
        self._small_call_s[predictor] = before + _SMOOTHING * (seconds - before)

    def _hand_out(self, batch: list[_Job], here: asyncio.AbstractEventLoop | None = None) -> None:
        """Give each job its result on its own loop; ``here`` is the loop that runs this, if one does."""
        by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
        for job in batch:
            by_loop.setdefault(job.loop, []).append(job)
        for loop, jobs in by_loop.items():
            if loop is here:
                _deliver(jobs)
                continue
            with contextlib.suppress(RuntimeError):  # the loop was closed; nobody waits there any more
                loop.call_soon_threadsafe(_deliver, jobs)


def _merged(requests: list[PredictionRequest]) -> PredictionRequest:
    if len(requests) == 1:
        return requests[0]
    return PredictionRequest(
        sessions=[session for request in requests for session in request.sessions],
        at_ms=[time_ms for request in requests for time_ms in request.at_ms],
        k=requests[0].k,
        exclude_seen=requests[0].exclude_seen,
    )


def _alone(job: _Job) -> Predictions | Exception:
    try:
        return job.predictor.predict(job.request)
    except Exception as error:
        return error


def _deliver(jobs: list[_Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue  # it was cancelled: its time was over, or its client is gone
        if isinstance(job.result, Exception):
            job.future.set_exception(job.result)
        else:
            job.future.set_result(job.result)
