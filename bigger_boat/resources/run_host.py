"""The process that the web UI's runs are forked from. It has imported the libraries that they need, and none of ours: a
run reads the project's own code, settings and dbt manifest from disk when it starts, as any new process does.

It serves ``warm_runs.py`` through a socket: to (run id, arguments) it answers (run id, None) and forks a child that
executes the run; when the child has ended, it says (run id, exit code). It ends when the other end of the socket is
gone; its children go on.
"""

import contextlib
import importlib
import os
import signal
import sys
import threading
import traceback
import warnings
from multiprocessing import util
from multiprocessing.connection import Connection, wait
from typing import NoReturn

from bigger_boat.resources.importing import importing

LIBRARIES = (
    "dagster._cli.api",
    "dagster._core.executor.multiprocess",
    "dagster_dbt",
    "dbt.cli.main",
    "matplotlib",
    "pandera.polars",
    "polars",
    "pyarrow.parquet",
)
"""What the definitions and most steps import. Not TensorFlow and DuckDB: they start threads, and a fork, which has none
of them, waits for them at its end.
"""


def serve(channel: Connection) -> str | None:
    """Fork a child for each run that is asked for. Return its arguments in the child, None at the channel's end."""
    with importing():
        for name in LIBRARIES:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who started it
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    # from Python 3.12 on; the threads are Polars' and the allocators', which take up their work in the fork
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    runs: dict[int, str] = {}
    with contextlib.suppress(EOFError, OSError):
        while True:
            ready = wait([channel, woken])
            if woken in ready:
                _report_ended(channel, woken, runs)
            if channel in ready:
                run_id, arguments = channel.recv()
                channel.send((run_id, None))  # before the fork: who hears nothing has it forked by another host
                try:
                    pid = os.fork()
                except OSError:
                    traceback.print_exc()
                    channel.send((run_id, os.EX_OSERR))
                    continue
                if not pid:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGINT, signal.default_int_handler)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.close(woken)
                    os.close(wake)
                    channel.close()
                    return arguments
                runs[pid] = run_id
    return None


def _report_ended(channel: Connection, woken: int, runs: dict[int, str]) -> None:
    with contextlib.suppress(BlockingIOError):
        os.read(woken, 65536)
    while runs:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        if run_id := runs.pop(pid, None):
            channel.send((run_id, os.waitstatus_to_exitcode(status)))


def execute(arguments: str) -> int:
    """Execute a run in this process, as ``dagster api execute_run`` does; return the exit code."""
    from dagster._cli.api import execute_run_command

    _import_definitions(arguments)
    return execute_run_command.main([arguments], "dagster api execute_run", standalone_mode=False) or 0


def _import_definitions(arguments: str) -> None:
    """Import the run's definitions while this process has one thread, and let its steps be forked from it as it is."""
    import dagster as dg
    from dagster._grpc.types import ExecuteRunArgs
    from dagster._serdes import deserialize_value
    from dagster._utils.hosted_user_process import recon_job_from_origin

    from bigger_boat.resources.step_server import fork_from_here

    known = set(sys.modules)
    try:
        job = recon_job_from_origin(deserialize_value(arguments, ExecuteRunArgs).job_origin).get_definition()
    except Exception:  # the run imports them again, comes upon the same, and says so in its log
        for name in set(sys.modules) - known:
            del sys.modules[name]
        return
    if job.executor_def.name == dg.multiprocess_executor.name:
        fork_from_here()


def _leave(exit_code: int) -> NoReturn:
    """End this process as ``multiprocessing`` ends its forks: destructors might wait for threads of the host."""
    threading._shutdown()
    util._exit_function()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(exit_code)


if __name__ == "__main__":
    run = serve(Connection(int(sys.argv[1])))
    if run is not None:
        try:
            code = execute(run)
        except BaseException:
            traceback.print_exc()
            code = 1
        _leave(code)
