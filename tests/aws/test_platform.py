"""``bigger-boat deploy``: the platform's stack by change sets, images by CodeBuild, and all of it down again."""

import json
import os
import subprocess
import sys
import zipfile
from io import BytesIO

import pytest
import yaml
from batch_stand_in import REPOSITORY
from platform_stand_in import make_project, platform
from typer.testing import CliRunner

from bigger_boat.cli import app
from bigger_boat.errors import CloudError, SettingsError
from bigger_boat.resources.images import ImageBuild
from bigger_boat.resources.platform import outputs_of, parameters_of, settings_lines
from bigger_boat.resources.stacks import Stack
from bigger_boat.resources.teardown import Teardown, empty
from bigger_boat.settings import AWS_SETTINGS, BATCH_SETTINGS, Settings, load_settings

STACK = "bigger-boat-platform"
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Tried to parse")]


@pytest.fixture(scope="module")
def builds(aws):
    with platform(aws) as running:
        yield running


@pytest.fixture(scope="module")
def deployed(builds, aws) -> dict[str, str]:
    """The platform, made by the command; its outputs."""
    ended = command("platform", "--yes", "--set", "GitHubRepository=shop/boat", "--set", "BudgetUsd=50")
    assert ended.exit_code == 0, ended.output
    return Stack(STACK, print).outputs()


def command(*arguments: str):
    return CliRunner().invoke(app, ["deploy", *arguments], env={"COLUMNS": "200"})


def test_a_dry_run_shows_the_changes_and_leaves_nothing(builds, aws, monkeypatch):
    monkeypatch.setenv("BIGGER_BOAT_PLATFORM_STACK", "not-yet")
    ended = command("platform", "--dry-run")
    assert ended.exit_code == 0, ended.output
    assert "Stack not-yet will add OrchestratorRole, AWS::IAM::Role" in ended.output
    assert Stack("not-yet", print).status() == ""
    assert command("image").exception.message == "There is no stack not-yet yet."


def test_without_anybody_to_ask_nothing_is_made(builds, monkeypatch):
    monkeypatch.setenv("BIGGER_BOAT_PLATFORM_STACK", "not-yet")
    ended = command("platform")
    assert isinstance(ended.exception, SettingsError)
    assert "--yes" in ended.exception.hint
    assert Stack("not-yet", print).status() == ""


def test_its_outputs_are_the_settings(deployed, tmp_path, monkeypatch):
    env = tmp_path / ".env"
    env.write_text("\n".join(settings_lines({**deployed, "ServingImage": "x"})))
    settings = load_settings(env, complete=False)
    ours = [*BATCH_SETTINGS, *(name for name in AWS_SETTINGS if not name.startswith("snowflake"))]
    assert [name for name in ours if not getattr(settings, name)] == []
    assert settings.storage == f"s3://{deployed['Bucket']}/data"
    assert settings.alert_sns_topic == deployed["AlertSnsTopic"]
    assert f"# Bucket: {deployed['Bucket']}" in env.read_text()
    assert "ServingImage" not in deployed  # there is none yet


def test_queues_and_definitions_are_there_by_their_settings_names(deployed, aws):
    batch = aws.client("batch")
    for kind in ("Gpu", "Cpu"):
        [queue] = batch.describe_job_queues(jobQueues=[deployed[f"Batch{kind}Queue"]])["jobQueues"]
        assert queue["state"] == "ENABLED"
        name = deployed[f"Batch{kind}JobDefinition"]
        [definition] = batch.describe_job_definitions(jobDefinitionName=name)["jobDefinitions"]
        needs = {each["type"] for each in definition["containerProperties"]["resourceRequirements"]}
        assert ("GPU" in needs) == (kind == "Gpu")


def test_another_image_is_taken_and_what_was_given_before_stays(deployed, aws):
    ended = command("platform", "--yes", "--image", "0123456789ab")
    assert ended.exit_code == 0, ended.output
    [stack] = aws.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    now = {each["ParameterKey"]: each["ParameterValue"] for each in stack["Parameters"]}
    assert (now["ImageTag"], now["BudgetUsd"], now["GitHubRepository"]) == ("0123456789ab", "50", "shop/boat")
    assert command("image", "--which").output == "0123456789ab\n"


