"""Runs that are forked from a warm process: real processes of a small job, ended in every way a run can end."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.launcher import LaunchRunContext, WorkerStatus
from dagster._core.test_utils import instance_for_test

from bigger_boat.automation.runner import end_orphans
from bigger_boat.automation.stuck_runs import GRACE_S, end_stuck
from bigger_boat.resources.processes import LAUNCHED_ON, process_of
from bigger_boat.resources.warm_runs import WarmRunLauncher

PATIENCE_S = 60
LAUNCHER = {"module": "bigger_boat.resources.warm_runs", "class": "WarmRunLauncher"}
JOBS = """
import json, os, sys, time
from pathlib import Path
import dagster as dg

FOLDER = Path(__file__).parent

@dg.op(config_schema={"seconds": dg.Field(float, default_value=0.0)})
def work(context):
    import duckdb, polars  # both with threads
    duckdb.sql("select 1").fetchall()
    polars.select(1)
    ours = sorted(name for name in sys.modules if name.startswith("bigger_boat"))
    told = {"version": 1, "pid": os.getpid(), "parent": os.getppid(), "ours": ours}
    (FOLDER / "draft").write_text(json.dumps(told))
    (FOLDER / "draft").rename(FOLDER / (context.run_id + ".json"))
    time.sleep(context.op_config["seconds"])

@dg.job(executor_def=dg.in_process_executor)
def in_one_process():
    work()

@dg.job(executor_def=dg.multiprocess_executor.configured({"max_concurrent": 2, "start_method": {"forkserver": {}}}))
def by_step():
    work()

