"""The roles of deploy/*.yaml: least privilege, as two judges and AWS's own list of actions see it."""

import json
import re
from pathlib import Path

import pytest
from iam_policies import GIVEN, Policy, Template, faults_of

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
MOST_INLINE, MOST_MANAGED, MOST_TEMPLATE = 10_240, 6_144, 51_200
"""Characters without blanks that IAM takes of a role's own policies, and of a managed one; CloudFormation's bytes."""

ROLES = {"OrchestratorRole", "JobRole", "StartRole", "InstanceRole", "EndpointRole", "FunctionRole", "CollectRole"}
ROLES |= {"StreamRole", "BuildRole", "GitHubPreviewRole", "GitHubRole"}


@pytest.fixture(scope="module")
def platform() -> Template:
    return Template(DEPLOY / "platform.yaml")


@pytest.mark.parametrize("name", ["platform.yaml", "api.yaml", "team.yaml"])
def test_the_linter_has_nothing_to_say(name):
    policies = Template(DEPLOY / name).policies()
    assert policies
    assert not [fault for policy in policies for fault in faults_of(policy)]


@pytest.mark.parametrize(
    ("action", "resource", "condition", "fault"),
    [
        ("s3:*", "arn:aws:s3:::boat/*", {}, "s3:* is more than one action"),
        ("*", "*", {}, "more than one action"),
        ("s3:GetObject", "*", {}, "s3:GetObject could name its resource"),
        ("sagemaker:CreateModel", "*", {}, "cloudsplaining sees writing without naming what: sagemaker:CreateModel"),
        ("s3:ListBucket", "arn:aws:s3:::boat/data/*", {}, "s3:ListBucket is given no resource that it is about"),
        ("batch:SubmitJobs", "*", {}, "AWS has no action batch:SubmitJobs"),
        ("iam:PassRole", "arn:aws:iam::123456789012:role/x", {}, "does not say to which service"),
        ("iam:PassRole", "*", {"StringEquals": {"iam:PassedToService": "x"}}, "iam:PassRole could name its resource"),
        ("iam:CreateAccessKey", "arn:aws:iam::123456789012:role/x", {}, "given no resource that it is about"),
    ],
)
def test_what_is_planted_is_caught(action, resource, condition, fault):
    statement = {"Effect": "Allow", "Action": action, "Resource": resource, "Condition": condition}
    planted = Policy("Planted", "planted", {"Version": "2012-10-17", "Statement": [statement]})
    assert any(fault in said for said in faults_of(planted)), faults_of(planted)


def test_there_is_a_role_for_each_who_acts(platform):
    assert set(platform.roles()) == ROLES
    without = {**GIVEN, "GitHubRepository": "", "TrackingKey": "false", "KmsKey": "", "Operator": ""}
    plain = Template(DEPLOY / "platform.yaml", without)
    assert set(plain.roles()) == ROLES - {"GitHubPreviewRole", "GitHubRole"}
    assert "KmsPolicy" not in {policy.role for policy in plain.policies()}
    assert not Template(DEPLOY / "api.yaml", {**GIVEN, "FunctionRoleArn": "arn:aws:iam::1:role/x"}).roles()


def test_the_api_needs_no_more_of_its_own_roles_than_of_the_platform_s(platform):
    """The same three roles, made by either stack, may do the same; only the stacks' own names differ."""

    def of(template: Template, name: str) -> list:
        [policy] = [policy for policy in template.policies() if policy.role == name]
        text = json.dumps(policy.document).replace("bigger-boat-platform-bucket", "boat")
        return json.loads(re.sub("bigger-boat-(platform|api)", "NAME", text))

    api = Template(DEPLOY / "api.yaml")
    for name in ("FunctionRole", "CollectRole", "StreamRole"):
        assert of(api, name) == of(platform, name)


def test_roles_are_assumed_by_services_of_this_account_and_by_who_is_named(platform):
    trusted = {
        name: [statement["Principal"] for statement in role["AssumeRolePolicyDocument"]["Statement"]]
        for name, role in platform.roles().items()
    }
    people = [each for each in trusted["OrchestratorRole"] if "AWS" in each]
    assert people == [{"AWS": GIVEN["Operator"]}]
    services = [each["Service"] for found in trusted.values() for each in found if "Service" in each]
    assert all(service.endswith(".amazonaws.com") for service in services)
    assert "*" not in json.dumps(trusted)


