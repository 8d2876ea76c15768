"""Which runs count as orphans: a truth table over who started them, whether that process lives, and the web UI."""

import json
import os
import subprocess
import sys

import dagster as dg
import pytest
from dagster._core.test_utils import instance_for_test

from bigger_boat.automation import runner
from bigger_boat.automation.sensors import stuck_run_sensor
from bigger_boat.errors import ServerError
from bigger_boat.resources.processes import LAUNCHED_BY, started


@dg.op
def nothing(): ...


@dg.job
def some_job():
    nothing()


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def process_tag(pid: int, started: str) -> dict[str, str]:
    return {runner.PROCESS_TAG: json.dumps({"pid": pid, "started": started})}


def alive() -> dict[str, str]:
    return process_tag(os.getpid(), started(os.getpid()))


def dead() -> dict[str, str]:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return process_tag(child.pid, "1")


def elsewhere() -> dict[str, str]:
    """A process of another machine, whose id says nothing here."""
    return {runner.PROCESS_TAG: json.dumps({"pid": 1, "started": "1", "host": "another.example"})}


def reused() -> dict[str, str]:
    """The process id belongs to another process by now: it started at another time."""
    return process_tag(os.getpid(), "1")


@pytest.mark.parametrize("status", ["NOT_STARTED", "STARTED", "STARTING", "CANCELING"])
@pytest.mark.parametrize(
    ("tags", "ui_is_up", "orphan"),
    [
        (alive, False, False),
        (alive, True, False),
        (dead, False, True),
        (dead, True, True),
        (reused, True, True),
        (elsewhere, False, False),
        (dict, True, False),
        (dict, False, True),
    ],
)
def test_who_is_an_orphan(instance, status, tags, ui_is_up, orphan):
    run = instance.create_run_for_job(some_job, tags=tags(), status=dg.DagsterRunStatus[status])
    assert runner.end_orphans(instance, ui_is_up) == ([run.run_id] if orphan else [])
    expected = dg.DagsterRunStatus.FAILURE if orphan else dg.DagsterRunStatus[status]
    assert instance.get_run_by_id(run.run_id).status == expected


def test_what_the_web_ui_runs_again_is_not_the_command_s(instance):
    """It has the tags of the command's run, whose process is gone; its own is known by what its log says."""
    first = instance.create_run_for_job(some_job, tags=dead(), status=dg.DagsterRunStatus.FAILURE)
    again = instance.create_run_for_job(
        some_job,
        tags=dict(first.tags),
        parent_run_id=first.run_id,
        root_run_id=first.run_id,
        status=dg.DagsterRunStatus.STARTED,
    )
    assert runner.end_orphans(instance, ui_is_up=True) == []
    assert runner.end_orphans(instance, ui_is_up=False) == [again.run_id]


def test_a_run_of_another_machine_is_left_to_it(instance):
    elsewhere = {LAUNCHED_BY: json.dumps({"host": "code-server.example"})}
    instance.create_run_for_job(some_job, tags=elsewhere, status=dg.DagsterRunStatus.STARTED)
    assert runner.end_orphans(instance, ui_is_up=False) == []


def test_a_team_s_runs_are_left_to_the_machines_that_have_them():
    """Of a run that ECS started there is no process here, and nobody's death is seen; a dead command's still is."""
    launcher = {"module": "dagster._core.test_utils", "class": "MockedRunLauncher"}
    with instance_for_test(overrides={"run_launcher": launcher}) as instance:
        instance.create_run_for_job(some_job, status=dg.DagsterRunStatus.STARTED)
        run = instance.create_run_for_job(some_job, tags=dead(), status=dg.DagsterRunStatus.STARTED)
        assert runner.end_orphans(instance, ui_is_up=False) == [run.run_id]


def test_ended_runs_are_left_alone(instance):
    for status in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED):
        instance.create_run_for_job(some_job, tags=dead(), status=status)
    assert runner.end_orphans(instance, ui_is_up=False) == []


def test_the_sensor_ends_them_and_says_so(instance):
    run = instance.create_run_for_job(some_job, tags=dead(), status=dg.DagsterRunStatus.STARTED)
    untouched = instance.create_run_for_job(some_job, status=dg.DagsterRunStatus.STARTED)
    reason = stuck_run_sensor(dg.build_sensor_context(instance=instance))
    assert run.run_id in reason.skip_message
    assert instance.get_run_by_id(untouched.run_id).status == dg.DagsterRunStatus.STARTED
    again = stuck_run_sensor(dg.build_sensor_context(instance=instance))
    assert again.skip_message == "No run is stuck."


def test_only_one_web_ui_per_data_folder(tmp_path):
    assert not runner.web_ui_is_up(tmp_path)
    with runner.web_ui(tmp_path):
        assert runner.web_ui_is_up(tmp_path)
        with pytest.raises(ServerError, match="up already"), runner.web_ui(tmp_path):
            pass
    assert not runner.web_ui_is_up(tmp_path)
