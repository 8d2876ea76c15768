"""``bigger-boat doctor``: each line passes, fails with what to do, or says what it waits for."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from datetime import date

import boto3
import dagster as dg
import pytest
from batch_stand_in import BUCKET, DEFINITION, QUEUE, REPOSITORY
from botocore.stub import Stubber
from sagemaker_stand_in import IMAGE

from bigger_boat.automation import gpu_probe
from bigger_boat.errors import CloudError, WarehouseError
from bigger_boat.profiles import build_resources
from bigger_boat.resources import doctor
from bigger_boat.resources.batch_job import BatchJob, StepNeeds
from bigger_boat.resources.batch_launcher import BatchCompute
from bigger_boat.resources.dbt_manifest import ensure_manifest
from bigger_boat.resources.doctor import Finding, examine
from bigger_boat.settings import Settings

LINES = ["region", "credentials", "identity", "bucket", "gpu queue and job definition", "cpu queue and job definition"]
LINES += ["serving image", "endpoint role", "public API", "permissions", "quotas", "costs"]


@pytest.fixture(scope="module")
def roles(aws) -> dict[str, str]:
    """An image in ECR, and two roles: SageMaker may assume one of them."""
    ecr = aws.client("ecr")
    name, _, tag = IMAGE.partition("/")[2].partition(":")
    ecr.create_repository(repositoryName=name, registryId=IMAGE.split(".")[0])
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "layers": []}
    image = {"repositoryName": name, "imageTag": tag, "registryId": IMAGE.split(".")[0]}
    ecr.put_image(**image, imageManifest=json.dumps(manifest))
    made = {}
    for name, service in (("endpoint", "sagemaker"), ("other", "ec2")):
        trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": f"{service}.amazonaws.com"}}]}
        role = aws.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
        made[name] = role["Role"]["Arn"]
    return made


def findings(roles, **changes) -> dict[str, Finding]:
    batch = {f"batch_{kind}_queue": QUEUE for kind in ("gpu", "cpu")}
    batch |= {f"batch_{kind}_job_definition": DEFINITION for kind in ("gpu", "cpu")}
    right = {"endpoint_role": roles["endpoint"], "serving_image": IMAGE, "storage": f"s3://{BUCKET}/x"}
    given = {**right, **batch, **changes}
    settings = Settings(profile="aws", remote_steps=True, _env_file=None, **given)
    return {found.name: found for found in examine(doctor.aws_checks(settings))}


def test_what_is_right_passes(roles):
    found = findings(roles)
    assert list(found) == LINES
    assert {name: each.state for name, each in found.items()} == dict.fromkeys(LINES, "pass"), found
    assert "123456789012" in found["identity"].says
    assert found["bucket"].says.endswith("in eu-west-1")
    assert "bigger-boat-training" in found["gpu queue and job definition"].says


@pytest.mark.parametrize(
    ("changes", "line", "says", "to_do"),
    [
        ({"storage": "s3://nobodys-bucket/x"}, "bucket", "NoSuchBucket", "BIGGER_BOAT_STORAGE"),
        ({"batch_gpu_queue": "none"}, "gpu queue and job definition", "none is not there", "BATCH_GPU_QUEUE"),
        ({"batch_cpu_job_definition": "none"}, "cpu queue and job definition", "no active", "BATCH_CPU_JOB_DEFINITION"),
        ({"serving_image": "docker.io/x:1"}, "serving image", "no image in ECR", "BIGGER_BOAT_SERVING_IMAGE"),
        ({"serving_image": IMAGE.replace(":1", ":2")}, "serving image", "ImageNotFound", "docs/aws.md"),
        ({"endpoint_role": "arn:aws:iam::123456789012:role/nobody"}, "endpoint role", "NoSuchEntity", "docs/aws.md"),
        ({"endpoint_role": "other"}, "endpoint role", "may not assume", "trust policy"),
    ],
)
def test_what_is_wrong_fails_alone_and_says_what_to_do(roles, changes, line, says, to_do):
    changes = {name: roles.get(value, value) for name, value in changes.items()}
    found = findings(roles, **changes)
    assert [name for name, each in found.items() if each.state != "pass"] == [line]
    assert says in found[line].says
    assert to_do in found[line].to_do


def _begins(aws, job_id: str) -> None:
    """Let a job that is held have a machine."""
    deadline = time.monotonic() + 30
    while not (found := [job for job in aws.jobs if job.job_id == job_id and job.status == "RUNNABLE"]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found[0].status = "RUNNING"


def test_what_runs_is_told_with_what_it_costs_by_the_hour(roles, aws, monkeypatch):
    """2 instances at 0.12, a job at 0.30 and, since both queues are one here, the same at 0.10."""
    sagemaker = aws.client("sagemaker")
    container = {"Image": "x", "ModelDataUrl": "s3://boat/model.tar.gz"}
    sagemaker.create_model(ModelName="costs", ExecutionRoleArn=roles["endpoint"], PrimaryContainer=container)
    variant = {"VariantName": "a", "ModelName": "costs", "InstanceType": "ml.m5.large", "InitialInstanceCount": 2}
    sagemaker.create_endpoint_config(EndpointConfigName="costs", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="costs-intent", EndpointConfigName="costs")
    with monkeypatch.context() as held:
        held.setattr(aws, "hold", True)
        job = BatchJob.submit(aws.client("batch"), "costs", QUEUE, DEFINITION, ["true"], StepNeeds())
        _begins(aws, job.job_id)
        said = findings(roles, endpoint_prefix="costs")["costs"].says
        job.terminate("the test is over")
    assert said.startswith(
        "about 0.64 USD an hour now: costs-intent on 2 ml.m5.large 0.24, 1 GPU job 0.30, 1 CPU job 0.10 (prices of 26 "
    )


def test_an_image_may_be_named_by_its_digest(roles, aws):
    name, _, tag = IMAGE.partition("/")[2].partition(":")
    asked = {"repositoryName": name, "imageIds": [{"imageTag": tag}], "registryId": IMAGE.split(".")[0]}
    [known] = aws.client("ecr").describe_images(**asked)["imageDetails"]
    address = IMAGE.removesuffix(f":{tag}")
    for named in (f"{address}@{known['imageDigest']}", f"{IMAGE}@{known['imageDigest']}"):
        assert findings(roles, serving_image=named)["serving image"].state == "pass"
    other = findings(roles, serving_image=f"{address}@sha256:{'0' * 64}")["serving image"]
    assert (other.state, "ImageNotFound" in other.says) == ("fail", True)


QUEUED = {"jobQueueName": "q", "jobQueueArn": "q", "priority": 1, "computeEnvironmentOrder": []}
DEFINED = {"jobDefinitionName": "d", "jobDefinitionArn": "d", "revision": 1}


@pytest.mark.parametrize(
    ("queue", "definition", "says", "to_do"),
    [
        ({"status": "INVALID", "statusReason": "no subnet"}, None, "q is invalid: no subnet.", "compute environments"),
        ({"status": "VALID"}, {"type": "multinode"}, "d is of type multinode without", "BATCH_CPU_JOB_DEFINITION"),
        ({}, {"type": "container", "eksProperties": {}}, "d is of type container without", "type container"),
    ],
)
def test_a_queue_that_runs_nothing_is_told(monkeypatch, queue, definition, says, to_do):
    """What moto cannot have, in the shape that boto3's model of AWS Batch demands."""
    batch = boto3.client("batch", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
    monkeypatch.setattr(doctor, "aws_client", lambda _: batch)
    settings = Settings(_env_file=None, batch_cpu_queue="q", batch_cpu_job_definition="d")
    with Stubber(batch) as stub:
        stub.add_response("describe_job_queues", {"jobQueues": [{**QUEUED, "state": "ENABLED", **queue}]})
        if definition:
            stub.add_response("describe_job_definitions", {"jobDefinitions": [{**DEFINED, **definition}]})
        with pytest.raises(CloudError) as caught:
            doctor._queue(settings, "cpu")
    assert (says in caught.value.message, to_do in caught.value.hint) == (True, True), caught.value


@contextlib.contextmanager
def acting_as(aws, monkeypatch, name: str, *actions: str):
    """Be a session of a role that may do these actions, everywhere."""
    iam = aws.client("iam")
    allowed = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]}
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    iam.put_role_policy(RoleName=name, PolicyName="some", PolicyDocument=json.dumps(allowed))
    session = aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="of-a-test")["Credentials"]
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", session["AccessKeyId"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", session["SecretAccessKey"])
        patch.setenv("AWS_SESSION_TOKEN", session["SessionToken"])
        patch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps the credentials that it began with
        yield arn