defs = dg.Definitions(jobs=[in_one_process, by_step])
"""


class Launched:
    """Jobs of a file of their own, and an instance that launches them."""

    def __init__(self, instance: dg.DagsterInstance, file: Path):
        self.instance, self.file = instance, file
        self.launcher: WarmRunLauncher = instance.run_launcher
        self._others = hosts()

    def launch(self, job: str = "in_one_process", **config: Any) -> dg.DagsterRun:
        """Create a run and start it as the daemon does."""
        return self.start(self.create(job, **config))

    def create(self, job: str, **config: Any) -> dg.DagsterRun:
        jobs = ReconstructableRepository.for_file(str(self.file), "defs").get_reconstructable_job(job)
        return self.instance.create_run_for_job(
            jobs.get_definition(),
            run_config={"ops": {"work": {"config": config}}},
            job_code_origin=jobs.get_python_origin(),
            status=dg.DagsterRunStatus.STARTING,
        )

    def start(self, run: dg.DagsterRun) -> dg.DagsterRun:
        self.launcher.launch_run(LaunchRunContext(run, workspace=None))
        return self.instance.get_run_by_id(run.run_id)

    def status(self, run: dg.DagsterRun) -> str:
        return self.instance.get_run_by_id(run.run_id).status.name

    def end_of(self, run: dg.DagsterRun) -> str:
        return wait(lambda: self.status(run) in ("SUCCESS", "FAILURE", "CANCELED") and self.status(run))

    def told(self, run: dg.DagsterRun) -> dict[str, Any]:
        """Wait until the op has said where it runs."""
        said = self.file.parent / f"{run.run_id}.json"
        wait(said.exists)
        return json.loads(said.read_text())

    def host(self) -> psutil.Process:
        """The process that runs are forked from."""
        [found] = hosts() - self._others
        return found

    def log(self, run: dg.DagsterRun) -> str:
        return "\n".join(entry.message for entry in self.instance.all_logs(run.run_id))


def hosts() -> set[psutil.Process]:
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # or one that has ended and is not waited for yet
            if "bigger_boat.resources.run_host" in child.cmdline():
                found.add(child)
    return found


def wait(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < deadline, "What was waited for did not come."
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def launched(tmp_path_factory) -> Iterator[Launched]:
    file = tmp_path_factory.mktemp("jobs") / "jobs_of_this_test.py"
    file.write_text(JOBS)
    with instance_for_test(overrides={"run_launcher": LAUNCHER}) as instance:
        yield Launched(instance, file)


def test_a_run_is_forked_from_a_process_that_knows_none_of_our_code(launched):
    run = launched.launch()
    assert launched.end_of(run) == "SUCCESS", launched.log(run)
    told = launched.told(run)
    assert told["parent"] == launched.host().pid
    wait(lambda: not psutil.pid_exists(told["pid"]))
    assert told["ours"] == [
        "bigger_boat",
        "bigger_boat.resources",
        "bigger_boat.resources.importing",
        "bigger_boat.resources.step_server",
    ]


def test_a_run_reads_the_code_as_it_is_when_it_starts(launched):
    assert launched.end_of(launched.launch()) == "SUCCESS"
    host = launched.host().pid
    launched.file.write_text(JOBS.replace('"version": 1', '"version": 2'))
    try:
        assert launched.told(launched.launch())["version"] == 2
    finally:
        launched.file.write_text(JOBS)
    assert launched.host().pid == host


def test_steps_are_forked_from_a_copy_of_their_run_that_ends_with_it(launched):
    run = launched.launch("by_step", seconds=3.0)
    told = launched.told(run)
    copy = psutil.Process(told["parent"])
    assert copy.ppid() == process_of(launched.instance, run)
    assert launched.end_of(run) == "SUCCESS", launched.log(run)
    wait(lambda: not copy.is_running())


@pytest.mark.parametrize("job", ["in_one_process", "by_step"])
def test_a_run_that_is_killed_is_known_to_have_failed_at_once(launched, job):
    run = launched.launch(job, seconds=600.0)
    step = launched.told(run)["pid"]
    pools = launched.instance.event_log_storage
    pools.set_concurrency_slots(job, 1)
    assert pools.claim_concurrency_slot(job, run.run_id, "work").is_claimed
    os.kill(process_of(launched.instance, run), signal.SIGKILL)
    assert launched.end_of(run) == "FAILURE"
    wait(lambda: not pools.get_concurrency_info(job).active_slot_count)
    assert "was terminated by signal 9 (SIGKILL)" in launched.log(run)
    assert launched.launcher.terminate(run.run_id) is False
    with contextlib.suppress(ProcessLookupError):
        os.kill(step, signal.SIGKILL)


@pytest.mark.parametrize("job", ["in_one_process", "by_step"])
def test_a_run_that_is_cancelled_ends_its_steps(launched, job):
    run = launched.launch(job, seconds=600.0)
    step = launched.told(run)["pid"]
    assert launched.launcher.terminate(run.run_id) is True
    assert launched.end_of(run) == "CANCELED"
    wait(lambda: not psutil.pid_exists(step))
    assert launched.launcher.terminate(run.run_id) is False


def test_a_run_that_is_cancelled_before_it_has_begun_ends(launched):
    run = launched.launch(seconds=600.0)
    assert launched.launcher.terminate(run.run_id) is True
    assert launched.end_of(run) in ("CANCELED", "FAILURE")  # as Dagster tells of a run that is interrupted so soon


def test_definitions_that_cannot_be_imported_are_told_in_the_run_s_log(launched):
    run = launched.create("by_step")
    launched.file.write_text("import a_module_that_is_not_there\n")
    try:
        launched.start(run)
        assert launched.end_of(run) == "FAILURE"
    finally:
        launched.file.write_text(JOBS)
    said = [entry.dagster_event.event_specific_data for entry in launched.instance.all_logs(run.run_id)]
    assert "a_module_that_is_not_there" in "".join(str(data.error) for data in said if getattr(data, "error", None))


def test_a_host_that_is_killed_is_started_again_and_its_runs_go_on(launched):
    going = launched.launch(seconds=600.0)
    step = launched.told(going)["pid"]
    host = launched.host()
    host.kill()
    host.wait(PATIENCE_S)
    run = launched.launch()
    assert launched.end_of(run) == "SUCCESS"
    assert launched.host().pid != host.pid
    # nobody is told of the end of a run whose host is gone: it is found by its process
    check = launched.launcher.check_run_worker_health
    assert launched.status(going) == "STARTED"
    assert check(going).status == WorkerStatus.RUNNING
    assert end_orphans(launched.instance, ui_is_up=False) == []
    os.kill(step, signal.SIGKILL)
    wait(lambda: process_of(launched.instance, going) == 0)
    assert check(going).status == WorkerStatus.FAILED
    assert [stuck.run_id for stuck in end_stuck(launched.instance, time.time() + 2 * GRACE_S)] == [going.run_id]
    assert launched.status(going) == "FAILURE"


def test_an_orphan_is_found_by_its_process(launched):
    going = launched.launch(seconds=600.0)
    step = launched.told(going)["pid"]
    launched.host().kill()
    wait(lambda: launched.status(going) == "STARTED")
    os.kill(step, signal.SIGKILL)
    wait(lambda: process_of(launched.instance, going) == 0)
    assert end_orphans(launched.instance, ui_is_up=True) == []
    assert end_orphans(launched.instance, ui_is_up=False) == [going.run_id]


def test_a_run_without_a_process_is_cancelled_at_once(launched):
    going = launched.launch(seconds=600.0)
    step = launched.told(going)["pid"]
    launched.host().kill()
    os.kill(step, signal.SIGKILL)
    wait(lambda: process_of(launched.instance, going) == 0)
    assert launched.launcher.terminate(going.run_id) is True
    assert launched.status(going) == "CANCELED"


def test_a_run_of_another_machine_is_not_looked_for_here(launched):
    run = launched.launch(seconds=600.0)
    step = launched.told(run)["pid"]
    launched.instance.add_run_tags(run.run_id, {LAUNCHED_ON: "another.example"})
    found = launched.instance.get_run_by_id(run.run_id)
    assert process_of(launched.instance, found) is None
    assert launched.launcher.check_run_worker_health(found).status == WorkerStatus.RUNNING
    os.kill(step, signal.SIGKILL)
    assert launched.end_of(run) == "FAILURE"


def test_runs_go_on_when_the_launcher_ends(tmp_path):
    file = tmp_path / "jobs_of_this_test.py"
    file.write_text(JOBS)
    with instance_for_test(overrides={"run_launcher": LAUNCHER}) as instance:
        launched = Launched(instance, file)
        run = launched.launch(seconds=2.0)
        launched.told(run)
        host = launched.host()
        launched.launcher.dispose()
        host.wait(PATIENCE_S)
        assert launched.end_of(run) == "SUCCESS"


def test_a_process_that_cannot_be_forked_is_a_run_that_failed(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import errno, os\n"
        "def fork(): raise BlockingIOError(errno.EAGAIN, 'Resource temporarily unavailable')\n"
        "if os.environ.get('NO_FORK'): os.fork = fork\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("NO_FORK", "1")
    file = tmp_path / "jobs_of_this_test.py"
    file.write_text(JOBS)
    with instance_for_test(overrides={"run_launcher": LAUNCHER}) as instance:
        launched = Launched(instance, file)
        run = launched.launch()
        assert launched.end_of(run) == "FAILURE"
        assert f"unexpectedly exited with code {os.EX_OSERR}" in launched.log(run)
        launched.launcher.dispose()
