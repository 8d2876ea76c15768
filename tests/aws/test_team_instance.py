"""A team's instance, deploy/dagster.yaml: a real PostgreSQL, and runs that ECS starts, each a process that shares no
more with the daemon than that database, S3 and Secrets Manager. One scene: two runs at the same time.
"""

import json
import time
from pathlib import Path

import dagster as dg
import pytest
import yaml
from batch_stand_in import BUCKET, REPOSITORY
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from dagster._core.storage.compute_log_manager import ComputeIOType
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import deserialize_value
from dagster_graphql.client.query import LAUNCH_PIPELINE_EXECUTION_MUTATION
from dagster_graphql.test.utils import execute_dagster_graphql
from ecs_stand_in import ecs
from iam_policies import ACCOUNT, REGION, Template
from postgres import DATABASE, USER, postgres
from recorded_calls import missing, recording
from sqlalchemy.exc import InternalError
from team_graph import LINE

from bigger_boat.automation.runner import failures_of
from bigger_boat.errors import CloudError, SettingsError
from bigger_boat.resources.aws import aws_client
from bigger_boat.resources.platform import IMAGE_TAG
from bigger_boat.resources.secrets import secret_text
from bigger_boat.resources.stacks import Stack
from bigger_boat.resources.team import SETTINGS_KEY, _told, settings_file, update_team
from bigger_boat.resources.team_history import TeamEventLog
from bigger_boat.resources.teardown import Teardown
from bigger_boat.settings import AWS_SETTINGS, BATCH_SETTINGS, Settings, load_settings

PLANTED = "planted-4711-secret"  # conftest plants it as the key of this process, too
PASSWORD = f"{PLANTED}-of-the-database"
CLUSTER, TEAM = "shared", "shared-team"
"""Names of its own: other modules' stacks are in the same stand-in."""
WHICH = ("port", "starboard")
DIFFERENT = {"storage", "local_artifact_storage", "compute_logs", "run_launcher", "run_queue", "run_monitoring"}


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def test_what_holds_for_one_person_holds_for_a_team():
    alone, together = read(REPOSITORY / "dagster.yaml"), read(REPOSITORY / "deploy" / "dagster.yaml")
    assert set(alone) - set(together) == {"run_queue"}  # looked into every second; a task of ECS takes longer to start
    assert set(together) <= set(alone)
    assert {name: alone[name] for name in set(alone) - DIFFERENT} == {
        name: together[name] for name in set(alone) - DIFFERENT
    }
    waits = {"start_timeout_seconds", "cancel_timeout_seconds"}  # a task of ECS starts and ends in minutes ...
    looks = {"poll_interval_seconds", "free_slots_after_run_end_seconds"}  # ... and each look is a call of AWS's API
    one, other = alone["run_monitoring"], together["run_monitoring"]
    assert set(one) == set(other)
    assert {name for name in one if one[name] != other[name]} == waits | looks


def settings(**more) -> Settings:
    given = {"profile": "aws", "start_date": "2026-10-01", "snowflake_key_secret": "arn:x", "api_key": PLANTED}
    needed = dict.fromkeys([*AWS_SETTINGS, *BATCH_SETTINGS], "x")
    return Settings(_env_file=None, **{**needed, **given, "storage": "s3://boat/data", "remote_steps": True, **more})


def test_the_tasks_are_told_what_is_set_here_but_no_secret(tmp_path):
    lines = list(settings_file(settings()))
    assert "BIGGER_BOAT_REMOTE_STEPS=true" in lines
    assert "BIGGER_BOAT_START_DATE=2026-10-01" in lines
    assert PLANTED not in "".join(lines)
    assert not [line for line in lines if "DATA_DIR" in line]  # that of this machine
    (tmp_path / ".env").write_text("\n".join(lines))
    assert load_settings(tmp_path / ".env").snowflake_key_secret == "arn:x"
    with pytest.raises(SettingsError, match="START_DATE"):
        list(settings_file(settings(start_date=None)))


