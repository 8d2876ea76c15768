"""The platform's stack in the stand-in: the settings that it makes, and its roles with the resources' real names."""

from collections.abc import Mapping

from batch_stand_in import REPOSITORY, StandIn
from iam_policies import Template
from recorded_calls import Need, missing

from bigger_boat.resources.platform import platform_stack, settings_lines, update_platform
from bigger_boat.resources.stacks import Stack
from bigger_boat.settings import Settings


class MadePlatform:
    """The stack ``stack``, for endpoints whose names begin with ``prefix``; ``given``: parameters of the template."""

    def __init__(self, aws: StandIn, stack: str, prefix: str, given: Mapping[str, str]):
        made = Settings(_env_file=None, platform_stack=stack, endpoint_prefix=prefix, api_stack=f"{prefix}-api")
        update_platform(made, platform_stack(made, print), given, lambda changes: bool(changes))
        self.outputs = Stack(stack, print).outputs()
        self.lines = list(settings_lines(self.outputs))
        physical = aws.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
        names = {
            each["LogicalResourceId"]: each["PhysicalResourceId"] for each in physical if "PhysicalResourceId" in each
        }
        names |= {"GpuQueue": self.outputs["BatchGpuQueue"], "CpuQueue": self.outputs["BatchCpuQueue"]}
        told = {**given, "EndpointPrefix": prefix, "ApiStack": made.api_stack}
        self.template = Template(REPOSITORY / "deploy" / "platform.yaml", told, names, stack)
        for role in ("EndpointRole", "FunctionRole", "JobRole"):
            assert self.outputs[role].endswith(self.template._physical(role))

    def missing(self, role: str, needs: set[Need]) -> list[Need]:
        """Return what a role may not do of this."""
        return missing(needs, self.template.policies_of(role))
