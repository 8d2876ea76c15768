"""What a step prints in its job: it goes on to the job's own log, and home in bounded pieces, to be printed there.

Streams are caught as file descriptors: words of native libraries and of processes that the step starts are among it.
Between stands ``tee``, a process of its own, so that the last words before a crash are in the job's log all the same,
and no library that holds Python's lock while it writes waits for a thread that needs it.
What belongs elsewhere: how it travels (``batch_messages.py``), when (``batch_worker.py``).
"""

import codecs
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

PIECE_BYTES = 256 * 1024
"""The most of a stream that goes home at a time."""
MOST_BYTES = 32 * 2**20
"""The most of a stream that goes home at all: a step that prints without end fills neither bucket nor disk there."""
LEFT_OUT = "\n[More was printed than goes home: the rest is in the log of the job.]\n"
_LINGER_S = 5.0


class Stream:
    """A file that grows, read as UTF-8 in pieces; no letter is cut in two, and what is no letter becomes U+FFFD."""

    def __init__(self, path: Path, piece_bytes: int = PIECE_BYTES, most_bytes: int = MOST_BYTES):
        path.touch()
        self._file = path.open("rb", buffering=0)
        self._piece, self._left = piece_bytes, most_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self) -> str:
        """Return what has come since the call before, at most a piece; "" where nothing has, or nothing more may."""
        taken = self._file.read(min(self._piece, self._left + 1))
        if len(taken) > self._left > 0:
            taken, self._left = taken[: self._left], 0
            return self._decoder.decode(taken) + LEFT_OUT
        if not self._left:
            return ""
        self._left -= len(taken)
        text = self._decoder.decode(taken)
        return text or (self.take() if taken else "")


class Output:
    """Both streams of this process, as files in a folder."""

    def __init__(self, folder: Path):
        self._paths = {1: folder / "stdout", 2: folder / "stderr"}
        self._streams = [Stream(path) for path in self._paths.values()]

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Catch what is printed meanwhile."""
        with contextlib.ExitStack() as stack:
            for descriptor, path in self._paths.items():
                stack.enter_context(_teed(descriptor, path))
            yield

    def take(self) -> tuple[str, str]:
        """Return the next piece of each."""
        out, err = self._streams
        return out.take(), err.take()


@contextlib.contextmanager
def _teed(descriptor: int, path: Path) -> Iterator[None]:
    """Have what goes to a descriptor go to a file, too."""
    stream = {1: sys.stdout, 2: sys.stderr}[descriptor]
    stream.flush()
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(line_buffering=True)  # it is no terminal: lines would wait for the end
    kept = os.dup(descriptor)
    program = shutil.which("tee") or shutil.which("tee", path=os.defpath) or "tee"  # a job's PATH may be its own
    tee = subprocess.Popen([program, "-a", path], stdin=subprocess.PIPE, stdout=kept)
    os.dup2(tee.stdin.fileno(), descriptor)
    tee.stdin.close()
    try:
        yield
    finally:
        stream.flush()
        os.dup2(kept, descriptor)
        os.close(kept)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a process that the step left behind may hold it open
            tee.wait(_LINGER_S)


def print_here(stdout: str, stderr: str) -> None:
    """Print what a job has printed, where Dagster catches it as the step's own."""
    for text, stream in ((stdout, sys.stdout), (stderr, sys.stderr)):
        if text:
            _write(text, stream)


def _write(text: str, stream: TextIO) -> None:
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()
