"""Runs a plan through Dagster, one run at a time per data folder, and tells what happens.

What belongs elsewhere: what has to be done (``plan.py``), how it is shown (``console.py``).
"""

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableRepository

from bigger_boat.assets.common import REFUSED
from bigger_boat.assets.verdicts import RANGE_END, RANGE_START
from bigger_boat.automation.plan import Plan
from bigger_boat.errors import ServerError
from bigger_boat.resources.processes import has_ended, launches_elsewhere, process_of, runs_elsewhere, this_process

PROCESS_TAG = ".dagster/bigger_boat_process"
"""Tag of a run: the command that executes it, as a process. The prefix hides it in the web UI."""
UI_LOCK = "up.lock"
RUN_LOCK = "run.lock"
POLL_S = 0.25
INTERRUPTS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")
ASSET_JOB = "__ASSET_JOB"
ALIVE = [dg.DagsterRunStatus[name] for name in ("NOT_STARTED", "STARTING", "STARTED", "CANCELING")]
"""What a run whose process was killed looks like for ever; queued runs have no process yet."""


@dataclass(frozen=True)
class Outcome:
    """How the runs of a plan ended.

    ``failures``: (step, sentence); ``refused``: a gate's decision, not a fault; ``stopped``: somebody pressed Ctrl-C.
    """

    success: bool
    run_ids: tuple[str, ...]
    failures: tuple[tuple[str, str], ...] = ()
    refused: bool = False
    stopped: bool = False


def execute(
    plan: Plan,
    instance: dg.DagsterInstance,
    on_event: Callable[[dg.DagsterEvent, float], None],
    on_log: Callable[[int, str], None],
    tags: Mapping[str, str] | None = None,
) -> Outcome:
    """Make what the plan says: a run of the catalogue's tables, one per range of days, one of what follows.

    Not one run for all: Dagster plans an event per asset and day of a run's range, for unpartitioned assets as well.
    ``on_event`` gets each Dagster event with its time (s since the epoch) as it happens, in another thread; ``on_log``
    the level and text of what steps say beside them. ``tags`` are put on every run.
    """
    later = tuple(key for key in plan.unpartitioned if key not in plan.independent)
    steps: list[tuple[Sequence[dg.AssetKey], tuple[str, str] | None]] = [
        (plan.independent, None),
        *((plan.partitioned, block) for block in plan.blocks()),
        (later, None),
    ]
    run_ids: list[str] = []
    for keys, block in (step for step in steps if step[0]):
        run_tags = {PROCESS_TAG: json.dumps(this_process()), **(tags or {})}
        if block:
            run_tags |= {RANGE_START: block[0], RANGE_END: block[1]}
        free_slots_of_ended_runs(instance)
        run_id, success = _execute_run(instance, keys, run_tags, on_event, on_log)
        free_slots_of_ended_runs(instance)
        run_ids.append(run_id)
        if not success:
            failures, refused = failures_of(instance, run_id)
            return Outcome(False, tuple(run_ids), tuple(failures), refused, _was_stopped(instance, run_id))
    return Outcome(True, tuple(run_ids))


def _execute_run(instance, keys, tags, on_event, on_log) -> tuple[str, bool]:
    repository = ReconstructableRepository.for_module("bigger_boat.definitions", "defs")
    with _following(instance, on_event, on_log):
        result = dg.execute_job(
            repository.get_reconstructable_job(ASSET_JOB),
            instance=instance,
            asset_selection=list(keys),
            tags=tags,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
    return result.run_id, result.success


@contextmanager
def _following(
    instance: dg.DagsterInstance,
    on_event: Callable[[dg.DagsterEvent, float], None],
    on_log: Callable[[int, str], None],
) -> Iterator[None]:
    """Pass on the events of the run that starts inside, from a thread that reads the instance."""
    known = {run.run_id for run in instance.get_runs(limit=1)}
    stop = threading.Event()

    def follow() -> None:
        run_id, cursor = None, None
        while True:
            last_round = stop.is_set()
            if run_id is None:
                newest = instance.get_runs(limit=1)
                run_id = newest[0].run_id if newest and newest[0].run_id not in known else None
            if run_id:
                records = instance.get_records_for_run(run_id, cursor)
                cursor = records.cursor
                for record in records.records:
                    entry = record.event_log_entry
                    if entry.dagster_event:
                        on_event(entry.dagster_event, entry.timestamp)
                    else:
                        on_log(int(entry.level), entry.user_message)
            if last_round:
                return
            stop.wait(POLL_S)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=30)


