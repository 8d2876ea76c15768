"""The roles of deploy/platform.yaml cover every call: what each who acts does is done, recorded, and held against them.

The platform is made, its outputs become the settings, and with these a version goes live, is updated and taken back; a
job is submitted, followed and ended; the API is deployed, a person told, an image built, the doctor asked.
"""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))  # importlib mode puts no test folder on the path

from batch_stand_in import REPOSITORY
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER
from iam_policies import ACCOUNT, GIVEN, REGION, Template
from made_platform import MadePlatform
from platform_stand_in import make_project, platform
from recorded_calls import Need, missing, needs_of, recording
from sagemaker_stand_in import IMAGE
from tiny_models import FOLLOWS, export_recommender, make_bundle, recommendation_golden

from bigger_boat.profiles import alerts, build_resources, endpoint_host, prediction_logs, public_api, storage
from bigger_boat.resources import doctor, permissions
from bigger_boat.resources.alerts import Alert
from bigger_boat.resources.aws import aws_client
from bigger_boat.resources.batch_job import BatchJob, StepNeeds
from bigger_boat.resources.batch_messages import EventBatch, Inbox, LaunchFolder
from bigger_boat.resources.images import ImageBuild
from bigger_boat.resources.permissions import needed
from bigger_boat.resources.platform import platform_stack, update_platform
from bigger_boat.settings import Settings, load_settings

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Tried to parse")]
NAME, STACK, TAG = "recommendation", "recorded-platform", "0123456789ab"
PREFIX = "recorded"
"""Names of its own: other modules' stacks and endpoints are in the same stand-in."""


class Scene:
    """The platform, the settings that it makes, and its template with the resources' real names."""

    def __init__(self, folder: Path, aws):
        given = {"GitHubRepository": GIVEN["GitHubRepository"], "ImageTag": TAG}
        self.platform = MadePlatform(aws, STACK, PREFIX, given)
        self.outputs, self.template = self.platform.outputs, self.platform.template
        (folder / ".env").write_text("\n".join(self.platform.lines))
        loaded = load_settings(folder / ".env", complete=False)
        of_a_test = {
            "profile": "aws",
            "platform_stack": STACK,
            "endpoint_prefix": PREFIX,
            "api_stack": f"{PREFIX}-api",
            "remote_steps": True,
            "data_dir": folder / "data",
            "endpoint_instance": "ml.m5.large",
            "endpoint_instances": 2,
            "endpoint_most_instances": 3,
            "endpoint_capture_percent": 100,
        }
        self.settings = loaded.model_copy(update=of_a_test)
        self.aws = aws

    def missing(self, role: str, needs: set[Need]) -> list[Need]:
        assert len(needs) > 2, needs
        return self.platform.missing(role, needs)

    def bundle(self, follows):
        root = self.settings.data_dir / "bundles" / f"{NAME}_champion"
        return make_bundle(root, NAME, lambda path: export_recommender(path, follows), recommendation_golden(follows))

    def host(self):
        host = endpoint_host(self.settings.model_copy(update={"serving_image": IMAGE}))  # the stand-in has one image
        return host.model_copy(update={"poll_s": 0.1})


@pytest.fixture(scope="module")
def builds(aws):
    with platform(aws) as running:
        yield running


@pytest.fixture(scope="module")
def scene(builds, aws, ends, tmp_path_factory) -> Scene:
    return Scene(tmp_path_factory.mktemp("scene"), aws)


