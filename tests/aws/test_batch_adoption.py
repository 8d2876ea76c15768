"""A run that is killed leaves a job: the next run adopts it, or ends it, and nobody takes what another one follows."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import batch_graph
import dagster as dg
import pytest
from batch_graph import BucketIOManager
from batch_stand_in import BUCKET, DEFINITION, PREFIX, QUEUE, REPOSITORY

from bigger_boat.errors import CloudError
from bigger_boat.resources.batch_adoption import Trace, Traces, claim, is_left
from bigger_boat.resources.batch_job import StepNeeds
from bigger_boat.resources.batch_launcher import BatchCompute, BatchStepLauncher
from bigger_boat.resources.batch_messages import LaunchFolder

NEEDS = StepNeeds(vcpus=1, memory_mib=512, retries=0)
COMPUTE = {"queue": QUEUE, "job_definition": DEFINITION, "module": "batch_graph", "poll_s": 0.1, "needs": NEEDS}


class Killed(BaseException):
    """The launching process is gone: it ends no job and tells nobody."""


@pytest.fixture
def compute(tmp_path) -> BatchCompute:
    return BatchCompute(**COMPUTE, prefix=f"{PREFIX}/{tmp_path.name}")


def materialize(compute: BatchCompute, instance: dg.DagsterInstance, letters: str = "abc"):
    resources = {"gpu_compute": compute, "io_manager": BucketIOManager()}
    config = {"ops": {"counted": {"config": {"letters": letters}}}}
    assets = [batch_graph.source, batch_graph.counted]
    return dg.materialize(assets, instance=instance, resources=resources, run_config=config, raise_on_error=False)


def killed(compute: BatchCompute, instance: dg.DagsterInstance) -> None:
    """Submit the job, and be gone; Dagster then knows that the run ended."""

    def die(*_):
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BatchStepLauncher, "_run", die)
        assert not materialize(compute, instance).success
    assert [run.is_finished for run in instance.get_runs()] == [True]


def log(instance: dg.DagsterInstance, run_id: str) -> str:
    return "\n".join(entry.user_message for entry in instance.all_logs(run_id))


def test_the_next_run_adopts_the_job_and_hears_all_of_it(aws, compute, monkeypatch):
    instance, before = dg.DagsterInstance.ephemeral(), len(aws.jobs)
    monkeypatch.setattr(aws, "hold", True)
    killed(compute, instance)
    leave = Traces.leave

    def let_go(self, trace: Trace) -> None:
        leave(self, trace)
        aws.hold = False  # the job begins when it has been adopted

    monkeypatch.setattr(Traces, "leave", let_go)
    result = materialize(compute, instance)
    [job] = aws.jobs[before:]
    assert result.success
    assert f"Adopted AWS Batch job {job.job_id}" in log(instance, result.run_id)
    [made] = result.asset_materializations_for_node("counted")
    assert made.metadata["greeting"].value == "ahoy"
    assert instance.get_latest_materialization_event(dg.AssetKey("counted")).run_id == result.run_id
    checks = [each.check_name for each in result.get_asset_check_evaluations()]
    assert checks == ["before", "after"]
    assert log(instance, result.run_id).count("counting abc 1 times") == 1
    assert materialize(compute, instance).success  # what is over is not taken for the next one's
    assert len(aws.jobs[before:]) == 2


LAUNCH = """
import sys
import batch_graph, dagster as dg
from bigger_boat.resources.batch_launcher import BatchCompute
compute = BatchCompute(**batch_graph.json.loads(sys.argv[2]))
resources = {"gpu_compute": compute, "io_manager": batch_graph.BucketIOManager()}
config = {"ops": {"counted": {"config": {"letters": "abc"}}}}
instance = dg.DagsterInstance.local_temp(sys.argv[1])
dg.materialize([batch_graph.source, batch_graph.counted], instance=instance, resources=resources, run_config=config)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_in_earnest_leaves_a_job_that_is_adopted(aws, compute, monkeypatch, tmp_path):
    before, here = len(aws.jobs), Path(__file__).parent
    monkeypatch.setattr(aws, "hold", True)
    given = json.dumps({**COMPUTE, "needs": NEEDS.model_dump(), "prefix": compute.prefix})
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{here}"}
    command = [sys.executable, "-c", LAUNCH, str(tmp_path), given]
    launcher = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while launcher.poll() is None and not aws.objects(f"steps/{tmp_path.name}/following/"):
        time.sleep(0.1)
    launcher.kill()
    assert launcher.wait() == -signal.SIGKILL
    instance = dg.DagsterInstance.local_temp(str(tmp_path))
    [run] = instance.get_runs()
    assert not run.is_finished
    instance.report_run_failed(run)  # as the next command does with runs whose process is gone
    leave = Traces.leave
    monkeypatch.setattr(Traces, "leave", lambda self, trace: (leave(self, trace), setattr(aws, "hold", False)))
    result = materialize(compute, instance)
    assert (result.success, len(aws.jobs[before:])) == (True, 1)
    assert f"of run {run.run_id}, which is gone" in log(instance, result.run_id)


