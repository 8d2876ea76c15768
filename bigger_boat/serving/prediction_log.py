"""Writing every answer to the log, off the request path: a bounded queue, and a thread that empties it.

An answer is offered after it was sent, by appending to a queue; the thread looks at it four times a second, so that a
kill -9 loses that much at most. What finds no room is dropped and counted. What belongs elsewhere: the files' layout
and reading them (``data/prediction_files.py``).
"""

import contextlib
import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from bigger_boat import clock
from bigger_boat.data.prediction_files import (
    DROPPED,
    SPOOL,
    SUFFIX,
    day_of,
    folder_of,
)
from bigger_boat.serving.answered import Answered, lines_of

logger = logging.getLogger("bigger_boat.serving")

POLL_S = 0.25
"""How often the queue is emptied: what a kill -9 loses."""
ROTATE_REQUEST = ".rotate"
"""A file of this name in the spool asks the writer to finish its files now; it takes the name away when it has."""

NO_ROOM, NO_DISK = "queue", "disk"
"""Why an answer was dropped."""

_CHUNK = 32
"""Answers written at once; the interpreter is free for requests in between."""


@dataclass(frozen=True)
class LogLimits:
    """How much waits, how large a file gets and how old before it is finished, and how much is kept on disk."""

    queue_cells: int = 200_000
    """Events asked about and products answered, together."""
    file_bytes: int = 16 * 1024 * 1024
    file_age_s: float = 3600.0
    total_bytes: int = 2 * 1024**3
    days: int = 90


class PredictionLog:
    """The log of one server. ``offer`` belongs to one thread (the event loop), all else to the writer."""

    def __init__(
        self,
        root: Path,
        *,
        limits: LogLimits = LogLimits(),
        on_written: Callable[[int], None] = lambda _count: None,
        on_dropped: Callable[[str, int], None] = lambda _why, _count: None,
        clock: Callable[[], float] = clock.timestamp,
    ):
        self._root = Path(root)
        self._limits = limits
        self._on_written, self._on_dropped = on_written, on_dropped
        self._clock = clock
        self._queue: deque[Answered] = deque()
        self._offered = self._taken = 0  # cells; each has one writing thread, so that no lock is needed
        self._no_room = self._no_disk = self._told = 0  # answers that were dropped, and those told of in a file; too
        self._files: dict[str, _OpenFile] = {}
        self._process, self._number = uuid.uuid4().hex[:8], 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Finish what an earlier server left, and write from now on."""
        with self._disk_is_told(0):
            finish_spool(self._root)
        self._thread = threading.Thread(target=self._work, name="prediction-log", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what waits and finish all files."""
        self._stopping.set()
        if self._thread:
            self._thread.join()

    def offer(self, answer: Answered) -> None:
        """Take an answer to be written; it is dropped where too much waits. Never blocks."""
        cells = answer.cells()
        if self._queue and self._offered - self._taken + cells > self._limits.queue_cells:
            self._no_room += 1
            self._on_dropped(NO_ROOM, 1)
            return
        self._offered += cells
        self._queue.append(answer)

    def _work(self) -> None:
        while not self._stopping.wait(POLL_S):
            self._turn()
        self._turn()
        with self._disk_is_told(0):
            self._finish_all()

    def _turn(self) -> None:
        while chunk := [self._queue.popleft() for _ in range(min(_CHUNK, len(self._queue)))]:
            self._write(chunk)
            self._taken += sum(answer.cells() for answer in chunk)
        with self._disk_is_told(0):
            self._tell_dropped()
            self._rotate()

    def _write(self, chunk: Sequence[Answered]) -> None:
        by_file: dict[tuple[str, str], list[Answered]] = {}
        for answer in chunk:
            by_file.setdefault((answer.endpoint, day_of(int(answer.at_s * 1000))), []).append(answer)
        for (endpoint, day), answers in by_file.items():
            lines = [orjson.dumps(line) for answer in answers for line in lines_of(answer)]
            with self._disk_is_told(len(answers)):
                self._file(endpoint, day).write(b"\n".join([*lines, b""]))
                self._on_written(len(answers))

    def _tell_dropped(self) -> None:
        """Leave the number of answers that are not in the log where the day's readers see it."""
        dropped = self._no_room + self._no_disk
        if dropped > self._told and self._files:
            next(iter(self._files.values())).write(orjson.dumps({DROPPED: dropped - self._told}) + b"\n")
            self._told = dropped

    def _file(self, endpoint: str, day: str) -> "_OpenFile":
        file = self._files.get(endpoint)
        if file and file.day != day:
            self._finish(endpoint)
            file = None
        if file is None:
            self._number += 1
            moment = datetime.fromtimestamp(self._clock(), UTC)
            name = f"{moment:%Y%m%dT%H%M%S}-{self._process}-{self._number:06d}{SUFFIX}"
            file = self._files[endpoint] = _OpenFile(
                folder_of(self._root / SPOOL, endpoint, day) / name, day, self._clock()
            )
        return file

    def _rotate(self) -> None:
        """Finish files that are large, old, of another day, or asked for; then keep the disk within its bound."""
        now = self._clock()
        asked = (self._root / SPOOL / ROTATE_REQUEST).exists()
        for endpoint, file in list(self._files.items()):
            old = now - file.opened_at > self._limits.file_age_s or file.day != day_of(int(now * 1000))
            if asked or old or file.size >= self._limits.file_bytes:
                self._finish(endpoint)
                sweep(self._root, self._limits, day_of(int(now * 1000)))
        if asked:
            finish_spool(self._root)

    def _finish_all(self) -> None:
        for endpoint in list(self._files):
            self._finish(endpoint)

    def _finish(self, endpoint: str) -> None:
        self._files.pop(endpoint).finish(self._root)

    @contextlib.contextmanager
    def _disk_is_told(self, answers: int) -> Iterator[None]:
        """A disk that is full, or gone, costs the log its lines and nothing else: what serves goes on serving."""
        try:
            yield
        except OSError as error:
            if answers:
                self._no_disk += answers
                self._on_dropped(NO_DISK, answers)
            for file in self._files.values():  # a line may be torn: what comes next begins a file of its own
                file.abandon()
            self._files.clear()
            logger.error("The log of answers cannot be written in %s: %s", self._root, error.strerror or error)


