"""Which runs of the web UI count as stuck: a truth table over their process, their age and their limit."""

import json
import os
import subprocess
import sys
import time

import dagster as dg
import pytest
from dagster._core.events import EngineEventData

from bigger_boat.automation.jobs import JOB_TIMEOUT_S
from bigger_boat.automation.runner import PROCESS_TAG, end_orphans
from bigger_boat.automation.stuck_runs import GRACE_S, end_stuck
from bigger_boat.resources import processes
from bigger_boat.resources.processes import LAUNCHED_BY, STARTED, born

SOON, LATER, TOO_LATE = 5.0, GRACE_S + 5, JOB_TIMEOUT_S + GRACE_S + 5
GONE, SLOW = "The process of this run is gone", "taken longer than its 14,400 s"


@dg.op
def nothing(): ...


@dg.job
def some_job():
    nothing()


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def running(instance: dg.DagsterInstance, pid: int | None, tags: dict[str, str]) -> dg.DagsterRun:
    """A run as the web UI leaves it: its process has said that it was started for it."""
    told = {LAUNCHED_BY: json.dumps({"host": "localhost", "port": 1}), **tags}
    run = instance.create_run_for_job(some_job, tags=told, status=dg.DagsterRunStatus.STARTED)
    if pid:
        instance.report_engine_event(f"{STARTED}{pid}).", run, EngineEventData.in_process(pid))
    return run


def dead() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.fixture
def living():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield child
    child.kill()
    child.wait()


@pytest.mark.parametrize(
    ("process", "after_s", "tags", "why"),
    [
        ("living", LATER, {}, ""),
        ("living", TOO_LATE, {}, SLOW),
        ("living", TOO_LATE, {"dagster/max_runtime": "0"}, ""),
        ("living", LATER + 60, {"dagster/max_runtime": "60"}, "taken longer than its 60 s"),
        ("dead", SOON, {}, ""),
        ("dead", LATER, {}, GONE),
        ("dead", LATER, {PROCESS_TAG: "{}"}, ""),
        ("unknown", LATER, {}, ""),
        ("unknown", TOO_LATE, {}, SLOW),
    ],
)
def test_who_is_stuck(instance, living, process, after_s, tags, why):
    pid = {"living": living.pid, "dead": dead(), "unknown": None}[process]
    run = running(instance, pid, tags)
    ended = end_stuck(instance, time.time() + after_s)
    assert [one.run_id for one in ended] == ([run.run_id] if why else [])
    assert all(why in one.sentence for one in ended)
    status = dg.DagsterRunStatus.FAILURE if why else dg.DagsterRunStatus.STARTED
    assert instance.get_run_by_id(run.run_id).status == status
    if why and process == "living":
        assert living.wait(30) == -9
    if why:
        assert end_stuck(instance, time.time() + after_s) == []


def test_the_process_id_of_a_run_may_belong_to_a_later_process_by_now(instance, living, monkeypatch):
    run = running(instance, living.pid, {})
    monkeypatch.setattr(processes, "born", lambda _pid: time.time() + 60)
    [ended] = end_stuck(instance, time.time() + LATER)
    assert (ended.run_id, living.poll()) == (run.run_id, None)


def test_a_process_on_another_machine_is_not_looked_for_here(instance):
    running(instance, dead(), {LAUNCHED_BY: json.dumps({"host": "code-server.example"})})
    assert end_stuck(instance, time.time() + LATER) == []


def test_a_run_that_outlives_the_web_ui_is_no_orphan(instance, living):
    lives, gone = running(instance, living.pid, {}), running(instance, dead(), {})
    assert end_orphans(instance, ui_is_up=False) == [gone.run_id]
    assert instance.get_run_by_id(lives.run_id).status == dg.DagsterRunStatus.STARTED


def test_a_process_that_is_not_there_was_never_born():
    assert born(dead()) is None
    assert born(os.getpid()) < time.time()
