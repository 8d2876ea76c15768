"""What moto lacks of the platform's stack, mended: AWS Batch's service-linked role, lists as parameters, the order in
which a network goes, repositories that go with their images, and CodeBuild's builds, which end as told.
"""

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from batch_stand_in import StandIn
from lambda_stand_in import outputs_of_change_sets


@dataclass
class Builds:
    """CodeBuild's builds.

    ``statuses``: what each look at a build finds, the last again and again. ``log``: what the newest writes by then.
    ``started``: the requests.
    """

    here: StandIn
    statuses: list[str] = field(default_factory=lambda: ["SUCCEEDED"])
    log: list[str] = field(default_factory=list)
    started: list[dict[str, Any]] = field(default_factory=list)
    looks: dict[str, int] = field(default_factory=dict)
    newest: str = ""

    def look(self, build: dict[str, Any]) -> dict[str, Any]:
        looks = self.looks.get(build["id"], 0)
        self.looks[build["id"]] = looks + 1
        status = self.statuses[min(looks, len(self.statuses) - 1)]
        project, _, number = build["id"].partition(":")
        stream = {"groupName": f"/aws/codebuild/{project}", "streamName": number}
        logs = self.here.client("logs")
        with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_group(logGroupName=stream["groupName"])
        with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
            logs.create_log_stream(logGroupName=stream["groupName"], logStreamName=stream["streamName"])
        if self.log and build["id"] == self.newest:
            events = [
                {"timestamp": int(time.time() * 1000) + n, "message": f"{line}\n"} for n, line in enumerate(self.log)
            ]
            logs.put_log_events(logGroupName=stream["groupName"], logStreamName=stream["streamName"], logEvents=events)
            self.log = []
        phase = {"phaseType": "BUILD", "phaseStatus": status, "contexts": [{"message": "docker build: exit status 1"}]}
        return {**build, "buildStatus": status, "logs": {**build["logs"], **stream}, "phases": [phase]}


@contextmanager
def platform(here: StandIn) -> Iterator[Builds]:
    """Let the stack of deploy/platform.yaml be made, changed and deleted."""
    from moto.batch.models import ComputeEnvironment
    from moto.cloudformation.parsing import ResourceMap
    from moto.codebuild.models import CodeBuildBackend
    from moto.codebuild.responses import CodeBuildResponse

    builds = Builds(here)
    kept = (
        ComputeEnvironment.__dict__["create_from_cloudformation_json"],
        ResourceMap._delete_resource,
        CodeBuildBackend.batch_get_builds,
        CodeBuildResponse.start_build,
    )

    def make(cls: Any, name: str, given: dict[str, Any], account: str, region: str, **more: Any) -> Any:
        role = here.client("iam").create_role(RoleName=f"linked-{name}"[:64], AssumeRolePolicyDocument="{}")
        resources = given["Properties"]["ComputeResources"]
        listed = resources["InstanceTypes"]
        types = [each.strip() for each in listed.split(",")] if isinstance(listed, str) else listed
        resources = {**resources, "InstanceTypes": types}
        properties = {**given["Properties"], "ServiceRole": role["Role"]["Arn"], "ComputeResources": resources}
        return kept[0].__func__(cls, name, {**given, "Properties": properties}, account, region, **more)

    def delete(self: Any, resource: Any, given: dict[str, Any]) -> None:
        if given["Type"] == "AWS::ECR::Repository":  # EmptyOnDelete
            here.client("ecr").delete_repository(repositoryName=resource.name, force=True)
        elif not given["Type"].startswith("AWS::EC2::"):
            kept[1](self, resource, given)

    def look(self: Any, ids: list[str]) -> list[dict[str, Any]]:
        found = [each for history in self.build_metadata_history.values() for each in history if each["id"] in ids]
        return [builds.look(each) for each in found]

    def start(self: Any) -> Any:
        asked = {name: self._get_param(name) for name in ("sourceLocationOverride", "environmentVariablesOverride")}
        builds.started.append(asked)
        answer = kept[3](self)
        history = self.codebuild_backend.build_metadata_history[self._get_param("projectName")]
        builds.newest = history[-1]["id"]
        history[-1]["environment"]["environmentVariables"] = asked["environmentVariablesOverride"]
        return answer

    ComputeEnvironment.create_from_cloudformation_json = classmethod(make)
    ResourceMap._delete_resource = delete
    CodeBuildBackend.batch_get_builds, CodeBuildResponse.start_build = look, start
    try:
        with outputs_of_change_sets():
            yield builds
    finally:
        ComputeEnvironment.create_from_cloudformation_json = kept[0]
        ResourceMap._delete_resource = kept[1]
        CodeBuildBackend.batch_get_builds, CodeBuildResponse.start_build = kept[2:]


def make_project(here: StandIn, name: str) -> None:
    """Make the project of CodeBuild that the template describes, if it is not there yet."""
    codebuild = here.client("codebuild")
    if name in codebuild.list_projects()["projects"]:
        return
    codebuild.create_project(
        name=name,
        source={"type": "S3", "location": "bucket/source/none.zip"},
        artifacts={"type": "NO_ARTIFACTS"},
        environment={
            "type": "LINUX_CONTAINER",
            "image": "aws/codebuild/amazonlinux-x86_64-standard:5.0",
            "computeType": "BUILD_GENERAL1_SMALL",
        },
        serviceRole="arn:aws:iam::123456789012:role/build",
    )
