"""What this process must be allowed to do at AWS, and IAM's word on it: nothing is done to find out.

Belongs here: the permissions of who runs the graph, by the settings. A test holds them against the role that
``deploy/platform.yaml`` makes. What belongs elsewhere: showing what is lacking (``doctor.py``).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bigger_boat.errors import CloudError
from bigger_boat.resources.aws import aws_client, aws_in_words
from bigger_boat.settings import Settings

ANYTHING = ("*",)
"""Where AWS names no resource."""
_SHOWN = 5


@dataclass(frozen=True)
class Needed:
    """Actions that are needed on each of some resources (ARNs), in a context that policies may have conditions on."""

    actions: Sequence[str]
    resources: Sequence[str] = ANYTHING
    context: Mapping[str, str] = field(default_factory=dict)


def needed(settings: Settings, account: str, region: str) -> Iterator[Needed]:
    """Yield what ``run``, ``doctor``, the sensors and the endpoints' jobs do with these settings."""
    own = f"{region}:{account}"
    yield from _storage(settings)
    if settings.remote_steps:
        yield from _batch(settings, own)
    yield from _endpoints(settings, own)
    yield from _api(settings, own, region)
    yield Needed(["ecr:DescribeImages"], [f"arn:aws:ecr:{own}:repository/{_repository(settings.serving_image)}"])
    yield Needed(["servicequotas:GetServiceQuota"], [f"arn:aws:servicequotas:{own}:ec2/any"])
    yield Needed(["servicequotas:ListServiceQuotas"])
    if settings.alert_sns_topic:
        yield Needed(["sns:Publish"], [settings.alert_sns_topic])
    if settings.snowflake_key_secret:
        yield Needed(["secretsmanager:GetSecretValue"], [settings.snowflake_key_secret])


def _repository(image: str) -> str:
    """Return the repository's name of an image's address, ``REGISTRY/NAME:TAG`` or ``REGISTRY/NAME@DIGEST``."""
    return image.partition("/")[2].partition("@")[0].partition(":")[0]