def test_the_api_s_changes_are_shown_with_the_settings_of_the_workflow(deployed, tmp_path):
    """As .github/workflows/deploy.yml does, which knows nothing of the warehouse."""
    told = yaml.safe_load((REPOSITORY / ".github/workflows/deploy.yml").read_text())["env"]
    settings = {name: value for name, value in told.items() if name.startswith("BIGGER_BOAT_")}
    settings |= {"BIGGER_BOAT_STORAGE": deployed["Storage"], "BIGGER_BOAT_ENDPOINT_ROLE": deployed["EndpointRole"]}
    environment = {**os.environ, **settings, "BIGGER_BOAT_DATA_DIR": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "bigger_boat.cli", "deploy", "api", "--dry-run"]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Stack bigger-boat-api will add Function, AWS::Lambda::Function" in ended.stdout + ended.stderr
    assert "this was a dry run" in ended.stdout
    assert Stack("bigger-boat-api", print).status() == ""


def test_what_is_no_parameter_is_told():
    assert parameters_of(["A=b=c"]) == {"A": "b=c"}
    with pytest.raises(SettingsError, match="No parameter: BudgetUsd"):
        parameters_of(["BudgetUsd"])


@pytest.fixture
def clone(tmp_path):
    """A repository of one commit, and its tag."""
    (tmp_path / "file").write_text("committed")
    (tmp_path / "other").write_text(tmp_path.name)  # or two commits of a second would be the same
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    sha = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    return tmp_path, sha[:12]


@pytest.fixture(scope="module")
def project(deployed, aws) -> None:
    make_project(aws, deployed["ImageProject"])


@pytest.fixture
def build(deployed, builds, project):
    told: list[str] = []
    build = ImageBuild(STACK, deployed, told.append, poll_s=0)
    builds.looks, builds.newest, builds.started[:], build.told = {}, "", [], told
    return build


def test_an_image_is_built_of_what_is_committed_and_its_log_is_told(build, builds, clone, aws, deployed):
    folder, tag = clone
    (folder / "file").write_text("not committed")
    builds.statuses, builds.log = ["IN_PROGRESS", "IN_PROGRESS", "SUCCEEDED"], ["Step 1/9", "Step 2/9"]
    assert build.make(folder) == tag
    assert build.told[0] == "What is not committed is not in the image."
    assert build.told[2:] == ["Step 1/9", "Step 2/9"]
    [asked] = builds.started
    assert asked["environmentVariablesOverride"] == [{"name": "IMAGE_TAG", "value": tag}]
    bucket, _, key = asked["sourceLocationOverride"].partition("/")
    assert bucket == deployed["Bucket"]
    body = aws.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    with zipfile.ZipFile(BytesIO(body)) as archive:
        assert archive.read("file") == b"committed"


def test_a_build_that_is_on_its_way_is_followed(build, builds, clone):
    folder, _ = clone
    builds.statuses = ["IN_PROGRESS"]
    build.timeout_s = 0
    with pytest.raises(CloudError, match="still runs after 0 s"):
        build.make(folder)
    build.timeout_s, builds.looks, builds.statuses = 10, {}, ["IN_PROGRESS", "SUCCEEDED"]
    build.make(folder)
    assert len(builds.started) == 1


def test_a_build_that_fails_says_why(build, builds, clone):
    builds.statuses, builds.log = ["FAILED"], ["E: no such package"]
    with pytest.raises(CloudError, match="ended as FAILED: BUILD: docker build: exit status 1\nE: no such package"):
        build.make(clone[0])


def test_what_is_built_is_not_built_again(build, builds, clone, aws):
    folder, tag = clone
    media = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": media, "layers": []})
    for name in ("serving", "training"):
        assert not build.has(tag)
        aws.client("ecr").put_image(repositoryName=f"{STACK}/{name}", imageTag=tag, imageManifest=manifest)
    assert build.make(folder) == tag
    assert builds.started == []


def test_outside_of_a_clone_there_is_no_image(build, tmp_path):
    with pytest.raises(CloudError, match="git rev-parse failed") as error:
        build.make(tmp_path)
    assert "in a clone" in error.value.hint


