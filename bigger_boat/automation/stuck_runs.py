"""Runs that have no end of their own: without a living process, or beyond their time. They are ended with a message.

Who else ends runs: the launcher those whose process it sees die, Dagster's run monitoring those beyond their time and
those whose launcher was killed. What is found here is what they have left.
"""

import contextlib
import os
import signal
import time
from dataclasses import dataclass

import dagster as dg

from bigger_boat.automation.jobs import JOB_TIMEOUT_S, TIMEOUT_TAG
from bigger_boat.automation.runner import ALIVE, command_of, free_slots_of_ended_runs
from bigger_boat.resources.processes import process_of

GRACE_S = 120.0
"""Who started a run learns of its end sooner than this; then it is told better than from here."""
[_TIMEOUT] = TIMEOUT_TAG


@dataclass(frozen=True)
class Stuck:
    """A run that was ended, and why."""

    run_id: str
    sentence: str


def end_stuck(instance: dg.DagsterInstance, now: float | None = None) -> list[Stuck]:
    """End the runs of the web UI that are stuck; those of the command line have their own watch (``end_orphans``)."""
    now = now or time.time()
    found = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=ALIVE)):
        run = record.dagster_run
        if command_of(run) is not None:
            continue
        pid = process_of(instance, run)
        why = _why(record, pid, now)
        if why and not instance.get_run_by_id(run.run_id).is_finished:  # it may have ended a moment ago
            if pid:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            instance.report_run_failed(run, f"{why} Run it again: what is done stays done.")
            found.append(Stuck(run.run_id, why))
    if found:
        free_slots_of_ended_runs(instance)
    return found


def _why(record: dg.RunRecord, pid: int | None, now: float) -> str:
    """Return why a run is stuck, "" where it is not; ``pid``: of its process, 0 where it is gone, None: unknown yet."""
    limit_s = float(record.dagster_run.tags.get(_TIMEOUT, JOB_TIMEOUT_S))
    since = record.start_time or record.create_timestamp.timestamp()
    if now - record.update_timestamp.timestamp() < GRACE_S:
        return ""
    if pid == 0:
        return "The process of this run is gone, and nobody has noticed."
    if limit_s and now - since > limit_s + GRACE_S:
        return f"This run has taken longer than its {limit_s:,.0f} s, and was not ended by Dagster."
    return ""