def failures_of(instance: dg.DagsterInstance, run_id: str) -> tuple[list[tuple[str, str]], bool]:
    """Return (step, sentence) of each failed step and failed blocking check, and whether it was only a refusal."""
    failures, refused = [], []
    blocked: dict[str | None, list[str]] = {}
    for record in instance.get_records_for_run(run_id).records:
        event = record.event_log_entry.dagster_event
        if event and event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if check.blocking and not check.passed:
                name = f"check {check.check_name} of {check.asset_key.to_user_string()} failed"
                blocked.setdefault(event.step_key, []).append(f"{name}: {check.description or 'no reason given'}")
        elif event and event.event_type == dg.DagsterEventType.STEP_FAILURE:
            data = event.step_failure_data
            failure = data.user_failure_data
            error = data.error
            while error and error.cause and not failure:
                error = error.cause
            text = failure.description if failure else (error.message if error else event.message)
            if error and error.cls_name == "DagsterAssetCheckFailedError":
                text = "\n".join(blocked.get(event.step_key, [text]))
            failures.append((event.step_key, text.strip()))
            refused.append(bool(failure and REFUSED in failure.metadata))
    return failures, bool(refused) and all(refused)


def _was_stopped(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether an interrupt (Ctrl-C) ended the run or one of its steps."""
    for record in instance.get_records_for_run(run_id).records:
        event = record.event_log_entry.dagster_event
        error = getattr(event.event_specific_data, "error", None) if event and event.is_failure else None
        while error:
            if error.cls_name in INTERRUPTS:
                return True
            error = error.cause
    return False


def free_slots_of_ended_runs(instance: dg.DagsterInstance) -> None:
    """Free the slots that runs have left: one that is interrupted as a step starts keeps its slot for ever."""
    storage = instance.event_log_storage
    for pool in storage.get_concurrency_keys():
        info = storage.get_concurrency_info(pool)
        for run_id in {*info.active_run_ids, *info.pending_run_ids, *info.assigned_run_ids}:
            run = instance.get_run_by_id(run_id)
            if run is None or run.is_finished:
                storage.free_concurrency_slots_for_run(run_id)


@contextmanager
def one_at_a_time(data_dir: Path, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold the data folder's run lock. Where another run holds it, tell for whom it waits, and wait."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with open(data_dir / RUN_LOCK, "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            on_wait(lock.read().strip() or "another run")
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} since {time.strftime('%H:%M:%S')}")
        lock.flush()
        yield


def command_that_runs(data_dir: Path) -> str:
    """Return which command holds the data folder's run lock (``process 17 since 09:00:00``), or '' if none does."""
    try:
        with open(data_dir / RUN_LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return ""
    except BlockingIOError:
        return (data_dir / RUN_LOCK).read_text().strip() or "a run"
    return ""


@contextmanager
def web_ui(data_dir: Path) -> Iterator[None]:
    """Hold the data folder's web UI lock. Raises ServerError where another web UI holds it."""
    with open(data_dir / UI_LOCK, "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerError("The web UI of this data folder is up already.", "Use that one, or end it.") from None
        yield


def web_ui_is_up(data_dir: Path) -> bool:
    """Whether a process holds the web UI lock."""
    try:
        with open(data_dir / UI_LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def command_of(run: dg.DagsterRun) -> dict[str, Any] | None:
    """Return the process of the command that executes a run; None for the web UI's, and for what it has run again.

    A run that is run again has the tags of the first.
    """
    return json.loads(run.tags[PROCESS_TAG]) if PROCESS_TAG in run.tags and not run.parent_run_id else None


def end_orphans(instance: dg.DagsterInstance, ui_is_up: bool) -> list[str]:
    """Mark runs failed whose process is gone (kill -9 leaves them started for ever) and free their slots.

    Runs from the command line name their process. Others were started by the web UI, which watches its own as long as
    it lives: when it is not up, those without a living process are orphans. Those of another machine are left to it.
    """
    ended = []
    is_watched = ui_is_up or launches_elsewhere(instance)
    for run in instance.get_runs(dg.RunsFilter(statuses=ALIVE)):
        if runs_elsewhere(run):
            continue
        process = command_of(run)
        gone = has_ended(process) if process else not (is_watched or process_of(instance, run))
        if gone:
            instance.report_run_failed(run, "The process of this run is gone; run it again: it goes on from there.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            ended.append(run.run_id)
    return ended
