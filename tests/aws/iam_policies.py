"""Reads the roles of deploy/*.yaml as IAM would, and lints their policies: ``python iam_policies.py TEMPLATE ...``.

Two judges. cloudsplaining, as it stands, says what may escalate privileges, leak data or change infrastructure without
naming it. AWS's own list of actions, as policy_sentry has it, says of every action whether there is such a one and
which resources it may be given: ``*`` stands only where AWS offers nothing else.
"""

import fnmatch
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

ACCOUNT, REGION, STACK = "123456789012", "eu-west-1", "bigger-boat-platform"
STACK_ID = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{{}}/1"
PSEUDO = {
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::AccountId": ACCOUNT,
    "AWS::URLSuffix": "amazonaws.com",
}
GIVEN = {
    "GitHubRepository": "shop/boat",
    "TrackingKey": "true",
    "Operator": f"arn:aws:iam::{ACCOUNT}:role/team",
    "KmsKey": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1",
    "EndpointPrefix": "bigger-boat",
    "CodeBucket": "boat",
    "CodeKey": "code.zip",
    "LandingBucket": "boat",
    "LandingPrefix": "data/landing",
}
"""Parameters that bring every condition's policies to light."""

_REGIONAL = f"{REGION}:{ACCOUNT}"
ARNS = {
    "AWS::S3::Bucket": "arn:aws:s3:::{}",
    "AWS::IAM::Role": f"arn:aws:iam::{ACCOUNT}:role/{{}}",
    "AWS::IAM::InstanceProfile": f"arn:aws:iam::{ACCOUNT}:instance-profile/{{}}",
    "AWS::ECR::Repository": f"arn:aws:ecr:{_REGIONAL}:repository/{{}}",
    "AWS::Logs::LogGroup": f"arn:aws:logs:{_REGIONAL}:log-group:{{}}:*",
    "AWS::Batch::JobQueue": f"arn:aws:batch:{_REGIONAL}:job-queue/{{}}",
    "AWS::SNS::Topic": f"arn:aws:sns:{_REGIONAL}:{{}}",
    "AWS::SecretsManager::Secret": f"arn:aws:secretsmanager:{_REGIONAL}:secret:{{}}-AbCdEf",
    "AWS::IAM::ManagedPolicy": f"arn:aws:iam::{ACCOUNT}:policy/{{}}",
}
REF_IS_ARN = ("Batch::JobQueue", "SNS::Topic", "SecretsManager::Secret", "IAM::ManagedPolicy")
_NAMES = ("RepositoryName", "LogGroupName", "JobQueueName", "Name")
_NO_VALUE = object()
_UNLISTED = {"apigateway": "its REST APIs (/restapis) are not in the list, its HTTP APIs (/apis) are"}
"""Services whose resources the list lacks."""


@dataclass(frozen=True)
class Policy:
    """A policy: which ``role`` has it, or the managed policy's own name; resolved to ARNs."""

    role: str
    name: str
    document: dict[str, Any]

    def allowed(self) -> Iterator[dict[str, Any]]:
        """Yield the statements that allow, with lists of actions and resources."""
        for statement in self.document["Statement"]:
            if statement["Effect"] == "Allow":
                yield {**statement, "Action": _listed(statement["Action"]), "Resource": _listed(statement["Resource"])}


