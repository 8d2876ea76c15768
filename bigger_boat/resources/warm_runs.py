"""A run launcher that forks runs from a process which has their libraries imported: they start in under a second.

Dagster's own asks the code server, which starts a new Python for each run: seconds of imports before the first step.
What belongs elsewhere: the process that is forked (``run_host.py``), what is done about runs that have lost theirs
while no daemon watched (``automation/runner.py``, ``automation/stuck_runs.py``).
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import dagster as dg
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData, serialize_value
from dagster._utils import get_run_crash_explanation

from bigger_boat.errors import ServerError
from bigger_boat.resources.processes import LAUNCHED_ON, process_of

PATIENCE_S = 10.0
"""How long a run that is being started may take to say which process it has."""


class WarmRunLauncher(RunLauncher, ConfigurableClass):
    """Launches runs as processes of this machine. The first one of a daemon waits for the imports."""

    def __init__(self, inst_data: ConfigurableClassData | None = None):
        super().__init__()
        self._inst_data = inst_data
        self._host: _RunHost | None = None
        self._lock = threading.Lock()

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, _config: Mapping[str, Any]) -> "WarmRunLauncher":
        return cls(inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the process of a run. Raises ServerError where none can be started; the run fails with it."""
        run, ref = context.dagster_run, self._instance.get_ref()
        self._instance.add_run_tags(run.run_id, {LAUNCHED_ON: socket.gethostname()})
        arguments = serialize_value(ExecuteRunArgs(context.job_code_origin, run.run_id, ref))
        with self._lock:
            if self._host and self._host.fork(run.run_id, arguments):
                return
            self._host = _RunHost(ref)  # there was none, or it was killed
            if not self._host.fork(run.run_id, arguments):
                text = "The process that runs are forked from ended before it had forked this one."
                raise ServerError(text, "What it wrote before that, among the daemon's output, says why.")

    def terminate(self, run_id: str) -> bool:
        """Interrupt a run, as Ctrl-C would; return whether it ends, or has ended, by that."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        until = time.monotonic() + PATIENCE_S
        while (pid := process_of(self._instance, run)) is None and time.monotonic() < until:
            time.sleep(0.2)
            run = self._instance.get_run_by_id(run_id)  # it may not have had its tags yet
        if pid is None:
            return False
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        else:
            _end(self._instance, run_id, "")
        return True

    def dispose(self) -> None:
        if self._host:
            self._host.close()

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether a run's process lives; only those whose daemon was killed are not told of at once."""
        if process_of(self._instance, run) == 0:
            return CheckRunHealthResult(WorkerStatus.FAILED, "its process is gone")
        return CheckRunHealthResult(WorkerStatus.RUNNING)


class _RunHost:
    """A run host, and the thread that hears from it which runs have ended."""

    def __init__(self, ref: InstanceRef):
        self._ref = ref
        self._socket, its = socket.socketpair()
        with its:
            command = [sys.executable, "-m", "bigger_boat.resources.run_host", str(its.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[its.fileno()])
        self._channel = Connection(os.dup(self._socket.fileno()))
        self._heard = threading.Condition()
        self._forked: set[str] = set()
        self._over = False
        threading.Thread(target=self._hear, daemon=True, name="run-host").start()

    def fork(self, run_id: str, arguments: str) -> bool:
        """Have a run forked; return whether it was: False where the host has ended."""
        with contextlib.suppress(OSError):
            self._channel.send((run_id, arguments))
        with self._heard:
            self._heard.wait_for(lambda: self._over or run_id in self._forked)
            return run_id in self._forked

    def close(self) -> None:
        """Let the host end; the runs that it has forked go on."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _hear(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                run_id, exit_code = self._channel.recv()
                if exit_code is None:
                    with self._heard:
                        self._forked.add(run_id)
                        self._heard.notify_all()
                else:
                    self._end(run_id, exit_code)
        with self._heard:
            self._over = True
            self._heard.notify_all()
        self._process.wait()

    def _end(self, run_id: str, exit_code: int) -> None:
        try:
            with dg.DagsterInstance.from_ref(self._ref) as instance:
                _end(instance, run_id, get_run_crash_explanation(f"The process of run {run_id}", exit_code))
        except Exception:  # what is missed here, run monitoring finds at its next look
            logging.getLogger(__name__).exception("Run %s has lost its process, which could not be noted.", run_id)


def _end(instance: dg.DagsterInstance, run_id: str, why: str) -> None:
    """Say of a run whose process is gone that it is over, where it has not said so itself; free its slots."""
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run)
    else:
        instance.report_run_failed(run, why)
    instance.event_log_storage.free_concurrency_slots_for_run(run_id)