def test_what_a_role_may_not_do_is_named_before_it_is_tried(roles, aws, monkeypatch):
    services = "sagemaker batch iam cloudformation cloudwatch ecr lambda apigateway firehose logs servicequotas sns"
    allowed = [f"{service}:*" for service in [*services.split(), "application-autoscaling"]]
    allowed += [f"s3:{action}" for action in ("GetObject", "PutObject", "AbortMultipartUpload", "ListBucket")]
    with acting_as(aws, monkeypatch, "little", *allowed) as arn:
        found = findings(roles)["permissions"]
    assert found.state == "fail"
    bucket = f"arn:aws:s3:::{BUCKET}"
    denied = f"s3:DeleteObject on {bucket}/x/landing/_incoming/any; s3:GetBucketLocation on {bucket}"
    assert found.says == f"IAM does not allow {arn}: {denied}."
    assert "OrchestratorRole" in found.to_do
    with acting_as(aws, monkeypatch, "nothing", "iam:*"):
        found = findings(roles)["permissions"]
    assert re.search(r"; .*; .*; .*; .*, and \d\d more\.$", found.says), found.says


@pytest.mark.parametrize(
    ("key", "changes", "says"),
    [
        (("ec2", "L-3819A6DF"), {}, "All G and VT Spot Instance Requests (vCPUs) is 3, and 4 are needed."),
        (("sagemaker", "L-2"), {"endpoint_instance": "ml.m5.large"}, "ml.m5.large for endpoint usage is 3, and 6 are"),
    ],
)
def test_a_quota_that_is_too_small_is_told(roles, aws, monkeypatch, key, changes, says):
    """Two endpoints of two instances, and two of a new version beside them."""
    name, value = aws.account.quotas[key]
    monkeypatch.setitem(aws.account.quotas, key, (name, 3.0))
    found = findings(roles, endpoint_instances=2, endpoint_most_instances=2, **changes)["quotas"]
    assert (found.state, says in found.says) == ("fail", True), found
    monkeypatch.setitem(aws.account.quotas, key, (name, value))
    assert findings(roles, endpoint_instances=2, endpoint_most_instances=2, **changes)["quotas"].state == "pass"