def test_a_secret_that_cannot_be_read_or_is_empty_is_told(aws):
    with pytest.raises(CloudError, match="The secret nowhere cannot be read: AWS answered ResourceNotFound"):
        secret_text("nowhere")
    empty = aws.client("secretsmanager").create_secret(Name="empty")["ARN"]
    aws.client("secretsmanager").put_secret_value(SecretId=empty, SecretBinary=b"x")
    with pytest.raises(CloudError, match="holds no text") as caught:
        secret_text(empty)
    assert f"put-secret-value --secret-id {empty}" in caught.value.hint


class Scene:
    """The instance with two runs of the small graph, which have ended."""


@pytest.fixture(scope="module")
def scene(aws, tmp_path_factory):
    made, folder = Scene(), tmp_path_factory.mktemp("team")
    with postgres(PASSWORD) as database, ecs(aws) as tasks, pytest.MonkeyPatch.context() as patch:
        made.aws, made.tasks = aws, tasks
        made.template = platform_for(aws, database)
        current = orchestrator(aws, made.template)
        tasks.be_a_task(current["clusterArn"], current["taskArn"])
        of_task = made.template._resolve(made.template.resources["Task"]["Properties"])["ContainerDefinitions"][0]
        for each in of_task["Environment"]:
            patch.setenv(each["Name"], each["Value"])
        patch.setenv("DAGSTER_HOME", str(REPOSITORY / "deploy"))
        patch.setenv("DAGSTER_POSTGRES_PASSWORD", PASSWORD)
        patch.setenv("DAGSTER_INSTANCE_DIR", str(folder))
        patch.setenv("ECS_CONTAINER_METADATA_URI_V4", tasks.metadata_url)
        patch.setenv("PYTHONPATH", f"{REPOSITORY}:{Path(__file__).parent}")
        patch.delenv("BIGGER_BOAT_INSTANCE")
        with dg.DagsterInstance.get() as instance:
            made.instance = instance
            with recording() as made.needs:
                made.runs = run_twice(instance)
            for thread in tasks.threads:  # a run has ended before its process has
                thread.join(60)
            yield made


@pytest.mark.slow
def test_a_pool_that_two_runs_make_at_once_is_made_once(scene):
    log = scene.instance.event_log_storage
    for _ in range(2):  # the second finds it, as the later of two runs does
        assert log.initialize_concurrency_limit_to_default("another_pool") is True
    info = log.get_concurrency_info("another_pool")
    assert (info.slot_count, info.active_slot_count, info.using_default_limit) == (1, 0, True)
    with pytest.raises(InternalError):  # Dagster's own, which the class is for
        super(TeamEventLog, log).initialize_concurrency_limit_to_default("another_pool")


def platform_for(aws, database) -> Template:
    """What deploy/platform.yaml makes of it, and deploy/team.yaml with that; returns the latter with its values."""
    where = aws.client("ec2")
    subnet = where.describe_subnets()["Subnets"][0]
    group = where.create_security_group(GroupName="team", Description="team", VpcId=subnet["VpcId"])["GroupId"]
    aws.client("ecs").create_cluster(clusterName=CLUSTER)
    secrets = aws.client("secretsmanager")
    password = secrets.create_secret(Name="DatabasePassword", SecretString=PASSWORD)["ARN"]
    key = secrets.create_secret(Name="SnowflakeKey", SecretString=private_key())["ARN"]
    role = f"arn:aws:iam::{ACCOUNT}:role/"
    outputs = {
        "Bucket": BUCKET,
        "Cluster": CLUSTER,
        "DatabasePassword": password,
        "OrchestratorLog": f"/ecs/{CLUSTER}",
        "TaskSecurityGroup": group,
        "TaskSubnets": subnet["SubnetId"],
        "TrainingRepository": "repository/training",
        IMAGE_TAG: "1",
        "OrchestratorRole": f"{role}orchestrator",
        "StartRole": f"{role}start",
    }
    for name in ("orchestrator", "start"):
        aws.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument="{}")
    make_stack(settings(snowflake_key_secret=key, tracking="off"), outputs)
    of_database = {"DatabaseHost": database.host, "DatabasePort": str(database.port)}
    of_database |= {"DatabaseUser": USER, "DatabaseName": DATABASE}
    return Template(REPOSITORY / "deploy" / "team.yaml", {**_told(outputs), **of_database}, stack=TEAM)