def test_the_orchestrator_may_do_what_it_does(scene, tmp_path):
    with recording() as needs:
        host, first, second = scene.host(), scene.bundle(FOLLOWS), scene.bundle(FOLLOWS[::-1].copy())
        assert host.publish(NAME, first.directory).state == "serving"
        assert host.publish(NAME, second.directory).state == "serving"
        assert host.rollback(NAME).version == first.version
        assert host.challenge(NAME, second.directory, 0.5).state == "challenging"
        assert host.end_challenge(NAME) == second.version
        host.sweep(NAME)
        host.serving_since(NAME)
        host.description(NAME, first.version)
        host.ask(NAME, {"sessions": [["sku-a"]], "k": 2})
        _the_log_of_answers(scene)
        host._endpoint(NAME).remove_version(second.version)
        elsewhere = scene.settings.model_copy(update={"data_dir": tmp_path})
        address = storage(scene.settings).address(first.directory)
        assert (storage(elsewhere).fetch(address) / "bundle.json").exists()
        _large_object(elsewhere)
        _a_job(scene)
        public_api(scene.settings).deploy()
        assert "the SNS topic" in alerts(scene.settings).send(Alert("Something broke"))
        _doctor(scene)
    assert scene.missing("OrchestratorRole", needs) == []
    done = {each.action for each in needs}
    assert {"sagemaker:UpdateEndpoint", "batch:SubmitJob", "cloudformation:ExecuteChangeSet", "iam:PassRole"} <= done
    assert {"application-autoscaling:PutScalingPolicy", "sns:Publish", "s3:PutObject", "ecr:DescribeImages"} <= done
    wanted = list(needed(scene.settings, ACCOUNT, REGION))
    assert done - {action for each in wanted for action in each.actions} == {"iam:SimulatePrincipalPolicy"}
    asked = {Need(action, arn) for each in wanted for action in each.actions for arn in each.resources}
    assert scene.missing("OrchestratorRole", asked) == []
    assert scene.missing("JobRole", needs)  # a job may not do all of that
    assert scene.missing("GitHubRole", needs)


def _the_log_of_answers(scene: Scene) -> None:
    logs = prediction_logs(scene.settings)
    [day] = logs.days()
    assert logs.fingerprint(day) != "empty"
    assert sum(len(logs.read(part)[0]) for part in logs.files(day)) == 1
    assert logs.find("nobody", day) == []


def _large_object(settings: Settings) -> None:
    """An upload in parts, as a large model's is."""
    store = storage(settings).store
    store.part_bytes = 5 * 2**20
    folder = settings.data_dir / "large"
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(bytes(11 * 2**20))
    store.upload(folder, "datasets/large/1", print)


def _a_job(scene: Scene) -> None:
    compute = build_resources(scene.settings)["gpu_compute"]
    folder = LaunchFolder.new(aws_client("s3"), compute.prefix, "run", "step", 0)
    folder.beat()
    scene.aws.hold = True
    try:
        job = BatchJob.submit(aws_client("batch"), "step", compute.queue, compute.job_definition, ["true"], StepNeeds())
        job.state()
        assert list(Inbox(folder).receive()) == []
        assert folder.errors() == []
        job.terminate("the test is over")
    finally:
        scene.aws.hold = False