class _OpenFile:
    """A file of the spool that lines are appended to."""

    def __init__(self, path: Path, day: str, opened_at: float):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.day, self.opened_at, self.size = path, day, opened_at, 0
        self._stream = path.open("ab", buffering=0)

    def write(self, lines: bytes) -> None:
        rest = memoryview(lines)
        while rest:  # an unbuffered stream may take a part
            rest = rest[self._stream.write(rest) :]
        self.size += len(lines)

    def finish(self, root: Path) -> None:
        os.fsync(self._stream.fileno())
        self._stream.close()
        _move_in(root, self.path)

    def abandon(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.close()


def finish_spool(root: Path) -> None:
    """Move the files that lie in the spool to their places. Only where no server writes them."""
    for path in sorted((Path(root) / SPOOL).glob(f"*/date=*/*{SUFFIX}")):
        _move_in(Path(root), path)
    (Path(root) / SPOOL / ROTATE_REQUEST).unlink(missing_ok=True)


def request_rotation(root: Path, timeout_s: float) -> bool:
    """Ask the server that writes here to finish its files; return whether it has done so in time."""
    request = Path(root) / SPOOL / ROTATE_REQUEST
    request.parent.mkdir(parents=True, exist_ok=True)
    request.touch()
    end = time.monotonic() + timeout_s
    while request.exists() and time.monotonic() < end:
        time.sleep(POLL_S / 5)
    return not request.exists()


def sweep(root: Path, limits: LogLimits, today: str) -> list[Path]:
    """Remove finished files that are too old, then the oldest until the rest is within the bound; return them."""
    sizes = {path: path.stat().st_size for path in Path(root).glob(f"[!_]*/date=*/*{SUFFIX}")}
    oldest_first = sorted(sizes, key=lambda path: (path.parent.name, path.name))
    total, gone = sum(sizes.values()), []
    for path in oldest_first:
        day = path.parent.name.removeprefix("date=")
        too_old = (datetime.fromisoformat(today) - datetime.fromisoformat(day)).days > limits.days
        if not too_old and total <= limits.total_bytes:
            break
        path.unlink(missing_ok=True)
        total -= sizes[path]
        gone.append(path)
        with contextlib.suppress(OSError):
            path.parent.rmdir()
    return gone


def _move_in(root: Path, spooled: Path) -> None:
    target = root / spooled.relative_to(root / SPOOL)
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(spooled, target)
