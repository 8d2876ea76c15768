"""The spool: events on disk between their answer and the landing zone, as lines that are appended and never changed.

Belongs here: segments, their lines, what a kill leaves of them. Does not belong here: what an event is
(``collected_event.py``), when to append and seal (``collect.py``), landing (``collect_landing.py``).

::

    collect/.lock                    held by the one process that appends
    collect/000000000012.active      what is being appended to
    collect/000000000011.sealed      complete: it lands, and then goes

A line is the CRC-32 of its JSON in eight hexadecimal digits, a space, the JSON. A process that is killed leaves an
active segment, maybe with half a line at its end that nobody was told of; the next one seals it.
"""

import contextlib
import fcntl
import os
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from bigger_boat.data.durable import sync_directory
from bigger_boat.errors import ServerError

ACTIVE, SEALED, DAMAGED = ".active", ".sealed", ".damaged"
LAND_NOW = "land-now"
"""A file of this name asks whoever appends to seal, and to land without waiting."""


class Spool:
    """Appends to the segments of a directory. One process at a time; one thread at a time."""

    def __init__(self, directory: Path, patience_s: float = 5.0):
        """Take the directory and seal what a process that died left. Raises ServerError if another process has it."""
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.directory, patience_s)
        for left in self.directory.glob(f"*{ACTIVE}"):
            left.rename(left.with_suffix(SEALED))
        taken = segments(self.directory, (SEALED, ACTIVE, DAMAGED))  # a number names one segment, also its damaged copy
        self._number = max((int(path.stem) for path in taken), default=0)
        self._file: int | None = None
        self._ended: dict[Path, bool] = {}
        """Segments that nothing is appended to any more and that are called active yet; whether they have lines."""
        self.size = 0
        """Bytes in the active segment."""

    def append(self, block: bytes) -> None:
        """Append whole lines; they are on disk when it returns. Raises OSError, with nothing of them to be relied on.

        A fault ends the segment: nothing is ever appended behind half a line.
        """
        if not block:
            return
        try:
            if self._file is None:
                self._open()
            _write_all(self._file, block)
            os.fdatasync(self._file)
        except OSError:
            self._take_back()
            raise
        self.size += len(block)

    def seal(self) -> bool:
        """Complete the active segment, so that it lands; return whether any with lines was completed.

        Raises OSError where the disk does not let it; nothing is appended to it then, and ``complete`` tries again.
        """
        self._end()
        return self.complete()

    def complete(self) -> bool:
        """Complete the segments that have ended and could not be yet; return whether any had lines. Raises OSError."""
        any_lines = False
        for active, has_lines in list(self._ended.items()):
            if has_lines:
                active.rename(active.with_suffix(SEALED))
            else:
                active.unlink(missing_ok=True)
            del self._ended[active]
            any_lines |= has_lines
        return any_lines

    def close(self) -> None:
        """Seal, and let go of the directory; what cannot be sealed, the next to take it seals."""
        with contextlib.suppress(OSError):
            self.seal()
        os.close(self._lock)

    def _open(self) -> None:
        self._number += 1
        self._file = os.open(self._path(ACTIVE), os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
        sync_directory(self.directory)

    def _take_back(self) -> None:
        """End the segment with its last whole line; what cannot be cut off was never acknowledged, and ends it, too."""
        with contextlib.suppress(OSError):
            if self._file is not None:
                os.ftruncate(self._file, self.size)
        with contextlib.suppress(OSError):
            self.seal()

    def _end(self) -> None:
        """Let go of the active segment, whatever becomes of it."""
        if self._file is None:
            return
        file, self._file = self._file, None
        self._ended[self._path(ACTIVE)] = bool(self.size)
        self.size = 0
        with contextlib.suppress(OSError):  # its lines are synced
            os.close(file)

    def _path(self, suffix: str) -> Path:
        return self.directory / f"{self._number:012d}{suffix}"


def line_of(content: bytes) -> bytes:
    """Return the spool's line for JSON without a line break."""
    return b"%08x %s\n" % (zlib.crc32(content), content)


def segments(directory: Path, suffixes: Iterable[str] = (SEALED, ACTIVE)) -> list[Path]:
    """Return the segments that lie in a directory, oldest first; without the active one: ``(SEALED,)``."""
    return sorted(path for suffix in suffixes for path in Path(directory).glob(f"*{suffix}"))


def bytes_in(directory: Path, suffix: str) -> int:
    """Return the bytes of all segments of a kind. One may land meanwhile: a landing may outlive its server."""
    total = 0
    for path in segments(directory, (suffix,)):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def read_segment(path: Path) -> Iterator[bytes | None]:
    """Yield the JSON of each line; None for one that is damaged.

    Half a line at the end was never acknowledged and is left out. Bounded memory.
    """
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            content = line[9:-1]
            yield content if line[:9] == b"%08x " % zlib.crc32(content) else None


def is_written(directory: Path) -> bool:
    """Whether a process appends to the spool of this directory now."""
    try:
        os.close(_locked(Path(directory), 0))
    except (ServerError, FileNotFoundError) as error:
        return isinstance(error, ServerError)
    return False


def _locked(directory: Path, patience_s: float) -> int:
    handle = os.open(directory / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except OSError as error:
            if time.monotonic() >= deadline:
                os.close(handle)
                raise ServerError(f"Another process collects events in {directory}.", "Stop it first.") from error
            time.sleep(0.05)


def _write_all(file: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(file, view) :]
