"""Records what this process asks of AWS, by boto3 and by s3fs, and says which permission each call needs on what."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from iam_policies import ACCOUNT, REGION, Policy, allows

AS = {
    "s3:HeadObject": "s3:GetObject",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
    "s3:CreateMultipartUpload": "s3:PutObject",
    "s3:UploadPart": "s3:PutObject",
    "s3:CompleteMultipartUpload": "s3:PutObject",
}
"""Operations whose permission has another name; otherwise it is the operation's own."""
STAND_INS_OWN = "made-up"
"""Secret key of ``StandIn.client``: what the stand-in does itself, in threads of this process, is no call of ours."""
FREE = {"sts:GetCallerIdentity"}
"""What everybody may do."""
WITHOUT_RESOURCE = {"batch:DescribeJobs", "batch:DescribeJobQueues", "batch:DescribeJobDefinitions"}
WITHOUT_RESOURCE |= {"sagemaker:ListModels", "sagemaker:ListEndpointConfigs"}
WITHOUT_RESOURCE |= {
    "servicequotas:ListServiceQuotas",
    "batch:ListJobs",
    "ecs:DescribeTaskDefinition",
    "ec2:DescribeNetworkInterfaces",
}


@dataclass(frozen=True)
class Need:
    """A permission that a call needs; ``resource``: an ARN, ``*`` where AWS names none."""

    action: str
    resource: str


@contextmanager
def recording() -> Iterator[set[Need]]:
    """Collect the needs of every call made meanwhile."""
    from aiobotocore.client import AioBaseClient
    from botocore.client import BaseClient

    needs: set[Need] = set()
    calls, aio_calls = BaseClient._make_api_call, AioBaseClient._make_api_call

    def note(client: Any, operation: str, given: dict[str, Any]) -> None:
        needs.update(needs_of(client.meta.service_model.signing_name, operation, given))

    def call(self: Any, operation: str, given: dict[str, Any]) -> Any:
        if self._request_signer._credentials.secret_key != STAND_INS_OWN:
            note(self, operation, given)
        return calls(self, operation, given)

    async def aio_call(self: Any, operation: str, given: dict[str, Any]) -> Any:
        note(self, operation, given)
        return await aio_calls(self, operation, given)

    BaseClient._make_api_call, AioBaseClient._make_api_call = call, aio_call
    try:
        yield needs
    finally:
        BaseClient._make_api_call, AioBaseClient._make_api_call = calls, aio_calls


@contextmanager
def recording_to(file: Path) -> Iterator[None]:
    """Append the needs of every call made meanwhile to a file, in a process of its own."""
    with recording() as needs:
        try:
            yield
        finally:
            with file.open("a") as written:
                written.write("".join(json.dumps(asdict(each)) + "\n" for each in needs))


def recorded(file: Path) -> set[Need]:
    """Return what processes have written there."""
    return {Need(**json.loads(line)) for line in file.read_text().splitlines()}


def needs_of(service: str, operation: str, given: dict[str, Any]) -> set[Need]:
    """Return the permissions that a call needs. Fails for a call whose resource is not known here."""
    service = {"monitoring": "cloudwatch"}.get(service, service)
    action = AS.get(f"{service}:{operation}", f"{service}:{operation}")
    if action in FREE:
        return set()
    needs = {Need(action, arn) for arn in _resources(service, action, given)}
    if service == "batch" and given.get("tags"):
        needs.add(Need("batch:TagResource", _arn("batch", "job/1")))
    if action == "ecs:RunTask" and given.get("tags"):
        needs.add(Need("ecs:TagResource", _arn("ecs", f"task/{given['cluster'].rpartition('/')[2]}/1")))
    if service == "sagemaker" and given.get("Tags") and action != "sagemaker:AddTags":
        needs |= {Need("sagemaker:AddTags", arn) for arn in _resources(service, action, given)}
    if role := given.get("ExecutionRoleArn"):
        needs.add(Need("iam:PassRole", role))
    if given.get("DeploymentConfig", {}).get("AutoRollbackConfiguration", {}).get("Alarms"):
        named = [each["AlarmName"] for each in given["DeploymentConfig"]["AutoRollbackConfiguration"]["Alarms"]]
        needs |= {Need("cloudwatch:DescribeAlarms", _arn("cloudwatch", f"alarm:{name}")) for name in named}
    return needs


def missing(needs: set[Need], policies: list[Policy]) -> list[Need]:
    """Return the needs that no policy meets."""
    return sorted((each for each in needs if not allows(policies, each.action, each.resource)), key=str)


def _resources(service: str, action: str, given: dict[str, Any]) -> list[str]:
    if action in WITHOUT_RESOURCE:
        return ["*"]
    if service == "s3":
        return [f"arn:aws:s3:::{given['Bucket']}" + (f"/{given['Key']}" if "Key" in given else "")]
    found = [
        value if value.startswith("arn:") else _arn(service, form.format(value))
        for key, form in _FORMS[service].items()
        for value in _listed(given.get(key))
    ]
    assert found, f"{action} of {given}: its resource is not known in {__name__}"
    return found


_FORMS = {
    "sagemaker": {
        "EndpointName": "endpoint/{}",
        "EndpointConfigName": "endpoint-config/{}",
        "ModelName": "model/{}",
        "ResourceArn": "{}",
    },
    "batch": {"jobQueue": "job-queue/{}", "jobDefinition": "job-definition/{}", "jobId": "job/{}"},
    "cloudwatch": {"AlarmName": "alarm:{}"},
    "application-autoscaling": {"ServiceNamespace": "scalable-target/1"},
    "ecr": {"repositoryName": "repository/{}"},
    "iam": {"RoleName": "role/{}", "PolicySourceArn": "{}"},
    "servicequotas": {"ServiceCode": "{}/any"},
    "cloudformation": {"StackName": "stack/{}/1"},
    "sns": {"TopicArn": "{}"},
    "codebuild": {"projectName": "project/{}", "ids": "project/{}"},
    "ecs": {"taskDefinition": "task-definition/{}:1", "tasks": "{}", "task": "{}"},
    "secretsmanager": {"SecretId": "{}"},
    "logs": {"logGroupName": "log-group:{}:log-stream:x"},
}
"""How the ARNs of a service look, by the parameter that names them."""


def _arn(service: str, resource: str) -> str:
    region = "" if service == "iam" else REGION
    return f"arn:aws:{service}:{region}:{ACCOUNT}:{resource}"


def _listed(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value] if value else []
    return [each.split(":")[0] if not each.startswith("arn:") else each for each in values]
