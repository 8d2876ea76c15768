"""The step launcher end to end: the job is another process in another folder, and S3 is all that it shares."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import batch_graph
import dagster as dg
import pytest
from batch_graph import BucketIOManager
from batch_stand_in import DEFINITION, PREFIX, QUEUE
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.test_utils import instance_for_test

from bigger_boat.resources import batch_worker
from bigger_boat.resources.batch_job import StepNeeds
from bigger_boat.resources.batch_launcher import BatchCompute, HereCompute
from bigger_boat.resources.batch_output import PIECE_BYTES

PLANTED = "planted-4711-secret"
LONG = pytest.mark.slow
GIVEN = {
    "queue": QUEUE,
    "job_definition": DEFINITION,
    "prefix": PREFIX,
    "module": "batch_graph",
    "poll_s": 0.3,
}


def compute(**changes) -> BatchCompute:
    needs = StepNeeds(vcpus=1, memory_mib=512, retries=changes.pop("retries", 0))
    return BatchCompute(**{**GIVEN, "needs": needs, **changes})


def materialize(*names: str, gpu_compute: object, instance: dg.DagsterInstance | None = None, **more):
    resources = {"gpu_compute": gpu_compute, "io_manager": BucketIOManager()}
    instance = instance or dg.DagsterInstance.ephemeral()
    assets = [getattr(batch_graph, name) for name in names]
    return dg.materialize(assets, instance=instance, resources=resources, raise_on_error=False, **more), instance


def entries(instance: dg.DagsterInstance, run_id: str) -> list[dg.EventLogEntry]:
    return instance.all_logs(run_id)


def said(instance: dg.DagsterInstance, run_id: str) -> str:
    """Everything that the run's log says, errors with their causes and stacks."""
    texts = []
    for entry in entries(instance, run_id):
        data = entry.dagster_event.event_specific_data if entry.dagster_event else None
        error = getattr(data, "error", None)
        texts += [entry.user_message, error.to_string() if error else ""]
    return "\n".join(texts)


COUNTED = {"ops": {"counted": {"config": {"letters": "xy", "times": 2}}}}


