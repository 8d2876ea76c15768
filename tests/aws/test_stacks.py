"""Stacks that do not become what they should: what is said, and what to do. boto3's own stubs check each answer."""

from datetime import UTC, datetime

import boto3
import pytest
from botocore.stub import ANY, Stubber

from bigger_boat.errors import CloudError
from bigger_boat.resources.stacks import Stack

NAME = "boat-api"
CHANGE_SET = "arn:aws:cloudformation:eu-west-1:123456789012:changeSet/boat/1"
NOW = datetime(2100, 1, 1, tzinfo=UTC)  # after the update began, whenever that is
THEN = datetime(2020, 1, 1, tzinfo=UTC)


class Cloud:
    """CloudFormation's answers, in the order in which they are asked for."""

    def __init__(self):
        keys = {"aws_access_key_id": "made-up", "aws_secret_access_key": "made-up"}
        self.client = boto3.client("cloudformation", region_name="eu-west-1", **keys)
        self.stub = Stubber(self.client)
        self.told: list[str] = []

    def is_in(self, *statuses: str) -> None:
        for status in statuses:
            stack = {"StackName": NAME, "CreationTime": NOW, "StackStatus": status}
            self.stub.add_response("describe_stacks", {"Stacks": [stack]}, {"StackName": NAME})

    def is_not_there(self) -> None:
        said = f"Stack with id {NAME} does not exist"
        self.stub.add_client_error("describe_stacks", "ValidationError", said, 400)

    def takes_the_change(self, kind: str) -> None:
        made = {"Id": CHANGE_SET}
        self.stub.add_response("create_change_set", made, {**dict.fromkeys(PROPOSED, ANY), "ChangeSetType": kind})
        change = {"Action": "Add", "LogicalResourceId": "Api", "ResourceType": "AWS::ApiGateway::RestApi"}
        ready = {"Status": "CREATE_COMPLETE", "Changes": [{"Type": "Resource", "ResourceChange": change}]}
        which = {"ChangeSetName": CHANGE_SET, "StackName": NAME}
        self.stub.add_response("describe_change_set", {**ready, "ChangeSetId": CHANGE_SET}, which)
        self.stub.add_response("execute_change_set", {}, which)

    def has_events(self, *pages: list[dict]) -> None:
        for number, page in enumerate(pages):
            said = {"StackEvents": page, **({"NextToken": str(number + 1)} if number + 1 < len(pages) else {})}
            asked = {"StackName": NAME, **({"NextToken": str(number)} if number else {})}
            self.stub.add_response("describe_stack_events", said, asked)

    def refuses(self) -> CloudError:
        """Update a stack, which must fail; every answer must have been asked for."""
        stack = Stack(NAME, self.told.append, poll_s=0.0, client=self.client)
        with self.stub, pytest.raises(CloudError) as caught:
            stack.update("Resources: {}", {"A": "1"})
        self.stub.assert_no_pending_responses()
        return caught.value


PROPOSED = ("StackName", "ChangeSetName", "ChangeSetType", "TemplateBody", "Parameters", "Capabilities", "Tags")


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


def event(resource: str, status: str, reason: str = "", at: datetime = NOW) -> dict:
    said = {"StackId": "x", "EventId": f"{resource}-{status}", "StackName": NAME, "Timestamp": at}
    return {**said, "LogicalResourceId": resource, "ResourceStatus": status, "ResourceStatusReason": reason}


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED"])
def test_a_stack_that_was_never_whole_is_deleted_and_made_again(cloud, status):
    cloud.is_in(status)
    error = cloud.refuses()
    assert f"is {status}" in error.message
    assert f"delete-stack --stack-name {NAME}" in error.hint


def test_a_stack_that_serves_and_is_stuck_is_never_to_be_deleted(cloud):
    cloud.is_in("UPDATE_ROLLBACK_FAILED")
    error = cloud.refuses()
    assert f"continue-update-rollback --stack-name {NAME}" in error.hint
    assert "delete" not in error.hint


def test_a_first_creation_that_fails_says_that_nothing_is_there_to_update(cloud):
    cloud.is_not_there()
    cloud.takes_the_change("CREATE")
    cloud.is_in("CREATE_IN_PROGRESS", "ROLLBACK_COMPLETE")
    cloud.has_events([event("Api", "CREATE_FAILED", "You may not make this.")])
    error = cloud.refuses()
    assert error.message.endswith("(ROLLBACK_COMPLETE): Api: You may not make this.")
    assert f"delete-stack --stack-name {NAME}" in error.hint
    assert "went back" not in error.hint
    assert cloud.told == [f"Stack {NAME} will add Api, AWS::ApiGateway::RestApi", f"Stack {NAME} is CREATE_IN_PROGRESS"]


@pytest.mark.parametrize(
    ("status", "to_do"),
    [
        ("UPDATE_ROLLBACK_COMPLETE", "went back to what was there before"),
        ("UPDATE_ROLLBACK_FAILED", "continue-update-rollback"),
    ],
)
def test_an_update_that_fails_says_whether_it_is_back(cloud, status, to_do):
    cloud.is_in("UPDATE_COMPLETE")
    cloud.takes_the_change("UPDATE")
    cloud.is_in(status)
    cloud.has_events([event("Stage", "UPDATE_FAILED", "No.")])
    assert to_do in cloud.refuses().hint


def test_the_first_fault_of_this_update_is_found_however_long_ago_in_its_events(cloud):
    """CloudFormation gives the newest first, a page at a time; those of earlier updates do not count."""
    cloud.is_in("UPDATE_COMPLETE")
    cloud.takes_the_change("UPDATE")
    cloud.is_in("UPDATE_ROLLBACK_COMPLETE")
    cloud.has_events(
        [event("Api", "UPDATE_COMPLETE"), event("Method", "UPDATE_FAILED", "cancelled")],
        [event("Stage", "UPDATE_FAILED", "cancelled"), event("Function", "UPDATE_FAILED", "The zip is not there.")],
        [event("Plan", "UPDATE_FAILED", "That was long ago.", THEN), event("Key", "CREATE_FAILED", "Too.", THEN)],
    )
    assert cloud.refuses().message.endswith("Function: The zip is not there.")