class Template:
    """A template with its functions resolved. ``names``: resources by their real names, where they are known."""

    def __init__(
        self,
        path: Path,
        given: Mapping[str, str] = GIVEN,
        names: Mapping[str, str] | None = None,
        stack: str = STACK,
    ):
        from cfnlint.decode import decode

        self.body, faults = decode(str(path))
        assert not faults, faults
        self.resources, self.names, self.stack = self.body["Resources"], names or {}, stack
        self.pseudo = {**PSEUDO, "AWS::StackName": stack, "AWS::StackId": STACK_ID.format(stack)}
        declared = self.body["Parameters"]
        self.parameters = {key: str(given.get(key, each.get("Default", ""))) for key, each in declared.items()}

    def policies(self) -> list[Policy]:
        """Return the policies of roles and managed policies that the parameters bring to light."""
        found = []
        for name, resource in self.resources.items():
            if not self._made(resource):
                continue
            properties = resource.get("Properties", {})
            if resource["Type"] == "AWS::IAM::Role":
                inline = self._resolve(properties.get("Policies", []))
                found += [Policy(name, each["PolicyName"], each["PolicyDocument"]) for each in inline]
            if resource["Type"] == "AWS::IAM::ManagedPolicy":
                found.append(Policy(name, name, self._resolve(properties["PolicyDocument"])))
        return found

    def roles(self) -> dict[str, dict[str, Any]]:
        """Return the roles' properties by name, resolved."""
        kinds = {name: each for name, each in self.resources.items() if each["Type"] == "AWS::IAM::Role"}
        return {name: self._resolve(each["Properties"]) for name, each in kinds.items() if self._made(each)}

    def policies_of(self, role: str) -> list[Policy]:
        """Return all policies of a role, its managed ones included."""
        managed = {self._ref(name): name for name, each in self.resources.items() if "ManagedPolicy" in each["Type"]}
        own = {managed[arn] for arn in self.roles()[role].get("ManagedPolicyArns", [])}
        for name in managed.values():
            listed = self._resolve(self.resources[name]["Properties"].get("Roles", []))
            own |= {name} if self._ref(role) in listed and self._made(self.resources[name]) else set()
        return [policy for policy in self.policies() if policy.role == role or policy.role in own]

    def _made(self, resource: Mapping[str, Any]) -> bool:
        return "Condition" not in resource or self._holds({"Condition": resource["Condition"]})

    def _resolve(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            if len(value) == 1 and (function := next(iter(value))) in _FUNCTIONS:
                return _FUNCTIONS[function](self, value[function])
            return {str(key): got for key, each in value.items() if (got := self._resolve(each)) is not _NO_VALUE}
        if isinstance(value, list):
            return [got for each in value if (got := self._resolve(each)) is not _NO_VALUE]
        return str(value) if isinstance(value, str) else value

    def _ref(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return _NO_VALUE
        if name in self.pseudo or name in self.parameters:
            return self.pseudo.get(name) or self.parameters[name]
        kind, physical = self.resources[name]["Type"], self._physical(name)
        return ARNS[kind].format(physical) if kind.endswith(REF_IS_ARN) and ":" not in physical else physical

    def _physical(self, name: str) -> str:
        properties = self.resources[name].get("Properties", {})
        named = next((properties[key] for key in _NAMES if key in properties), None)
        return self.names.get(name) or (self._resolve(named) if named else f"{self.stack}-{name.lower()}")

    def _attribute(self, of: Any) -> str:
        name, attribute = of if isinstance(of, list) else of.split(".")
        if attribute == "Arn":
            return ARNS[self.resources[name]["Type"]].format(self._physical(name))
        return f"{self._physical(name)}.{attribute}"

    def _substitute(self, text: Any) -> str:
        def one(found: re.Match[str]) -> str:
            key = found.group(1)
            return self._attribute(key) if "." in key else str(self._ref(key))

        return re.sub(r"\$\{([^!}]+)\}", one, str(text))

    def _choose(self, given: list[Any]) -> Any:
        condition, yes, no = given
        return self._resolve(yes if self._holds({"Condition": condition}) else no)

    def _holds(self, condition: Mapping[str, Any]) -> bool:
        [(kind, of)] = condition.items()
        if kind == "Condition":
            return self._holds(self.body["Conditions"][of])
        if kind == "Fn::Equals":
            left, right = (self._resolve(each) for each in of)
            return str(left) == str(right)
        if kind == "Fn::Not":
            return not self._holds(of[0])
        assert kind == "Fn::And", kind
        return all(self._holds(each) for each in of)


_FUNCTIONS = {
    "Ref": Template._ref,
    "Fn::GetAtt": Template._attribute,
    "Fn::Sub": Template._substitute,
    "Fn::If": Template._choose,
}


def faults_of(policy: Policy) -> list[str]:
    """Return what both judges say of a policy, nothing if it is right."""
    found = _said_by_cloudsplaining(policy)
    for statement in policy.allowed():
        if {"NotAction", "NotResource"} & set(statement):
            found.append("it allows what it does not name")
        for action in statement["Action"]:
            found += _faults_of_action(action, statement)
        for resource in statement["Resource"]:
            if resource != "*" and not any(_may_be_given(action, resource) for action in statement["Action"]):
                found.append(f"no action of its statement is about {resource}")
    return [f"{policy.role}, {policy.name}: {fault}" for fault in found]


def _faults_of_action(action: str, statement: Mapping[str, Any]) -> list[str]:
    if "*" in action:
        return [f"{action} is more than one action"]
    formats, resources = resource_formats(action), statement["Resource"]
    if not formats:
        return [f"AWS has no action {action}"]
    if "*" in resources:
        could = ", ".join(sorted(formats - {"*"})[:3])
        return [f"{action} could name its resource: {could}"] if could else []
    if not any(_may_be_given(action, resource) for resource in resources):
        return [f"{action} is given no resource that it is about"]
    if action == "iam:PassRole":
        condition = json.dumps(statement.get("Condition", {}))
        return [] if "iam:PassedToService" in condition else ["iam:PassRole does not say to which service"]
    return []


@lru_cache(maxsize=512)
def resource_formats(action: str) -> frozenset[str]:
    """Return the ARNs that an action may be given, as AWS writes them; ``*`` for none; nothing: there is no such."""
    from policy_sentry.querying.actions import get_action_data

    service, _, name = action.partition(":")
    known = get_action_data(service, name)
    return frozenset(each["resource_arn_format"] for each in known[service]) if known else frozenset()


def _may_be_given(action: str, resource: str) -> bool:
    if action.split(":")[0] in _UNLISTED:
        return f":{action.split(':')[0]}:" in resource
    return any(form != "*" and _meet(_pattern(form), resource) for form in resource_formats(action))


def _pattern(form: str) -> str:
    """Return a form as a pattern: ``*`` for what varies, ``#`` for what has neither slash nor colon in it."""
    return re.sub(r"\$\{[^}]+\}", "*", re.sub(r"\$\{(Partition|Region|Account|BucketName)\}", "#", form))


@lru_cache(maxsize=2**16)
def _meet(a: str, b: str) -> bool:
    """Whether some ARN is of both patterns."""
    if not a or not b:
        return not (a + b).strip("*#")
    for one, other in ((a, b), (b, a)):
        if one[0] in "*#":
            ends = _meet(one[1:], other)
            return ends or ((one[0] == "*" or other[0] not in "/:") and _meet(one, other[1:]))
    return (a[0] == b[0] or "?" in (a[0], b[0])) and _meet(a[1:], b[1:])


def _said_by_cloudsplaining(policy: Policy) -> list[str]:
    from cloudsplaining.scan.policy_document import PolicyDocument

    judged = PolicyDocument(policy.document)
    said = {
        "an escalation of privileges": judged.allows_privilege_escalation,
        "a whole service": judged.service_wildcard,
        "credentials": [each for each in judged.credentials_exposure if each not in _TOKENS],
        "writing without naming what": judged.write_actions_without_constraints,
        "permissions without naming whose": judged.permissions_management_without_constraints,
        "data without naming which": judged.allows_data_exfiltration_actions if _names_none(policy) else [],
    }
    return [
        f"cloudsplaining sees {what}: {each}" for what, found in said.items() for each in found if each not in _OPEN
    ]


_TOKENS = ("ecr:GetAuthorizationToken",)
"""It opens no more than the repositories that are named beside it."""
_OPEN = ("ecs:DiscoverPollEndpoint", "cloudwatch:PutMetricData")
"""Writing actions for which AWS has no resource to name; of the second, the namespace is named."""


def _names_none(policy: Policy) -> bool:
    return any("*" in statement["Resource"] for statement in policy.allowed())


def allows(policies: list[Policy], action: str, resource: str) -> bool:
    """Whether policies allow an action on a resource, conditions left aside; ``*``: any resource will do."""
    for policy in policies:
        for statement in policy.allowed():
            if action in statement["Action"] and (
                resource == "*" or any(fnmatch.fnmatchcase(resource, each) for each in statement["Resource"])
            ):
                return True
    return False


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


if __name__ == "__main__":
    linted = [policy for path in sys.argv[1:] for policy in Template(Path(path)).policies()]
    faults = [fault for policy in linted for fault in faults_of(policy)]
    print("\n".join(faults) or f"{len(linted)} policies: nothing to say")
    sys.exit(1 if faults else 0)