@pytest.fixture(scope="module")
def remote(aws):
    """``source`` here, then ``counted`` as a job that is a Python of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aws, "fresh", True)
        return materialize("source", "counted", gpu_compute=compute(), run_config=COUNTED, tags={"team": "ml"})


@pytest.fixture(scope="module")
def local(aws):
    """The same, both here."""
    return materialize("source", "counted", gpu_compute=HereCompute(), run_config=COUNTED, tags={"team": "ml"})


def told(run) -> list[tuple]:
    """What a run tells of ``counted``, but for what differs by process: pids, folders, and what the launcher logs."""
    result, instance = run
    found = []
    for entry in entries(instance, result.run_id):
        event = entry.dagster_event
        if event is None and "Batch job" not in entry.user_message:
            found.append(("log", entry.level, entry.user_message, entry.step_key))
        if event is not None and event.step_key == "counted" and "RESOURCE" not in event.event_type_value:
            found.append((event.event_type_value, event.job_name))
    return found


def test_the_events_of_a_job_are_those_of_the_same_step_here(remote, local):
    assert remote[0].success, said(remote[1], remote[0].run_id)
    assert told(remote) == told(local)
    assert ("log", 20, "counting xy 2 times", "counted") in told(remote)
    assert remote[0].output_for_node("source") == "boat"


def materialization(run) -> dg.AssetMaterialization:
    event = run[1].get_latest_materialization_event(dg.AssetKey("counted"))
    return event.dagster_event.step_materialization_data.materialization


def test_metadata_versions_and_provenance_come_home(aws, remote, local):
    there, here = materialization(remote), materialization(local)
    differ = {"pid", "folder", "greeting"}
    assert there.tags == {**here.tags, **{name: there.tags[name] for name in there.tags if "pointer" in name}}
    assert {k: v for k, v in there.metadata.items() if k not in differ} == {
        k: v for k, v in here.metadata.items() if k not in differ
    }
    assert there.metadata["tags"].data == {"team": "ml"}
    assert there.tags["dagster/data_version"] == "counted-9"
    assert there.tags["dagster/input_data_version/source"] == "boat-1"
    source = remote[1].get_latest_materialization_event(dg.AssetKey("source"))
    [record] = remote[1].fetch_materializations(dg.AssetKey("source"), limit=1).records
    assert there.tags["dagster/input_event_pointer/source"] == str(record.storage_id)
    assert source.run_id == remote[0].run_id
    assert json.loads(aws.objects("values/")["values/counted.json"]) == "boatxyxy"


def test_the_job_is_another_process_in_another_folder_with_its_own_environment(aws, remote):
    metadata = materialization(remote).metadata
    assert metadata["pid"].value != os.getpid()
    assert Path(metadata["folder"].value) != Path.cwd()
    assert metadata["greeting"].value == "ahoy"
    request = next(each for each in aws.submitted if each["jobName"].startswith("counted"))
    container = request["containerOverrides"]
    assert container["resourceRequirements"] == [
        {"type": "VCPU", "value": "1"},
        {"type": "MEMORY", "value": "1024"},
    ]
    assert container["environment"] == [{"name": "GREETING", "value": "ahoy"}]


def test_checks_point_at_the_materialization_of_this_instance(remote, local):
    for result, instance in (remote, local):
        keys = [dg.AssetCheckKey(dg.AssetKey("counted"), name) for name in ("before", "after")]
        before, after = (
            instance.event_log_storage.get_asset_check_execution_history(key, limit=1)[0].event.dagster_event
            for key in keys
        )
        [record] = instance.fetch_materializations(dg.AssetKey("counted"), limit=1).records
        assert before.asset_check_evaluation_data.target_materialization_data is None
        target = after.asset_check_evaluation_data.target_materialization_data
        assert (target.storage_id, target.run_id) == (record.storage_id, result.run_id)
        assert (before.asset_check_evaluation_data.passed, after.asset_check_evaluation_data.passed) == (True, False)


def test_what_crosses_is_json_and_holds_no_secret_of_the_environment(aws, remote):
    objects = aws.objects(f"steps/{remote[0].run_id}/counted/")
    names = sorted(key.split("/", 4)[4] for key in objects)
    assert (names[0], names[-1]) == ("alive.json", "step.json")
    assert all(name.startswith("events/01/") for name in names[1:-1])
    for key, body in objects.items():
        json.loads(body)
        assert PLANTED.encode() not in body, key
        assert os.getcwd().encode() not in body, key
    assert PLANTED not in json.dumps(aws.submitted)
    assert PLANTED not in said(remote[1], remote[0].run_id)


def printed(instance: dg.DagsterInstance, run_id: str) -> tuple[str, str]:
    """What the step's compute logs hold, as the web UI shows them."""
    [captured] = [
        entry.dagster_event.logs_captured_data
        for entry in entries(instance, run_id)
        if entry.dagster_event and entry.dagster_event.event_type == dg.DagsterEventType.LOGS_CAPTURED
    ]
    manager = instance.compute_log_manager
    folder = Path(manager.get_captured_local_path(manager.build_log_key_for_run(run_id, captured.file_key), "out"))
    return folder.read_text(), folder.with_suffix(".err").read_text()


def test_what_a_job_prints_is_in_the_compute_logs_of_the_run(aws):
    with instance_for_test() as instance:
        result, _ = materialize("talkative", gpu_compute=compute(), instance=instance)
        assert result.success, said(instance, result.run_id)
        stdout, stderr = printed(instance, result.run_id)
    lines = stdout.splitlines()
    assert [line for line in lines if line.startswith("Zeile")] == batch_graph.LINES
    assert "of another process" in lines
    assert "Übergröße" in stderr.splitlines()
    assert "past Python: ☸" in stderr.splitlines()
    assert "Zeile" not in stderr
    batches = [json.loads(body) for key, body in aws.objects(f"steps/{result.run_id}/").items() if "/events/" in key]
    pieces = [len(batch["stdout"].encode()) for batch in batches if "stdout" in batch]
    assert len(pieces) > 1
    assert max(pieces) <= PIECE_BYTES
    assert sum(pieces) == len(stdout.encode())
    [output] = [text for key, text in aws.output.items() if key.split("/")[0] == aws.jobs[-1].job_id]
    assert batch_graph.LINES[-1] in output, "it stands in the job's own log, too"


def launches(aws, run_id: str, step: str) -> list[str]:
    return sorted({key.split("/")[3] for key in aws.objects(f"steps/{run_id}/{step}/")})


