"""CloudFormation stacks: brought up to date by a change set, whose changes are told before they are made.

What belongs elsewhere: what is in a stack (``deploy/``), its parameters (``gateway_api.py``).
"""

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bigger_boat.errors import CloudError
from bigger_boat.resources.aws import aws_client, aws_in_words

DEPLOYMENT = "ApiDeployment"
"""A resource whose name is made new with each change: API Gateway's deployments are snapshots."""

_NOTHING = ("didn't contain changes", "No updates are to be performed")
_NEVER_MADE = ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED")
"""Of a stack that no update can help: it was never there as a whole, or is half gone."""
_STUCK = "UPDATE_ROLLBACK_FAILED"
"""Of a stack that was there before, and serves: it is brought back, never deleted."""

_CLOCKS_DIFFER_S = 5


@dataclass
class Stack:
    """A stack by its name. ``tell`` gets a line per change, and as the stack goes on."""

    name: str
    tell: Callable[[str], None]
    poll_s: float = 3.0
    timeout_s: float = 1800.0
    client: Any = field(default_factory=lambda: aws_client("cloudformation"))

    def status(self) -> str:
        """Return its status now, "" where there is no stack."""
        return (self._describe() or {}).get("StackStatus", "")

    def outputs(self) -> dict[str, str]:
        """Return what the stack says of itself; nothing where there is none."""
        described = self._describe()
        return {each["OutputKey"]: each["OutputValue"] for each in (described or {}).get("Outputs", [])}

    def parameters_for(self, template: str) -> dict[str, str]:
        """Return the parameters that it has now, as far as ``template`` still takes them."""
        now = (self._describe() or {}).get("Parameters", [])
        known = _declared(template)
        return {each["ParameterKey"]: each["ParameterValue"] for each in now if each["ParameterKey"] in known}

    def update(
        self,
        template: str,
        parameters: Mapping[str, str],
        agree: Callable[[list[str]], bool] = lambda changes: True,  # noqa: ARG005
    ) -> list[str]:
        """Create or update it if ``agree`` does to the changes; return those that were made.

        Raises CloudError with what failed.
        A kill leaves a change set that was not made, or a stack that CloudFormation brings to its end; the next update
        waits for that.
        """
        status = self._settled()
        if status in (*_NEVER_MADE, _STUCK):
            text = f"Stack {self.name} is {status}: CloudFormation updates no such stack."
            raise CloudError(text, self._way_out(status))
        body = template.replace(DEPLOYMENT, DEPLOYMENT + _digest(template, parameters))
        is_new = status in ("", "REVIEW_IN_PROGRESS")
        change_set = self._propose(body, parameters, "CREATE" if is_new else "UPDATE")
        if change_set is None:
            return []
        changes = [_words(each["ResourceChange"]) for each in change_set["Changes"]]
        for change in changes:
            self.tell(f"Stack {self.name} will {change}")
        if not agree(changes):
            self._decline(change_set["ChangeSetId"], is_new)
            return []
        since = time.time()
        with self._named("its change set cannot be made"):
            self.client.execute_change_set(ChangeSetName=change_set["ChangeSetId"], StackName=self.name)
        status = self._settled()
        if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            raise CloudError(
                f"Stack {self.name} could not be brought up to date ({status or 'gone'}): {self._first_fault(since)}",
                self._way_out(status),
            )
        return changes

    def _way_out(self, status: str) -> str:
        """Return what to do about a stack that failed."""
        if status in _NEVER_MADE:
            delete = f"aws cloudformation delete-stack --stack-name {self.name}"
            return f"Correct it, delete the stack ({delete}), and run again."
        if status == _STUCK:
            return (
                "Correct what its events name, let CloudFormation go on back "
                f"(aws cloudformation continue-update-rollback --stack-name {self.name}), and run again."
            )
        return "CloudFormation went back to what was there before. Correct it and run again."

    def delete(self) -> bool:
        """Delete it, with all that it made and does not retain; return whether there was one."""
        if not self._settled():
            return False
        since = time.time()
        with self._named("it cannot be deleted"):
            self.client.delete_stack(StackName=self.name)
        if status := self._settled():
            text = f"Stack {self.name} could not be deleted ({status}): {self._first_fault(since)}"
            raise CloudError(text, "Correct that, and run again: what is gone stays gone.")
        return True

    def _decline(self, change_set: str, is_new: bool) -> None:
        """Leave no trace of a change set that is not made; that of a new stack goes with the empty stack."""
        with self._named("its change set cannot be declined"):
            if is_new:
                self.client.delete_stack(StackName=self.name)
            else:
                self.client.delete_change_set(ChangeSetName=change_set, StackName=self.name)

    def _propose(self, body: str, parameters: Mapping[str, str], kind: str) -> dict[str, Any] | None:
        """Return a change set that is ready, None where nothing would change."""
        given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
        with self._named("a change set cannot be proposed"):
            proposed = self.client.create_change_set(
                StackName=self.name,
                ChangeSetName=f"bigger-boat-{uuid.uuid4().hex[:12]}",
                ChangeSetType=kind,
                TemplateBody=body,
                Parameters=given,
                Capabilities=["CAPABILITY_IAM"],
                Tags=[{"Key": "app", "Value": "bigger-boat"}],
            )
        while True:
            with self._named("its change set cannot be looked at"):
                found = self._pages(proposed["Id"])
            if found["Status"] == "CREATE_COMPLETE" and found["Changes"]:
                return found
            if found["Status"] in ("CREATE_COMPLETE", "FAILED"):
                break
            time.sleep(self.poll_s)
        with self._named("an empty change set cannot be deleted"):
            self.client.delete_change_set(ChangeSetName=proposed["Id"], StackName=self.name)
        reason = found.get("StatusReason", "")
        if found["Status"] == "FAILED" and not any(words in reason for words in _NOTHING):
            raise CloudError(f"Stack {self.name}: CloudFormation refuses the change: {reason}", "Correct the template.")
        return None

    def _pages(self, change_set: str) -> dict[str, Any]:
        found = self.client.describe_change_set(ChangeSetName=change_set, StackName=self.name)
        changes, token = found.get("Changes", []), found.get("NextToken")
        while token:
            more = self.client.describe_change_set(ChangeSetName=change_set, StackName=self.name, NextToken=token)
            changes, token = changes + more["Changes"], more.get("NextToken")
        return {**found, "Changes": changes}

    def _settled(self) -> str:
        """Wait until nothing is on its way; return its status, "" where there is no stack."""
        began, known = time.monotonic(), ""
        while True:
            status = self.status()
            if not status.endswith("_IN_PROGRESS") or status == "REVIEW_IN_PROGRESS":
                return "" if status == "DELETE_COMPLETE" else status
            if status != known:
                self.tell(f"Stack {self.name} is {status}")
                known = status
            if time.monotonic() - began > self.timeout_s:
                raise CloudError(
                    f"Stack {self.name} is still {status} after {self.timeout_s:.0f} s.", "Run again later."
                )
            time.sleep(self.poll_s)

    def _describe(self) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        with self._named("it cannot be looked at"):
            try:
                return self.client.describe_stacks(StackName=self.name)["Stacks"][0]
            except ClientError as error:
                if error.response["Error"]["Code"] == "ValidationError":  # its way to say that there is none
                    return None
                raise

    def _first_fault(self, since: float) -> str:
        faults = [
            f"{each['LogicalResourceId']}: {each.get('ResourceStatusReason', 'no reason')}"
            for each in self._events(since)
            if each.get("ResourceStatus", "").endswith("_FAILED")
        ]
        return faults[-1] if faults else "its events name no fault"

    def _events(self, since: float) -> Iterator[dict[str, Any]]:
        """Yield its events from a time on, newest first, as CloudFormation gives them."""
        with self._named("its events cannot be read"):
            for page in self.client.get_paginator("describe_stack_events").paginate(StackName=self.name):
                for event in page["StackEvents"]:
                    if event["Timestamp"].timestamp() < since - _CLOCKS_DIFFER_S:
                        return
                    yield event

    def _named(self, what: str) -> Any:
        return aws_in_words(f"Stack {self.name}: {what}")


def _digest(template: str, parameters: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps([template, dict(parameters)], sort_keys=True).encode()).hexdigest()[:10]


def _declared(template: str) -> set[str]:
    """Return the names of a template's parameters; its functions (``!Ref``) are none of YAML's own."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: None)  # noqa: ARG005
    return set(yaml.load(template, Loader).get("Parameters", {}))


def _words(change: Mapping[str, Any]) -> str:
    """Return a change as words: what, which, and whether it is made anew."""
    anew = " (made anew)" if change.get("Replacement") == "True" else ""
    return f"{change['Action'].lower()} {change['LogicalResourceId']}, {change['ResourceType']}{anew}"
