"""The process that the web UI's runs are forked from. It has imported the libraries that they need, and nothing of ours:
a run reads the project's own code, settings and dbt manifest from disk when it starts, as any new process does.

It serves ``warm_runs.py`` through a socket: for (run id, arguments) it forks a child that executes the run, and answers
(run id, None); when the child has ended, it says (run id, exit code). It ends when the other end of the socket is gone;
its children go on.
"""

import contextlib
import gc
import importlib
import os
import signal
import sys
from multiprocessing.connection import Connection, wait

LIBRARIES = (
    "dagster._cli.api",
    "dagster._core.executor.multiprocess",
    "dagster_dbt",
    "dbt.cli.main",
    "duckdb",
    "matplotlib",
    "pandera.polars",
    "polars",
    "pyarrow.parquet",
)
"""What the definitions and most steps import. TensorFlow is not among them: it does not bear being forked."""


def serve(channel: Connection) -> str | None:
    """Fork a child for each run that is asked for. Return its arguments in the child; None once the channel is closed."""
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # what all children share stays shared
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who started it
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    runs: dict[int, str] = {}
    with contextlib.suppress(EOFError, OSError):
        while True:
            ready = wait([channel, woken])
            if woken in ready:
                _report_ended(channel, woken, runs)
            if channel in ready:
                run_id, arguments = channel.recv()
                pid = os.fork()
                if not pid:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGINT, signal.default_int_handler)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.close(woken)
                    os.close(wake)
                    channel.close()
                    return arguments
                runs[pid] = run_id
                channel.send((run_id, None))
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

    # whatever is wrong with them, the run comes upon it again, and says so in its log
    with contextlib.suppress(Exception):
        job = recon_job_from_origin(deserialize_value(arguments, ExecuteRunArgs).job_origin).get_definition()
        if job.executor_def.name == dg.multiprocess_executor.name:
            fork_from_here()


if __name__ == "__main__":
    run = serve(Connection(int(sys.argv[1])))
    if run is not None:
        sys.exit(execute(run))
