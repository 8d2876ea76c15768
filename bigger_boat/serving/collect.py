"""``/collect``: events are judged, made durable, answered, and brought into the landing zone behind the answers.

Belongs here: what happens between a request and the spool, and when the spool lands. Does not belong here: what an
event is (``collected_event.py``), bytes on disk (``spool.py``), the landing zone (``collect_landing.py``), paths and
status codes (``app.py``).

A thread appends for all who wait and asks the disk once for all of them: an answer comes after that, and the event loop
never waits for a disk.
"""

import asyncio
import contextlib
import hashlib
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from bigger_boat import clock
from bigger_boat.errors import RequestError
from bigger_boat.serving.collected_event import Kept
from bigger_boat.serving.spool import LAND_NOW, SEALED, Spool, bytes_in, line_of, read_segment, segments

logger = logging.getLogger("bigger_boat.serving.collect")

_LANDING = [sys.executable, "-m", "bigger_boat.serving.collect_landing"]
_TICK_S = 0.25
_STOP_PATIENCE_S = 5.0
_RETRY_S, _LONGEST_RETRY_S = 5.0, 300.0
_DAY_S = 86_400


@dataclass(frozen=True)
class CollectOptions:
    """Where collected events go, and how much is taken on. ``rotate_*``: when a segment of the spool lands."""

    directory: Path
    landing_dir: Path
    trust_time: bool = False
    rotate_s: float = 300.0
    rotate_bytes: int = 32 << 20
    batch_events: int = 1_000
    queue_bytes: int = 16 << 20
    spool_bytes: int = 2 << 30
    remembered_ids: int = 200_000
    answer_timeout_s: float = 10.0


@dataclass
class _Waiting:
    """Requests whose lines are not on disk yet."""

    blocks: list[bytes] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    futures: list[asyncio.Future] = field(default_factory=list)
    size: int = 0