def test_the_steps_own_errors_come_home_with_the_stack_of_the_job(aws):
    result, _ = materialize("failing", gpu_compute=compute(retries=3))
    events = [event for event in result.all_events if event.step_key == "failing"]
    kinds = [event.event_type_value for event in events if event.event_type_value.startswith("STEP_")]
    assert kinds == ["STEP_START", "STEP_UP_FOR_RETRY", "STEP_RESTARTED", "STEP_FAILURE"]
    data = {event.event_type_value: event.event_specific_data for event in events}
    again, failure = data["STEP_UP_FOR_RETRY"], data["STEP_FAILURE"]
    assert again.error.cause.message == "ValueError: hole number 1 in the hull\n"
    assert failure.error.cause.message == "ValueError: hole number 2 in the hull\n"
    assert any("fail_deeply" in line and "batch_graph.py" in line for line in failure.error.cause.stack)
    assert [name[0] for name in launches(aws, result.run_id, "failing")] == ["0", "1"], "one for each try"


@LONG
def test_a_refusal_is_a_failure_with_its_metadata_and_its_job_succeeded(aws):
    before = len(aws.jobs)
    result, _ = materialize("refusing", gpu_compute=compute(retries=3))
    [failure] = [event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure]
    assert failure.description == "not better than what serves"
    assert failure.metadata["refused"].value is True
    [job] = aws.jobs[before:]
    wait_until(lambda: job.status == "SUCCEEDED")


def wait_until(is_so, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


def test_ending_the_run_ends_the_job(aws):
    instance, before = dg.DagsterInstance.ephemeral(), len(aws.jobs)

    def is_rowing() -> bool:
        return any(
            entry.user_message == "rowing" for run in instance.get_runs() for entry in entries(instance, run.run_id)
        )

    def interrupt_when_rowing() -> None:
        wait_until(is_rowing)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt_when_rowing)
    thread.start()
    result, _ = materialize("slow", gpu_compute=compute(), instance=instance)
    thread.join()
    [job] = aws.jobs[before:]
    wait_until(lambda: job.status == "FAILED")
    assert not result.success
    [failure] = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert failure.error_source.value == "INTERRUPT"
    assert job.job_stopped_reason == f"Bigger Boat: DagsterExecutionInterruptedError in run {result.run_id}"
    assert f"Ended AWS Batch job {job.job_id}." in said(instance, result.run_id)


DOOMED_ONCE = {"ops": {"doomed": {"config": {"times": 1}}}}


@LONG
def test_a_machine_that_is_taken_away_costs_an_attempt_and_its_events_stay_apart(aws):
    aws.deaths = [{"statusReason": "Host EC2 (instance i-0abc) terminated."}]
    with instance_for_test() as instance:
        _taken_away(aws, instance)


def _taken_away(aws, instance: dg.DagsterInstance) -> None:
    result, _ = materialize("doomed", gpu_compute=compute(retries=1), run_config=DOOMED_ONCE, instance=instance)
    assert result.success, said(instance, result.run_id)
    stdout, _ = printed(instance, result.run_id)
    first, begins, second = [line for line in stdout.splitlines() if "ttempt" in line]
    assert (first, second) == ("attempt 1 rows", "attempt 2 rows")
    assert begins.startswith("[Attempt 2 of AWS Batch job ")
    events = [event for event in result.all_events if event.step_key == "doomed"]
    seen = [e.asset_observation_data.asset_observation.metadata for e in events if e.is_asset_observation]
    assert [metadata["attempt"].value for metadata in seen] == [1, 2]
    [made] = [event for event in events if event.is_step_materialization]
    assert made.materialization.metadata["attempt"].value == 2
    assert sum(event.is_step_success for event in events) == 1
    [launch] = launches(aws, result.run_id, "doomed")
    folders = {key.split("/")[5] for key in aws.objects(f"steps/{result.run_id}/doomed/{launch}/events/")}
    assert folders == {"01", "02"}
    assert "Attempt 1 was lost (Host EC2 (instance i-0abc) terminated.); AWS Batch starts the step again." in said(
        instance, result.run_id
    )


@LONG
def test_a_job_that_is_killed_starts_again_and_then_fails_with_what_to_do(aws):
    result, instance = materialize("doomed", gpu_compute=compute(retries=1))
    assert not result.success
    text = said(instance, result.run_id)
    assert "was killed (exit code 137). AWS Batch says: Essential container in task exited" in text
    assert "What to do: If that happens again, watch its memory" in text
    assert "Exceeded max_retries of 1" in text
    assert [name[0] for name in launches(aws, result.run_id, "doomed")] == ["0", "1"]