def _doctor(scene: Scene) -> None:
    media = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": media, "layers": []})
    scene.settings.serving_image = f"123456789012.dkr.ecr.{REGION}.amazonaws.com/{STACK}/serving:{TAG}"
    ecr = scene.aws.client("ecr")  # not recorded
    if not ecr.list_images(repositoryName=f"{STACK}/serving")["imageIds"]:
        ecr.put_image(repositoryName=f"{STACK}/serving", imageTag=TAG, imageManifest=manifest)
    role = scene.aws.client("iam").get_role(RoleName=scene.outputs["OrchestratorRole"].rpartition("/")[2])["Role"][
        "Arn"
    ]
    given = [policy.document for policy in scene.template.policies_of("OrchestratorRole")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(scene.aws.account.policies, role, given)
        patch.setattr(permissions, "principal_of", lambda _: role)
        found = list(doctor.examine(doctor.aws_checks(scene.settings)))
    assert [each.says for each in found if each.state != doctor.PASS] == []
    assert any(role in each.says for each in found)


def test_a_job_may_do_what_it_does(scene):
    with recording() as needs:
        folder = LaunchFolder.new(aws_client("s3"), scene.settings.batch_prefix, "run", "step", 0)
        folder.send_batch(1, 0, EventBatch([], last=True))
        assert folder.is_over()
        folder.send_error(1, "it broke")
        folder.beat()
        folder.last_beat()
        bundle = scene.bundle(FOLLOWS)
        storage(scene.settings).publish(bundle.directory)
        scene.host().serving_bundle(NAME)
    assert scene.missing("JobRole", needs) == []


def test_github_may_do_what_it_does(scene, builds, tmp_path):
    make_project(scene.aws, scene.outputs["ImageProject"])
    resources = build_resources(scene.settings.model_copy(update={"data_dir": tmp_path}))
    with recording() as before:
        build = ImageBuild(STACK, scene.outputs, print, poll_s=0)
        builds.log = ["a line"]
        build.make(REPOSITORY)
        update_platform(scene.settings, platform_stack(scene.settings, print), {"ImageTag": TAG}, lambda _: False)
        resources["public_api"].deploy(lambda _: False)
    assert scene.missing("GitHubPreviewRole", before) == []
    assert {"codebuild:StartBuild", "logs:GetLogEvents", "ecr:DescribeImages"} <= {each.action for each in before}
    with recording() as needs:
        update_platform(scene.settings, platform_stack(scene.settings, print), {"ImageTag": TAG}, lambda _: True)
        resources["public_api"].deploy()
        resources["address_io_manager"]._write("prediction_api.json", "{}")
        host = scene.host()
        host.serving_bundle(NAME)
        host.ask(NAME, {"sessions": [["sku-a"]], "k": 2})
    assert scene.missing("GitHubRole", needs) == []
    assert scene.missing("GitHubPreviewRole", needs)


def test_a_permission_that_is_taken_away_is_missed(scene):
    needs = needs_of(
        "batch", "SubmitJob", {"jobQueue": f"{STACK}-gpu", "jobDefinition": f"{STACK}-gpu", "tags": {"a": "b"}}
    )
    policies = scene.template.policies_of("OrchestratorRole")
    assert missing(needs, policies) == []
    assert missing(needs_of("batch", "SubmitJob", {"jobQueue": "another", "jobDefinition": "x"}), policies)
    [own] = [policy for policy in policies if policy.name == "run-the-graph"]
    own.document["Statement"] = [each for each in own.document["Statement"] if each["Action"] != "batch:SubmitJob"]
    assert {each.action for each in missing(needs, policies)} == {"batch:SubmitJob"}


UNUSED = {
    "lambda": "Alias CodeSigning Concurrency RecursionConfig ScalingConfig RuntimeManagement LayerVersion Capacity",
    "logs": "DataProtection IndexPolicy ResourcePolicy LogDelivery BearerToken",
    "apigateway": "RestApiPolicy",
}
"""Words in permissions of what deploy/api.yaml does not set; what is only read of it, is read all the same."""


def test_cloudformation_may_do_for_us_what_the_api_s_stack_needs():
    """AWS says per kind of resource which permissions making, reading and deleting one takes; the caller needs them."""
    template, api = Template(REPOSITORY / "deploy" / "platform.yaml"), Template(REPOSITORY / "deploy" / "api.yaml")
    granted = {action for p in template.policies_of("GitHubRole") for each in p.allowed() for action in each["Action"]}
    kinds = {each["Type"] for each in api.resources.values()} - {"AWS::IAM::Role"}
    assert len(kinds) > 8
    lacking = set()
    for kind in kinds:
        handlers = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, kind).schema.get("handlers", {})
        for does in ("create", "read", "delete"):
            asked = {each for each in handlers.get(does, {}).get("permissions", []) if each.split(":")[0] in OURS}
            lacking |= {each for each in asked - granted if does == "read" or not _unused(each)}
    assert lacking == set()


OURS = ("lambda", "logs", "apigateway", "firehose", "cloudformation")
"""Services that the stack is about; others stand there for networks and keys, which it has not."""


def _unused(action: str) -> bool:
    service, _, name = action.partition(":")
    return any(word in name for word in UNUSED.get(service, "").split())