class Collector:
    """Keeps events. ``keep`` is called on the event loop that ``start`` was called on."""

    def __init__(self, options: CollectOptions):
        self.options = options
        self._known: dict[bytes, None] = {}
        self._waiting = _Waiting()
        self._changed = threading.Condition()
        self._is_closed = False
        self._sealed_bytes = 0
        self._sealed_at = self._first_at = 0.0
        self._landing: subprocess.Popen | None = None
        self._land_again_at, self._retry_s = 0.0, _RETRY_S
        self._spool: Spool
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread

    @property
    def spool_bytes(self) -> int:
        """Bytes of events that are answered and have not landed."""
        return self._sealed_bytes + self._spool.size

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take the spool, with what a killed process left in it. Raises ServerError if another process has it."""
        self._loop = loop
        self._spool = Spool(self.options.directory)
        self._remember()
        self._thread = threading.Thread(target=self._work, name="collect", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what waits, and land it; what takes too long is landed at the next start."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(_STOP_PATIENCE_S + 2)

    async def keep(self, events: Iterable[Kept]) -> tuple[int, int]:
        """Keep events durably; return how many are new and how many were known by their ids.

        Raises RequestError: 429 if too much waits, 503 if the disk is full, fails or is too slow. Then the same events
        may be sent again.
        """
        lines, fresh, known = [], [], []
        for event in events:
            key = _key(event.event_id)
            if key in self._known:
                known.append(key)
            else:
                self._known[key] = None
                fresh.append(key)
                lines.append(line_of(event.line))
        block = b"".join(lines)
        try:
            self._require_room(len(block))
        except RequestError:
            self._forget(fresh)
            raise
        done = self._submit(block, fresh)
        try:
            async with asyncio.timeout(self.options.answer_timeout_s):
                await done
        except TimeoutError:
            raise RequestError("The disk is too slow; send the events again.", "disk_too_slow", 503) from None
        if any(key not in self._known for key in known):  # the first request with this id has failed meanwhile
            raise _disk_failed()
        self._bound_known()
        return len(fresh), len(known)

    def _require_room(self, size: int) -> None:
        if self._waiting.size + size > self.options.queue_bytes:
            raise RequestError("Too many events wait to be written; send them again.", "too_many_requests", 429)
        if self.spool_bytes + size > self.options.spool_bytes:
            text = "The spool is full: its events do not reach the landing zone. The server's log says why."
            raise RequestError(text, "spool_full", 503)

    def _submit(self, block: bytes, keys: list[bytes]) -> asyncio.Future:
        """Queue lines; one without lines is answered after everything before it."""
        future = self._loop.create_future()
        with self._changed:
            waiting = self._waiting
            waiting.blocks.append(block)
            waiting.keys += keys
            waiting.futures.append(future)
            waiting.size += len(block)
            self._changed.notify()
        return future

    def _forget(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self._known.pop(key, None)

    def _remember(self) -> None:
        """Know the ids of the newest events in the spool, in the order they came: the oldest goes first."""
        self._count_sealed()
        newest: list[list[bytes]] = []
        for path in reversed(segments(self.options.directory)):
            if sum(map(len, newest)) >= self.options.remembered_ids:
                break
            with contextlib.suppress(FileNotFoundError):  # a landing that outlived its server has just taken it away
                newest.append([_key(orjson.loads(line)["event_id"]) for line in filter(None, read_segment(path))])
        for key in (key for keys in reversed(newest) for key in keys):
            self._known.pop(key, None)
            self._known[key] = None
        self._bound_known()

    def _bound_known(self) -> None:
        while len(self._known) > self.options.remembered_ids:
            del self._known[next(iter(self._known))]

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting.futures and not self._is_closed:
                    self._changed.wait(_TICK_S)
                taken, self._waiting = self._waiting, _Waiting()
                is_closed = self._is_closed
            if taken.futures:
                self._append(taken)
            elif is_closed:
                break
            with contextlib.suppress(OSError):  # a full disk: the next round tries again, requests are told meanwhile
                self._rotate()
        self._finish()

    def _append(self, taken: _Waiting) -> None:
        error = None
        if not self._spool.size:
            self._first_at = clock.timestamp()
        try:
            self._spool.append(b"".join(taken.blocks))
        except OSError as fault:
            logger.error("Events cannot be written: %s", fault)
            error = _disk_failed()
            self._count_sealed()  # the fault has ended the segment
        with contextlib.suppress(RuntimeError):  # the loop was closed; nobody waits there any more
            self._loop.call_soon_threadsafe(self._answer, taken, error)

    def _answer(self, taken: _Waiting, error: RequestError | None) -> None:
        if error:
            self._forget(taken.keys)
        for future in taken.futures:
            if future.done():
                continue  # its client is gone, or its time was over
            if error:
                future.set_exception(error)
            else:
                future.set_result(None)

    def _rotate(self) -> None:
        """Seal when the segment is large, old, or of a day that has ended, or somebody asks; land what is sealed."""
        asked = self.options.directory / LAND_NOW
        is_asked = asked.exists()
        if is_asked:
            asked.unlink(missing_ok=True)
            self._land_again_at, self._retry_s = 0.0, _RETRY_S
        now = clock.timestamp()
        is_old = now - self._first_at >= self.options.rotate_s or now // _DAY_S > self._first_at // _DAY_S
        is_due = self._spool.size and (is_asked or is_old or self._spool.size >= self.options.rotate_bytes)
        self._complete(self._spool.seal if is_due else self._spool.complete)
        self._land()

    def _complete(self, complete: Callable[[], bool]) -> None:
        with contextlib.suppress(OSError):  # the disk is full or fails: the next round tries again
            if complete():
                self._count_sealed()

    def _count_sealed(self) -> None:
        self._sealed_bytes = bytes_in(self.options.directory, SEALED)

    def _land(self) -> None:
        if self._landing is not None:
            if self._landing.poll() is None:
                return
            self._note_end(self._landing)
            self._landing = None
        if self._sealed_bytes and time.monotonic() >= self._land_again_at:
            told = [str(self.options.directory), str(self.options.landing_dir), clock.utc_now().isoformat()]
            self._landing = subprocess.Popen(
                [*_LANDING, *told], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )

    def _note_end(self, landing: subprocess.Popen) -> None:
        said, complaint = landing.communicate()
        self._count_sealed()
        if landing.returncode == 0:
            self._retry_s = _RETRY_S
            logger.info("collected events landed", extra={"fields": orjson.loads(said)})
            return
        self._land_again_at = time.monotonic() + self._retry_s
        self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)
        reason = complaint.decode(errors="replace").strip().splitlines()[-1:] or [f"exit code {landing.returncode}"]
        logger.error("Collected events cannot be landed, and stay in the spool: %s", reason[0])

    def _finish(self) -> None:
        deadline = time.monotonic() + _STOP_PATIENCE_S
        self._complete(self._spool.seal)
        with contextlib.suppress(OSError):
            self._land_again_at = 0.0
            while (self._landing or self._sealed_bytes) and time.monotonic() < deadline and not self._land_again_at:
                self._land()
                time.sleep(0.02)
        self._spool.close()


def _key(event_id: str) -> bytes:
    """Return what an id is remembered by: as long for every id."""
    return hashlib.blake2b(event_id.encode(), digest_size=16).digest()


def _disk_failed() -> RequestError:
    return RequestError("The events could not be written to disk; send them again.", "disk_failed", 503)