def test_a_job_that_ended_while_nobody_looked_is_heard(aws, compute):
    instance, before = dg.DagsterInstance.ephemeral(), len(aws.jobs)
    killed(compute, instance)
    [job] = aws.jobs[before:]
    job.join(120)
    assert job.status == "SUCCEEDED"
    result = materialize(compute, instance)
    assert (result.success, len(aws.jobs[before:])) == (True, 1)


def test_a_job_of_another_configuration_is_ended(aws, compute, monkeypatch):
    instance, before = dg.DagsterInstance.ephemeral(), len(aws.jobs)
    monkeypatch.setattr(aws, "hold", True)
    killed(compute, instance)
    monkeypatch.setattr(aws, "hold", False)
    result = materialize(compute, instance, letters="xyz")
    old, new = aws.jobs[before:]
    assert (result.success, aws.objects("values/")["values/counted.json"]) == (True, b'"boatxyz"')
    assert "is gone, and run" in (old.job_stopped_reason or "")
    assert f"Ended AWS Batch job {old.job_id}" in log(instance, result.run_id)
    assert new.status == "SUCCEEDED"


def test_a_job_that_leaves_no_trace_is_ended(aws, compute, monkeypatch):
    instance, before = dg.DagsterInstance.ephemeral(), len(aws.jobs)

    def refused(*_):
        raise CloudError("The trace cannot be written.")

    monkeypatch.setattr(aws, "hold", True)
    monkeypatch.setattr(Traces, "leave", refused)
    result = materialize(compute, instance)
    [job] = aws.jobs[before:]
    assert (result.success, "CloudError in run" in job.job_stopped_reason) == (False, True)
    assert "The trace cannot be written." in result.get_step_failure_events()[0].step_failure_data.error.to_string()


def test_only_what_nobody_follows_is_left():
    job = dg.define_asset_job("j").resolve(asset_graph=dg.Definitions([batch_graph.source]).resolve_asset_graph())
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(job)
        context = SimpleNamespace(instance=instance, run_id="mine")

        def left(run_id: str, over: bool = False) -> bool:
            return is_left(context, Trace(run_id, "1", "n", "s3://b/f", "d", over))

        assert (left(run.run_id), left("of another instance"), left("mine"), left("mine", over=True)) == (
            False,
            False,
            True,
            False,
        )
        instance.report_run_failed(run)
        assert (left(run.run_id), left(run.run_id, over=True)) == (True, False)


def test_one_run_alone_takes_a_launch_over(aws, tmp_path):
    folder = LaunchFolder.at(aws.client("s3"), f"s3://{BUCKET}/{tmp_path.name}/launch")
    assert [claim(folder, "gone", run_id) for run_id in ("a", "b")] == [True, False]


def test_the_newest_launch_of_each_partition_leaves_the_trace(aws, tmp_path):
    days = [
        Traces.of(aws.client("s3"), f"s3://{BUCKET}/{tmp_path.name}", "daily", {"dagster/partition": day})
        for day in ("2026-10-01", "2026-10-02")
    ]
    first, second = (Trace(run_id, "1", "n", "s3://b/f", "d") for run_id in "ab")
    days[0].leave(first)
    days[0].leave(second)
    assert (days[0].read(), days[1].read()) == (second, None)
    days[0].close(first)  # which is not the newest
    assert days[0].read() == second
    days[0].close(second)
    assert days[0].read().over