def test_a_bucket_is_emptied_of_versions_and_unfinished_uploads(aws):
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="full", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    s3.put_bucket_versioning(Bucket="full", VersioningConfiguration={"Status": "Enabled"})
    for _ in range(2):
        s3.put_object(Bucket="full", Key="twice", Body=b"x")
    s3.delete_object(Bucket="full", Key="twice")
    s3.create_multipart_upload(Bucket="full", Key="half")
    assert empty("full") == 3
    s3.delete_bucket(Bucket="full")


def test_destroy_leaves_nothing_that_bills(deployed, aws, ends):
    """It takes down what the tests above use."""
    bucket = deployed["Bucket"]
    aws.client("s3").put_object(Bucket=bucket, Key="data/some", Body=b"x")
    _an_endpoint(aws)
    teardown = Teardown(Settings(_env_file=None), print, poll_s=0)
    expected = ["endpoint bigger-boat-intent", "1 versions of bigger-boat-intent", f"stack {STACK}"]
    assert teardown.things() == expected
    with pytest.raises(SettingsError, match=f"bucket is {bucket}, not {bucket[:-1]}"):
        teardown.run(bucket[:-1])
    shown = command("destroy", "--dry-run", "--delete-data", bucket).output
    assert f"to be deleted: bucket {bucket} and all that is in it" in shown
    assert (teardown.things(), teardown.bucket) == (expected, bucket)

    ended = command("destroy", "--yes", "--delete-data", bucket)
    assert ended.exit_code == 0, ended.output
    assert f"Bucket {bucket}: " in ended.output
    assert bucket not in [each["Name"] for each in aws.client("s3").list_buckets()["Buckets"]]
    _nothing_bills(aws)
    assert "there is nothing of it" in command("destroy", "--yes").output


def test_destroy_keeps_a_bucket_that_is_not_named(builds, aws, ends, monkeypatch):
    monkeypatch.setenv("BIGGER_BOAT_PLATFORM_STACK", "second")
    monkeypatch.setenv("BIGGER_BOAT_ENDPOINT_PREFIX", "second")
    assert command("platform", "--yes").exit_code == 0
    bucket = outputs_of(Stack("second", print))["Bucket"]
    aws.client("s3").put_object(Bucket=bucket, Key="data/some", Body=b"x")
    ended = command("destroy", "--yes")
    assert ended.exit_code == 0, ended.output
    assert f"Bucket {bucket} stays, and is billed for what is in it." in ended.output
    assert Stack("second", print).status() == ""
    assert aws.client("s3").get_object(Bucket=bucket, Key="data/some")["Body"].read() == b"x"


def _an_endpoint(aws) -> None:
    sagemaker, name = aws.client("sagemaker"), "bigger-boat-intent"
    version = f"{name}-20261123T093012123Z-ab12cd34"
    container = {"Image": "nobody's", "ModelDataUrl": "s3://boat/model.tar.gz"}
    role = "arn:aws:iam::123456789012:role/x"
    sagemaker.create_model(ModelName=version, ExecutionRoleArn=role, PrimaryContainer=container)
    variant = {"VariantName": "AllTraffic", "ModelName": version, "InstanceType": "ml.m5.large"}
    variant |= {"InitialInstanceCount": 1, "InitialVariantWeight": 1.0}
    sagemaker.create_endpoint_config(EndpointConfigName=f"{version}-abcdef", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=f"{version}-abcdef")
    aws.client("cloudwatch").put_metric_alarm(
        AlarmName=f"{name}-ModelLatency",
        Namespace="AWS/SageMaker",
        MetricName="ModelLatency",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )


def _nothing_bills(aws) -> None:
    sagemaker = aws.client("sagemaker")
    assert sagemaker.list_endpoints(NameContains="bigger-boat-")["Endpoints"] == []
    models = [each["ModelName"] for each in sagemaker.list_models()["Models"]]  # moto does not filter them
    assert [name for name in models if name.startswith("bigger-boat-")] == []
    assert aws.client("cloudwatch").describe_alarms(AlarmNamePrefix="bigger-boat-")["MetricAlarms"] == []
    assert [
        each for each in aws.client("ecr").describe_repositories()["repositories"] if STACK in each["repositoryName"]
    ] == []
    assert Stack(STACK, print).status() == ""