def test_a_kind_of_machine_that_hosts_nothing_is_told(roles):
    found = findings(roles, endpoint_instance="ml.m5.tiny")["quotas"]
    assert (found.state, "ENDPOINT_INSTANCE" in found.to_do) == ("fail", True), found


def test_a_bucket_of_another_region_is_named(roles, aws):
    where = {"LocationConstraint": "eu-central-1"}
    there = boto3.client("s3", region_name="eu-central-1")
    there.create_bucket(Bucket="elsewhere", CreateBucketConfiguration=where)
    found = findings(roles, storage="s3://elsewhere/x")["bucket"]
    assert (found.state, found.to_do) == ("fail", "Set AWS_DEFAULT_REGION=eu-central-1.")


def test_without_credentials_what_needs_them_is_not_tried(roles, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    found = findings(roles)
    assert (found["credentials"].state, "aws sso login" in found["credentials"].to_do) == ("fail", True)
    states = {name: each.state for name, each in found.items()}
    assert states == {"region": "pass", "credentials": "fail", **dict.fromkeys(LINES[2:], "not tried")}
    assert found["bucket"].says == "it needs: credentials, identity"


def test_this_machine_and_the_warehouse_are_looked_at(tmp_path):
    settings = Settings(data_dir=tmp_path, _env_file=None)
    warehouse = build_resources(settings)["warehouse"]
    found = {each.name: each for each in examine(doctor.local_checks(settings, warehouse))}
    assert {name: each.state for name, each in found.items()} == {
        "data folder": "pass",
        "landing zone": "fail",
        "warehouse": "pass",
    }
    assert "bigger-boat land" in found["landing zone"].to_do


class Refusing:
    def read(self, *_):
        raise WarehouseError("Snowflake refuses the login.", "Give it the public key.")


def test_a_login_that_is_refused_is_told(tmp_path):
    settings = Settings(data_dir=tmp_path, profile="aws", _env_file=None)
    found = {each.name: each for each in examine(doctor.local_checks(settings, Refusing()))}
    login = found["Snowflake login"]
    assert (login.state, login.to_do) == ("fail", "Give it the public key.")
    assert found["Snowflake grants"].state == "not tried"


def probe(settings: Settings) -> str:
    ensure_manifest()
    from bigger_boat import definitions

    made = definitions.build_definitions(settings, **compute_of(settings))
    with dg.DagsterInstance.ephemeral() as instance:
        return gpu_probe.probe_gpus(made.resolve_job_def("gpu_probe_job"), instance)


def compute_of(settings: Settings) -> dict[str, BatchCompute]:
    """As the settings have it, but asked more often, and with this machine's folder for the job's image."""
    if not settings.remote_steps:
        return {}
    known = build_resources(settings)["gpu_compute"]
    told = {**known.needs.environment, "BIGGER_BOAT_DATA_DIR": str(settings.data_dir / "there")}
    return {"gpu_compute": known.model_copy(update={"poll_s": 0.5, "needs": StepNeeds(environment=told)})}


def test_the_gpus_of_this_machine_are_named_by_a_step(tmp_path, monkeypatch):
    settings = Settings(data_dir=tmp_path, _env_file=None)
    monkeypatch.setattr(gpu_probe, "gpu_names", lambda: ["NVIDIA A10G", "NVIDIA A10G"])
    assert probe(settings) == "NVIDIA A10G, NVIDIA A10G"
    monkeypatch.setattr(gpu_probe, "gpu_names", list)
    with pytest.raises(CloudError, match="TensorFlow sees no GPU where the step ran"):
        probe(settings)


@pytest.mark.slow
def test_the_step_goes_to_the_gpu_queue_and_says_that_there_is_no_gpu(aws, tmp_path, monkeypatch):
    """The machine that stands in has none: what a job really sees comes home as the finding."""
    monkeypatch.setattr(aws, "fresh", True)
    batch = {"batch_gpu_queue": QUEUE, "batch_gpu_job_definition": DEFINITION, "batch_prefix": f"s3://{BUCKET}/steps"}
    of_aws = {"profile": "aws", "storage": f"s3://{BUCKET}/probe", "start_date": date(2026, 10, 1)}
    before = len(aws.submitted)
    with pytest.raises(CloudError, match="TensorFlow sees no GPU where the step ran"):
        probe(Settings(data_dir=tmp_path, remote_steps=True, _env_file=None, **batch, **of_aws))
    [job] = aws.submitted[before:]
    assert job["jobName"].startswith("report_gpus-")


@pytest.mark.slow
def test_the_command_lists_all_that_is_missing_and_fails(tmp_path):
    environment = {**os.environ, "BIGGER_BOAT_PROFILE": "aws", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "bigger_boat.cli", "doctor"]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    for name in ("SNOWFLAKE_ACCOUNT", "STORAGE", "ENDPOINT_ROLE", "SERVING_IMAGE"):
        assert f"BIGGER_BOAT_{name}" in ended.stdout
    assert "not tried" in ended.stdout