def make_stack(told: Settings, outputs: dict[str, str]) -> None:
    """As ``deploy team`` does; moto makes of it what it knows, and the settings are left in the bucket."""
    stack, shown = Stack(TEAM, print), []
    with pytest.raises(SettingsError, match="PostgreSQL is not known"):
        update_team(told, stack, outputs, {}, lambda _: True)
    given = {"DatabaseHost": "somewhere"}
    assert update_team(told, stack, outputs, given, lambda changes: shown.extend(changes) or False) == []
    assert SETTINGS_KEY not in [each["Key"] for each in _listed(outputs["Bucket"])]
    assert update_team(told, stack, outputs, given, lambda _: True) == shown
    assert "add Service, AWS::ECS::Service" in shown
    assert SETTINGS_KEY in [each["Key"] for each in _listed(outputs["Bucket"])]


def _listed(bucket: str) -> list[dict]:
    return aws_client("s3").list_objects_v2(Bucket=bucket, Prefix="config/").get("Contents", [])


def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()


def as_api(value):
    """CloudFormation's names as ECS's API has them."""
    if isinstance(value, dict):
        return {name[0].lower() + name[1:]: as_api(each) for name, each in value.items()}
    return [as_api(each) for each in value] if isinstance(value, list) else value


def orchestrator(aws, template: Template) -> dict:
    """Register the task definition of the template, and start the service's task, which this process is."""
    properties = {name: template._resolve(each["Properties"]) for name, each in template.resources.items()}
    client = aws.client("ecs")
    client.update_service(cluster=CLUSTER, service=TEAM, desiredCount=0)  # this process is its task
    client.register_task_definition(**as_api(properties["Task"]))
    network = as_api(properties["Service"]["NetworkConfiguration"])
    network["awsvpcConfiguration"]["subnets"] = template.parameters["Subnets"].split(",")
    [task] = client.run_task(
        cluster=CLUSTER, taskDefinition=f"{TEAM}-run", launchType="FARGATE", networkConfiguration=network
    )["tasks"]
    return task


def run_twice(instance: dg.DagsterInstance) -> dict[str, str]:
    """Ask for a run of each partition as the web UI does, and let the queue's daemon go on until both have ended."""
    with create_test_daemon_workspace_context(ModuleTarget("team_graph", "defs", None, "team"), instance) as workspace:
        asked = {which: launch(workspace.create_request_context(), which) for which in WHICH}
        daemon, deadline = QueuedRunCoordinatorDaemon(interval_seconds=1), time.monotonic() + 300
        while not all(instance.get_run_by_id(run_id).is_finished for run_id in asked.values()):
            assert time.monotonic() < deadline, [instance.get_run_by_id(run_id).status for run_id in asked.values()]
            list(daemon.run_iteration(workspace))
            time.sleep(0.5)
    return asked


def launch(context, which: str) -> str:
    selector = {"repositoryLocationName": "team", "repositoryName": "__repository__", "pipelineName": "team_job"}
    tags = [{"key": "dagster/partition", "value": which}]
    parameters = {"selector": selector, "mode": "default", "runConfigData": {}, "executionMetadata": {"tags": tags}}
    answer = execute_dagster_graphql(context, LAUNCH_PIPELINE_EXECUTION_MUTATION, {"executionParams": parameters})
    return answer.data["launchPipelineExecution"]["run"]["runId"]


def events(scene, which: str) -> list[dg.EventLogEntry]:
    return scene.instance.all_logs(scene.runs[which])


@pytest.mark.slow
@pytest.mark.parametrize("which", WHICH)
def test_two_runs_at_the_same_time_end_well_with_all_of_their_events(scene, which):
    run = scene.instance.get_run_by_id(scene.runs[which])
    assert run.status == dg.DagsterRunStatus.SUCCESS, failures_of(scene.instance, run.run_id)
    kinds = [each.dagster_event.event_type for each in events(scene, which) if each.dagster_event]
    once = ["RUN_ENQUEUED", "RUN_STARTING", "RUN_START", "ASSET_CHECK_EVALUATION", "RUN_SUCCESS"]
    times = {**dict.fromkeys(once, 1), "STEP_START": 3, "ASSET_MATERIALIZATION": 2, "STEP_SUCCESS": 3}
    assert {name: kinds.count(dg.DagsterEventType[name]) for name in times} == times
    [written] = scene.instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey("written"), asset_partitions=[which]), limit=5
    ).records
    metadata = {name: each.value for name, each in written.asset_materialization.metadata.items()}
    assert (metadata["alone"], metadata["opens"], written.run_id) == (True, True, scene.runs[which])


