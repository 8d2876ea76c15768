"""Which process runs what: telling a process from a later one that got its id.

What belongs elsewhere: what follows when it is gone (``automation/runner.py``, ``automation/stuck_runs.py``).
"""

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

STARTED = "Started process for run (pid: "
"""How a run of the web UI says, in its log, which process it has."""
LAUNCHED_BY = ".dagster/grpc_info"
"""Tag of a run: the code server that started its process; that of another machine has process ids of its own."""
LAUNCHED_ON = ".dagster/bigger_boat_host"
"""Tag of a run: the machine whose daemon forked its process (``warm_runs.py``). The prefix hides it in the web UI."""
HERE = ("localhost", "127.0.0.1", socket.gethostname())
LAUNCHES_HERE = ("DefaultRunLauncher", "WarmRunLauncher")


def _launched_on(run: dg.DagsterRun) -> str | None:
    return run.tags.get(LAUNCHED_ON) or json.loads(run.tags.get(LAUNCHED_BY, "{}")).get("host")


def runs_elsewhere(run: dg.DagsterRun) -> bool:
    """Whether the process of a run was started on another machine: nothing of it can be seen here."""
    return (_launched_on(run) or HERE[0]) not in HERE


def launches_elsewhere(instance: dg.DagsterInstance) -> bool:
    """Whether an instance has its runs started on other machines, as a team's does: nothing of them can be seen."""
    launcher = instance.get_ref().run_launcher_data if instance.is_persistent else None
    return launcher is not None and launcher.class_name not in LAUNCHES_HERE


def process_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> int | None:
    """Return the living process that said it was started for a run, 0 if it is gone, None if none of here has."""
    if _launched_on(run) not in HERE:
        return None
    told = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    for entry in told:
        if entry.dagster_event and entry.message.startswith(STARTED):
            pid = int(entry.message.removeprefix(STARTED).split(")")[0])
            since = born(pid)
            # a process that began after its run said so is another one, with the same id
            return pid if since is not None and since <= entry.timestamp + 1 else 0
    return None


def this_process() -> dict[str, object]:
    """Return what tells this process from all others, those of other machines too."""
    return {"pid": os.getpid(), "started": started(os.getpid()), "host": socket.gethostname()}


def has_ended(process: Mapping[str, Any]) -> bool:
    """Whether a process of this machine is gone; of one of another machine nothing is known."""
    here = socket.gethostname()
    return process.get("host", here) == here and started(process["pid"]) != process["started"]


def started(pid: int) -> str:
    """Return what tells a process from a later one with the same id: its start time, or '' where there is none.

    A process that has ended and that nobody has waited for (a zombie: in containers they may stay) is none.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return "" if state == "Z" else fields[18]
    except FileNotFoundError:
        return _by_ps(pid)


def born(pid: int) -> float | None:
    """Return when a process began (s since 1970), None where there is none; where that is not known, 0."""
    ticks = started(pid)
    if not ticks:
        return None
    try:
        booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
        return int(booted.split()[1]) + int(ticks) / os.sysconf("SC_CLK_TCK")
    except (FileNotFoundError, ValueError):
        return 0.0


def _by_ps(pid: int) -> str:
    import subprocess

    if Path("/proc/self").exists():
        return ""
    return subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