def test_a_job_out_of_memory_says_so_and_does_not_try_again(aws):
    aws.deaths = [{"exitCode": 137, "reason": "OutOfMemoryError: Container killed due to memory usage"}]
    result, instance = materialize("doomed", gpu_compute=compute(retries=1))
    assert not result.success
    text = said(instance, result.run_id)
    assert "ran out of memory (512 MiB)" in text
    assert "batch/memory_mib" in text
    assert len(launches(aws, result.run_id, "doomed")) == 1


@LONG
def test_a_job_whose_every_machine_is_taken_away_fails_with_what_to_do(aws):
    aws.deaths = [{"exitCode": 1, "statusReason": "Host EC2 (instance i-0abc) terminated."}] * 2
    result, instance = materialize("failing", gpu_compute=compute(retries=1))
    assert (result.success, aws.deaths, len(aws.jobs[-1].attempts)) == (False, [], 2)
    text = said(instance, result.run_id)
    assert "lost its machine in each of its attempts. AWS Batch says: Host EC2 (instance i-0abc) terminated." in text
    assert "What to do: Run it again, or use a queue without spot machines." in text
    assert len(launches(aws, result.run_id, "failing")) == 1


@LONG
def test_a_job_that_takes_too_long_is_ended_once_and_says_which_tag(aws, monkeypatch):
    monkeypatch.setattr(aws, "second_s", 0.05)
    result, instance = materialize("slow", gpu_compute=compute(retries=1), tags={"batch/timeout_s": "60"})
    assert not result.success
    text = said(instance, result.run_id)
    assert "was ended after its 60 s. AWS Batch says: Job attempt duration exceeded timeout" in text
    assert "What to do: Give it longer by the tag batch/timeout_s" in text
    assert (aws.jobs[-1].status, len(aws.jobs[-1].attempts)) == ("FAILED", 1)
    assert len(launches(aws, result.run_id, "slow")) == 1


@LONG
def test_a_job_that_cannot_load_the_definitions_shows_why(aws):
    result, instance = materialize("failing", gpu_compute=compute(module="not_in_the_image", retries=1))
    assert not result.success
    text = said(instance, result.run_id)
    assert "could not run its step" in text
    assert "No module named 'not_in_the_image'" in text
    assert len(launches(aws, result.run_id, "failing")) == 1


@LONG
def test_a_job_of_the_definitions_in_processes_of_its_own_by_partition(aws, monkeypatch):
    """As ``dagster job execute`` and the web UI's runs do: by name, the step's launcher in a child process."""
    monkeypatch.setenv("BATCH_GRAPH_COMPUTE", json.dumps(GIVEN))
    repository = ReconstructableRepository.for_module("batch_graph", "defs", str(Path(__file__).parent))
    job = repository.get_reconstructable_job("daily_job")
    day, key = "2026-10-03", dg.AssetKey("daily")
    with instance_for_test() as instance:
        result = dg.execute_job(job, instance, tags={"dagster/partition": day})
        assert result.success, said(instance, result.run_id)
        [record] = instance.fetch_materializations(key, limit=1).records
        assert record.partition_key == day
        assert record.asset_materialization.metadata["window"].value.startswith(day)
        [check] = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(key, "is_day"), limit=1)
        evaluation = check.event.dagster_event.asset_check_evaluation_data
        assert evaluation.passed
        assert evaluation.target_materialization_data.storage_id == record.storage_id
    assert json.loads(aws.objects("values/")[f"values/daily/{day}.json"]) == day


FOLLOW_SLOW = """
import batch_graph, dagster
resources = {"gpu_compute": batch_graph.COMPUTE, "io_manager": batch_graph.BucketIOManager()}
dagster.materialize([batch_graph.slow], resources=resources)
"""


@LONG
def test_a_job_whose_launcher_was_killed_ends_itself(aws):
    before, known, here = len(aws.jobs), set(aws.objects("steps/")), Path(__file__).parent
    environment = {
        **os.environ,
        "BATCH_GRAPH_COMPUTE": json.dumps({**GIVEN, "orphan_after_s": 4.0}),
        "PYTHONPATH": f"{here.parents[1]}{os.pathsep}{here}",
    }
    launcher = subprocess.Popen([sys.executable, "-c", FOLLOW_SLOW], env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: any(b'"rowing"' in body for key, body in aws.objects("steps/").items() if key not in known))
    finally:
        launcher.kill()
        launcher.wait()
    [job] = aws.jobs[before:]
    assert job.status == "RUNNING"
    wait_until(lambda: job.status == "FAILED")
    assert job.last["exitCode"] == batch_worker.ORPHANED
    [error] = [body for key, body in aws.objects("steps/").items() if key not in known and "/errors/" in key]
    assert json.loads(error) == {"error": "Nobody has followed this launch for 4 s, so the job ended itself."}


