"""``bigger-boat`` in processes forked from one that has the imports done: a kill costs no start of Python.

Run as a program it is that process: it reads a request per line (JSON: arguments, environment, output file), forks, and
answers with the child's id, later with its end. A child is a process like any other: kill -9 ends it without a word.
"""

import contextlib
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

STOP_AFTER_S = 600


class ForkedCli:
    """Starts command lines. ``close`` ends it; its children are ended before."""

    def __init__(self, environment: dict[str, str]):
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        self._started: list[ForkedRun] = []
        self._answers = iter(self._process.stdout.readline, "")
        self._ends: dict[int, int] = {}
        self.left: list[psutil.Process] = []

    def start(self, root: Path, *arguments: str, **environment: str) -> "ForkedRun":
        """Start ``bigger-boat`` with these arguments on a data folder."""
        out = root.parent / f"{root.name}-said-{len(self._started)}.txt"
        out.touch()
        own = {"BIGGER_BOAT_DATA_DIR": str(root), "BIGGER_BOAT_SIZE": "quick", **environment}
        self._ask({"arguments": arguments, "environment": own, "out": str(out)})
        run = ForkedRun(self, self._hear("started")["started"], out)
        self._started.append(run)
        return run

    def run(self, root: Path, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run ``bigger-boat`` to its end; return its exit code and what it said."""
        run = self.start(root, *arguments, **environment)
        return run.wait(), run.said

    def reap(self, pid: int) -> int:
        """Wait for a child's end; return its exit code, negative for a signal."""
        while pid not in self._ends:
            self._ask({"wait": pid})
            ended = self._hear("ended")
            self._ends[ended["ended"]] = ended["code"]
        return self._ends[pid]

    def close(self) -> None:
        for run in self._started:
            run.kill()
        for process in self.left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def ended(self, pid: int) -> bool:
        return pid in self._ends

    def _ask(self, request: dict) -> None:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def _hear(self, expected: str) -> dict:
        answer = json.loads(next(self._answers))
        assert expected in answer, answer
        return answer


class ForkedRun:
    """One command line: ``pid``, what it has ``said`` so far, and its end."""

    def __init__(self, cli: ForkedCli, pid: int, out: Path):
        self._cli, self.pid, self._out = cli, pid, out

    @property
    def said(self) -> str:
        return self._out.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        """Whether it runs; a process that ended and waits for its parent is none."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except FileNotFoundError:
            return False

    def wait(self) -> int:
        """Wait for the end; return the exit code. It is killed when it takes ten minutes."""
        watchdog = threading.Timer(STOP_AFTER_S, lambda: os.kill(self.pid, signal.SIGKILL))
        watchdog.start()
        try:
            return self._cli.reap(self.pid)
        finally:
            watchdog.cancel()

    def kill(self) -> bool:
        """End it without a word; return whether it was alive. Its steps' processes go on until the end of the tests."""
        if self._cli.ended(self.pid):
            return False
        alive = self.alive
        with contextlib.suppress(psutil.NoSuchProcess):
            self._cli.left += psutil.Process(self.pid).children(recursive=True)
        os.kill(self.pid, signal.SIGKILL)
        self._cli.reap(self.pid)
        return alive

    def wait_for(self, trace: Callable[["ForkedRun"], object]) -> None:
        """Wait until ``trace`` of this run is true, or the run has ended."""
        deadline = time.monotonic() + STOP_AFTER_S
        while not trace(self) and self.alive:
            assert time.monotonic() < deadline, f"What was waited for did not come: {self.said}"
            time.sleep(0.005)

    def kill_after(self, trace: Callable[["ForkedRun"], object], at_most_s: float, chance: random.Random) -> bool:
        """Kill it at a random moment after the first trace of something; return whether it was alive."""
        self.wait_for(trace)
        time.sleep(chance.uniform(0, at_most_s))
        return self.kill()


def _serve() -> None:
    for name in ("dagster", "dagster_dbt", "dbt.cli.main", "pandera.polars"):
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            pid, status = os.waitpid(request["wait"], 0)
            answer = {"ended": pid, "code": os.waitstatus_to_exitcode(status)}
        else:
            pid = os.fork()
            if not pid:
                os._exit(_child(request))
            answer = {"started": pid}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _child(request: dict) -> int:
    out = os.open(request["out"], os.O_WRONLY | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(descriptor, target)
    os.environ.update(request["environment"])
    sys.argv = ["bigger-boat", *request["arguments"]]
    from bigger_boat import cli

    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    _serve()