@pytest.mark.slow
@pytest.mark.parametrize("which", WHICH)
def test_the_request_names_cluster_task_command_and_run(scene, which):
    [asked] = [
        each
        for each in scene.tasks.requests
        if {"key": "dagster/run_id", "value": scene.runs[which]} in each.get("tags", [])
    ]
    assert asked["cluster"] == f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{CLUSTER}"
    assert asked["taskDefinition"] == f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/{TEAM}-run:2"
    assert asked["launchType"] == "FARGATE"
    network = asked["networkConfiguration"]["awsvpcConfiguration"]
    assert network["subnets"] == scene.template.parameters["Subnets"].split(",")
    assert network["securityGroups"] == [scene.template.parameters["SecurityGroup"]]
    assert {"key": "app", "value": "bigger-boat"} in asked["tags"]
    assert {"key": "dagster/job_name", "value": "team_job"} in asked["tags"]
    [container] = asked["overrides"]["containerOverrides"]
    assert (container["name"], container["cpu"], container["memory"]) == ("run", 2048, 8192)
    assert container["command"][:3] == ["dagster", "api", "execute_run"]
    assert deserialize_value(container["command"][3], ExecuteRunArgs).run_id == scene.runs[which]
    assert len(json.dumps(asked["overrides"])) < 8192, "ECS takes no more"
    tags = scene.instance.get_run_by_id(scene.runs[which]).tags
    assert tags["ecs/task_arn"] in scene.tasks.output


@pytest.mark.slow
@pytest.mark.parametrize("which", WHICH)
def test_what_a_run_prints_is_on_s3_and_read_through_the_instance(scene, which):
    [captured] = [
        each.dagster_event.logs_captured_data
        for each in events(scene, which)
        if each.dagster_event and each.dagster_event.event_type == dg.DagsterEventType.LOGS_CAPTURED
    ]
    manager = scene.instance.compute_log_manager
    key = manager.build_log_key_for_run(scene.runs[which], captured.file_key)
    said = manager.get_log_data(key)
    assert LINE.format(which) in said.stdout.decode()
    assert f"splash at {which}" in said.stderr.decode()
    path = manager.display_path_for_type(key, ComputeIOType.STDOUT)
    assert path.startswith(f"s3://{BUCKET}/compute-logs/storage/{scene.runs[which]}/")
    assert LINE.format(which) in scene.aws.objects("compute-logs/")[path.removeprefix(f"s3://{BUCKET}/")].decode()


@pytest.mark.slow
def test_a_team_s_stack_is_taken_down_with_all_else(scene):
    teardown = Teardown(settings(platform_stack="shared", api_stack="shared-api", endpoint_prefix="shared"), print)
    assert teardown.things() == [f"stack {TEAM}"]


@pytest.mark.slow
def test_no_secret_is_in_requests_runs_events_or_logs(scene):
    assert len(scene.tasks.requests) == 3
    texts = [json.dumps(scene.tasks.requests), *scene.tasks.output.values()]
    texts += [body.decode(errors="replace") for body in scene.aws.objects().values()]
    for which in WHICH:
        texts += [str(entry) for entry in events(scene, which)]
        texts += [str(scene.instance.get_run_by_id(scene.runs[which]))]
    for text in texts:
        assert PLANTED not in text
        assert "BEGIN PRIVATE KEY" not in text


@pytest.mark.slow
def test_the_orchestrator_may_launch_and_read_what_it_does(scene):
    platform = Template(REPOSITORY / "deploy" / "platform.yaml", names={"Bucket": BUCKET, "Cluster": CLUSTER})
    policies = platform.policies_of("OrchestratorRole") + scene.template.policies()
    assert missing(scene.needs, policies) == []
    assert {"ecs:RunTask", "ecs:TagResource", "ecs:DescribeTasks"} <= {each.action for each in scene.needs}
    assert missing(scene.needs, platform.policies_of("OrchestratorRole")), "without the team's stack it may not"