def refusal(aws, name: str = "failing", **changes) -> str:
    """What a run says whose job never starts a process."""
    before = len(aws.jobs)
    result, instance = materialize(name, gpu_compute=compute(**changes))
    assert not result.success
    assert not {key.split("/")[0] for key in aws.output} & {job.job_id for job in aws.jobs[before:]}
    return said(instance, result.run_id)


def test_a_job_that_finds_no_machine_is_ended(aws, monkeypatch):
    monkeypatch.setattr(aws, "hold", True)
    text = refusal(aws, longest_wait_s=0.2)
    assert re.search(r"(SUBMITTED|RUNNABLE) for \d+ s: no machine of gpu took it\.", text)
    assert "Check that its compute environment is enabled, has quota, and machines with 1 vCPU, 512 MiB, 0 GPU." in text
    assert aws.jobs[-1].job_stopped_reason.startswith("Bigger Boat: CloudError in run ")


def test_an_image_that_is_not_there_is_named_and_not_tried_again(aws, monkeypatch):
    image = "nobody/nothing:1"
    monkeypatch.setattr(aws, "missing_images", {image})
    container = {"image": image, "vcpus": 1, "memory": 512, "command": ["true"]}
    aws.client("batch").register_job_definition(
        jobDefinitionName="no-image", type="container", containerProperties=container
    )
    text = refusal(aws, job_definition="no-image", retries=1)
    assert "could not pull its image. AWS Batch says: Task failed to start; CannotPullContainerError: " in text
    assert f"{image}: not found" in text
    assert "What to do: Check that the job definition's image exists and that the job's role may pull it." in text
    assert (aws.jobs[-1].status, len(aws.jobs[-1].attempts)) == ("FAILED", 1)


def test_what_aws_refuses_is_a_sentence_with_what_to_do(aws):
    text = refusal(aws, queue="nowhere")
    assert "cannot be submitted to the queue nowhere with the job definition training: AWS answered ClientEx" in text
    assert "Check BIGGER_BOAT_BATCH_*" in text
    text = refusal(aws, prefix="s3://no-such-bucket/x")
    assert "AWS answered NoSuchBucket" in text
    assert "Correct the bucket in BIGGER_BOAT_STORAGE and BIGGER_BOAT_BATCH_PREFIX" in text
    assert "Expected an address like s3://bucket/path, and got 'steps/" in refusal(aws, prefix="steps")


def test_a_secret_is_no_plain_variable_of_a_job(aws):
    needs = StepNeeds(environment={"WANDB_API_KEY": "4711", "SIZE": "quick"})
    submitted = len(aws.submitted)
    text = refusal(aws, needs=needs)
    assert "A secret is no plain environment variable of a job: WANDB_API_KEY." in text
    assert "4711" not in text
    assert len(aws.submitted) == submitted


def test_a_run_may_keep_steps_here_by_a_tag(aws):
    submitted = len(aws.submitted)
    for steps in ("failing", "counted,failing", "all"):
        result, instance = materialize("failing", gpu_compute=compute(), tags={"batch/here": steps})
        assert "hole number 2 in the hull" in said(instance, result.run_id)
    assert len(aws.submitted) == submitted


def test_a_runs_tags_go_before_an_assets_and_those_before_the_queues_values(aws, monkeypatch):
    monkeypatch.setattr(aws, "hold", True)
    given = compute(needs=StepNeeds(vcpus=3, memory_mib=512, environment={"SIZE": "quick"}), longest_wait_s=0.2)
    tags = {"batch/timeout_s": "120", "batch/gpus": "1", "batch/here": "another_step"}
    materialize("source", "counted", gpu_compute=given, tags=tags)
    request = aws.submitted[-1]
    assert request["jobName"].startswith("counted-")
    assert request["timeout"] == {"attemptDurationSeconds": 120}
    container = request["containerOverrides"]
    assert [each["value"] for each in container["environment"]] == ["quick", "ahoy"]
    assert [each["value"] for each in container["resourceRequirements"]] == ["3", "1024", "1"]


def test_config_of_a_run_that_names_a_part_of_it_only_is_refused(aws):
    """It would put the rest back to its defaults, of which there are none for what counts."""
    with pytest.raises(dg.DagsterInvalidConfigError, match="job_definition"):
        materialize(
            "failing", gpu_compute=compute(), run_config={"resources": {"gpu_compute": {"config": {"queue": "q"}}}}
        )