@pytest.mark.parametrize(("role", "environment"), [("GitHubPreviewRole", "preview"), ("GitHubRole", "production")])
def test_one_environment_of_one_repository_has_the_role(platform, role, environment):
    [statement] = platform.roles()[role]["AssumeRolePolicyDocument"]["Statement"]
    issuer = "token.actions.githubusercontent.com"
    assert statement["Principal"]["Federated"].endswith(f"oidc-provider/{issuer}")
    assert statement["Condition"]["StringEquals"] == {
        f"{issuer}:aud": "sts.amazonaws.com",
        f"{issuer}:sub": f"repo:shop/boat:environment:{environment}",
    }


def test_before_anybody_has_approved_nothing_can_be_changed(platform):
    may = {
        action for p in platform.policies_of("GitHubPreviewRole") for each in p.allowed() for action in each["Action"]
    }
    assert "cloudformation:CreateChangeSet" in may
    assert not {each for each in may if re.match("(iam|lambda|batch|sagemaker|apigateway|firehose):", each)}
    assert "cloudformation:ExecuteChangeSet" not in may


def test_nobody_who_deploys_may_change_a_role(platform):
    written = {
        action
        for role in ("GitHubRole", "OrchestratorRole")
        for policy in platform.policies_of(role)
        for statement in policy.allowed()
        for action in statement["Action"]
        if action.startswith("iam:")
    }
    reads = {"iam:GetRole", "iam:SimulatePrincipalPolicy"}
    assert written - reads == {"iam:PassRole", "iam:CreateServiceLinkedRole"}


def test_roles_are_passed_to_those_services_only_that_may_assume_them(platform):
    trust = {
        f"arn:aws:iam::123456789012:role/bigger-boat-platform-{name.lower()}": json.dumps(
            role["AssumeRolePolicyDocument"]
        )
        for name, role in platform.roles().items()
    }
    passing = [each for policy in platform.policies() for each in policy.allowed() if "iam:PassRole" in each["Action"]]
    assert len(passing) == 3
    for statement in passing:
        said = statement["Condition"]["StringEquals"]["iam:PassedToService"]
        services = [said] if isinstance(said, str) else said
        for arn in statement["Resource"]:
            assert any(service in trust[arn] for service in services)


def test_nothing_may_be_deleted_but_what_firehose_wrote(platform):
    may_delete = {
        (policy.role, resource)
        for policy in platform.policies()
        for statement in policy.allowed()
        if any(action.startswith("s3:Delete") for action in statement["Action"])
        for resource in statement["Resource"]
    }
    assert may_delete == {("OrchestratorRole", "arn:aws:s3:::bigger-boat-platform-bucket/data/landing/_incoming/*")}


def test_policies_and_template_are_not_too_long(platform):
    def length(document: dict) -> int:
        return len(re.sub(r"\s", "", json.dumps(document)))

    policies = platform.policies()
    managed = {policy.role: length(policy.document) for policy in policies if policy.role == policy.name}
    assert set(managed) == {"EndpointPolicy", "ApiPolicy", "KmsPolicy"}
    assert max(managed.values()) <= MOST_MANAGED
    for role in platform.roles():
        assert sum(length(policy.document) for policy in policies if policy.role == role) <= MOST_INLINE
    assert (DEPLOY / "platform.yaml").stat().st_size <= MOST_TEMPLATE


def test_the_bucket_is_private_encrypted_and_asked_over_tls_only(platform):
    bucket = platform._resolve(platform.resources["Bucket"]["Properties"])
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    [encryption] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption["ServerSideEncryptionByDefault"]["KMSMasterKeyID"] == GIVEN["KmsKey"]
    prefixes = [rule.get("Prefix", "") for rule in bucket["LifecycleConfiguration"]["Rules"]]
    assert prefixes == ["", "steps/", "source/", "compute-logs/", "data/captured/"]  # no data set, no bundle expires
    unfinished = bucket["LifecycleConfiguration"]["Rules"][0]
    assert set(unfinished) == {"Id", "Status", "AbortIncompleteMultipartUpload"}
    [statement] = platform.resources["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Effect"] == "Deny"
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