def lacking(principal: str, wanted: Sequence[Needed]) -> list[str]:
    """Return what IAM says a role or user may not do, as ``ACTION on RESOURCE``.

    Raises CloudError where IAM may not be asked.
    """
    iam = aws_client("iam")
    found = []
    for each in wanted:
        context = [
            {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"}
            for key, value in each.context.items()
        ]
        with aws_in_words("IAM does not say what is allowed"):
            pages = iam.get_paginator("simulate_principal_policy").paginate(
                PolicySourceArn=principal,
                ActionNames=list(each.actions),
                ResourceArns=list(each.resources),
                ContextEntries=context,
            )
            results = [result for page in pages for result in page["EvaluationResults"]]
        found += [
            f"{result['EvalActionName']} on {result['EvalResourceName']}"
            for result in results
            if result["EvalDecision"] != "allowed"
        ]
    return found


def principal_of(caller: str) -> str:
    """Return the ARN that IAM knows a caller by: of a session of a role, the role. "" for the account's root."""
    if caller.endswith(":root"):
        return ""
    kind, _, name = caller.rpartition(":")[2].partition("/")
    if kind != "assumed-role":
        return caller
    with aws_in_words(f"The role of {caller} cannot be looked at"):
        return aws_client("iam").get_role(RoleName=name.partition("/")[0])["Role"]["Arn"]


def check_permissions(settings: Settings, region: str) -> str:
    """Return a sentence. Raises CloudError with what is not allowed, and what to do."""
    with aws_in_words("AWS does not say who this is"):
        caller = aws_client("sts").get_caller_identity()
    wanted = list(needed(settings, caller["Account"], region))
    count = sum(len(each.actions) for each in wanted)
    if not (principal := principal_of(caller["Arn"])):
        return f"the account's root may do all of the {count} actions"
    if not (denied := lacking(principal, wanted)):
        return f"IAM allows {principal} all of the {count} actions that the graph needs"
    more = f", and {len(denied) - _SHOWN} more" if len(denied) > _SHOWN else ""
    raise CloudError(
        f"IAM does not allow {principal}: {'; '.join(denied[:_SHOWN])}{more}.",
        "Work as the platform's OrchestratorRole (deploy platform --set Operator=ARN lets you), or add these.",
    )


def _storage(settings: Settings) -> Iterator[Needed]:
    """Objects are looked for by name: a made-up one stands for all below a folder."""
    roots = [settings.storage, *([settings.batch_prefix] if settings.remote_steps else [])]
    paths = [root.removeprefix("s3://").strip("/") for root in roots]
    objects = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
    yield Needed(objects, [f"arn:aws:s3:::{path}/any" for path in paths])
    yield Needed(["s3:DeleteObject"], [f"arn:aws:s3:::{paths[0]}/landing/_incoming/any"])
    yield Needed(["s3:ListBucket", "s3:GetBucketLocation"], [f"arn:aws:s3:::{paths[0].partition('/')[0]}"])
    if settings.storage_kms_key:
        yield Needed(["kms:Decrypt", "kms:GenerateDataKey"], [settings.storage_kms_key])


def _batch(settings: Settings, own: str) -> Iterator[Needed]:
    names = {"job-queue": "queue", "job-definition": "job_definition"}
    given = [
        (kind, getattr(settings, f"batch_{pool}_{name}")) for kind, name in names.items() for pool in ("gpu", "cpu")
    ]
    arns = [value if value.startswith("arn:") else f"arn:aws:batch:{own}:{kind}/{value}" for kind, value in given]
    yield Needed(["batch:SubmitJob"], arns)
    yield Needed(["batch:TagResource", "batch:TerminateJob"], [f"arn:aws:batch:{own}:job/any"])
    described = ("DescribeJobs", "DescribeJobQueues", "DescribeJobDefinitions", "ListJobs")
    yield Needed([f"batch:{name}" for name in described])


def _endpoints(settings: Settings, own: str) -> Iterator[Needed]:
    kinds = ("endpoint", "endpoint-config", "model")
    verbs = [
        f"{verb}{kind}" for verb in ("Create", "Delete", "Describe") for kind in ("Endpoint", "EndpointConfig", "Model")
    ]
    actions = [*verbs, "UpdateEndpoint", "InvokeEndpoint", "AddTags", "DeleteTags", "ListTags"]
    named = [f"arn:aws:sagemaker:{own}:{kind}/{settings.endpoint_prefix}-any" for kind in kinds]
    yield Needed([f"sagemaker:{action}" for action in actions], named)
    yield Needed(["sagemaker:ListModels", "sagemaker:ListEndpointConfigs"])
    yield Needed(["iam:PassRole"], [settings.endpoint_role], {"iam:PassedToService": "sagemaker.amazonaws.com"})
    yield Needed(["iam:GetRole"], [settings.endpoint_role])
    if not settings.endpoint_instance:
        return
    alarms = [f"arn:aws:cloudwatch:{own}:alarm:{settings.endpoint_prefix}-any"]
    yield Needed(["cloudwatch:DescribeAlarms", "cloudwatch:PutMetricAlarm"], alarms)
    scaled = ("DeregisterScalableTarget", "PutScalingPolicy", "RegisterScalableTarget")
    yield Needed(
        [f"application-autoscaling:{action}" for action in scaled],
        [f"arn:aws:application-autoscaling:{own}:scalable-target/any"],
        {"application-autoscaling:service-namespace": "sagemaker"},
    )


def _api(settings: Settings, own: str, region: str) -> Iterator[Needed]:
    """What CloudFormation does in our name for ``prediction_api``; the roles that it hands on are the platform's."""
    name = settings.api_stack
    sets = [f"{verb}ChangeSet" for verb in ("Create", "Delete", "Describe", "Execute")]
    stack = [f"arn:aws:cloudformation:{own}:stack/{name}/any"]
    yield Needed(
        [f"cloudformation:{each}" for each in (*sets, "DescribeStackEvents", "DescribeStacks", "TagResource")], stack
    )
    function = ("CreateFunction", "DeleteFunction", "GetFunction", "UpdateFunctionCode", "UpdateFunctionConfiguration")
    yield Needed(
        [f"lambda:{each}" for each in (*function, "AddPermission", "RemovePermission")],
        [f"arn:aws:lambda:{own}:function:{name}"],
    )
    rests = [f"arn:aws:apigateway:{region}::/restapis", f"arn:aws:apigateway:{region}::/restapis/any"]
    yield Needed([f"apigateway:{verb}" for verb in ("DELETE", "GET", "PATCH", "POST", "PUT")], rests)
    streams = ("CreateDeliveryStream", "DeleteDeliveryStream", "DescribeDeliveryStream", "UpdateDestination")
    yield Needed([f"firehose:{each}" for each in streams], [f"arn:aws:firehose:{own}:deliverystream/{name}-collect"])
    logs = [f"arn:aws:logs:{own}:log-group:/aws/lambda/{name}"]
    yield Needed([f"logs:{each}" for each in ("CreateLogGroup", "DeleteLogGroup", "PutRetentionPolicy")], logs)
