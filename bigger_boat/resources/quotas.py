"""How much of the chosen machines the account may have: AWS's quotas, beside what the settings ask for.

What belongs elsewhere: showing what is too little (``doctor.py``).
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bigger_boat.data.vocabulary import ENDPOINTS
from bigger_boat.errors import CloudError
from bigger_boat.resources.aws import aws_client, aws_in_words
from bigger_boat.settings import Settings

SPOT_GPU_VCPUS = "L-3819A6DF"
"""EC2: All G and VT Spot Instance Requests."""
ON_DEMAND_VCPUS = "L-1216C47A"
"""EC2: Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances."""
SMALLEST_GPU_MACHINE, SMALLEST_CPU_MACHINE = 4, 2
"""vCPUs of ``g4dn.xlarge`` and ``m6i.large``: less than one machine runs nothing."""


@dataclass(frozen=True)
class Quota:
    """What AWS calls it, how much there is, and how much is asked for."""

    name: str
    has: float
    needs: float


def check_quotas(settings: Settings) -> str:
    """Return what there is in words. Raises CloudError with what is too little, and what to do."""
    found = list(_quotas(settings))
    little = [f"{each.name} is {each.has:g}, and {each.needs:g} are needed" for each in found if each.has < each.needs]
    if little:
        raise CloudError(f"{'; '.join(little)}.", "Ask Service Quotas for more, or choose other machines.")
    if not found:
        return "serverless endpoints, and steps that run here: none is needed"
    return "; ".join(f"{each.name} {each.has:g} ({each.needs:g} needed)" for each in found)


def _quotas(settings: Settings) -> Iterator[Quota]:
    if settings.remote_steps:
        yield _of_ec2(SPOT_GPU_VCPUS, SMALLEST_GPU_MACHINE)
        yield _of_ec2(ON_DEMAND_VCPUS, SMALLEST_CPU_MACHINE)
    if settings.endpoint_instance:
        most = max(settings.endpoint_instances, settings.endpoint_most_instances)
        beside = settings.endpoint_instances  # while an endpoint is updated, its new instances stand beside the old
        yield _of_sagemaker(f"{settings.endpoint_instance} for endpoint usage", len(ENDPOINTS) * most + beside)


def _of_ec2(code: str, needs: float) -> Quota:
    with aws_in_words(f"Quota {code} of EC2 cannot be looked at"):
        told = aws_client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]
    return Quota(f"{told['QuotaName']} (vCPUs)", told["Value"], needs)


def _of_sagemaker(name: str, needs: float) -> Quota:
    """Its codes differ by kind of machine: the name is looked for."""
    with aws_in_words("SageMaker's quotas cannot be looked at"):
        for page in aws_client("service-quotas").get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker"):
            for told in page["Quotas"]:
                if told["QuotaName"] == name:
                    return Quota(name, told["Value"], needs)
    raise CloudError(
        f"SageMaker has no quota named {name}.", "Is BIGGER_BOAT_ENDPOINT_INSTANCE a kind of machine that hosts models?"
    )
