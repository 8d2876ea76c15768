"""What runs at AWS now and bills by the hour: endpoints and jobs, and what they cost by the table (``prices.py``)."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from bigger_boat.data.vocabulary import ENDPOINTS
from bigger_boat.resources.aws import aws_client, aws_in_words
from bigger_boat.resources.prices import AS_OF, JOB_USD_PER_HOUR, endpoint_usd_per_hour
from bigger_boat.resources.sagemaker_endpoint import endpoint_name
from bigger_boat.settings import Settings

_ON_MACHINES = ("STARTING", "RUNNING")


@dataclass(frozen=True)
class Running:
    """A thing that runs; ``usd_per_hour``: None where its price is not known."""

    what: str
    usd_per_hour: float | None


def running(settings: Settings) -> list[Running]:
    """Return what runs. Raises CloudError where AWS does not say."""
    return [*_endpoints(settings.endpoint_prefix), *(_jobs(settings) if settings.remote_steps else ())]


def sentence(found: list[Running]) -> str:
    """Return in words what runs and costs."""
    known = sum(each.usd_per_hour for each in found if each.usd_per_hour is not None)
    listed = ", ".join(f"{each.what} {_price(each.usd_per_hour)}" for each in found) or "nothing runs"
    return f"about {known:.2f} USD an hour now: {listed} (prices of {AS_OF:%d %B %Y}, docs/aws.md)"


def _price(usd: float | None) -> str:
    return "at a price that is not known" if usd is None else f"{usd:.2f}"


def _endpoints(prefix: str) -> Iterator[Running]:
    sagemaker = aws_client("sagemaker")
    for name in (endpoint_name(prefix, name) for name in ENDPOINTS):
        with aws_in_words(f"Endpoint {name} cannot be looked at"):
            try:
                endpoint = sagemaker.describe_endpoint(EndpointName=name)
            except sagemaker.exceptions.ClientError as error:
                if error.response["Error"]["Code"] in ("ValidationException", "ResourceNotFound"):
                    continue  # SageMaker's ways to say that there is none
                raise
            config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
        now = [*endpoint.get("ProductionVariants", []), *endpoint.get("ShadowProductionVariants", [])]
        counts = {each["VariantName"]: each.get("CurrentInstanceCount") for each in now}
        for variant in [*config["ProductionVariants"], *config.get("ShadowProductionVariants", [])]:
            kind = variant.get("InstanceType", "")
            count = counts.get(variant["VariantName"]) or variant.get("InitialInstanceCount", 1)
            what = f"{name} on {count} {kind}" if kind else f"{name}, serverless,"
            yield Running(what, endpoint_usd_per_hour(kind, count))


def _jobs(settings: Settings) -> Iterator[Running]:
    for kind, price in JOB_USD_PER_HOUR.items():
        if count := _on_machines(getattr(settings, f"batch_{kind}_queue")):
            yield Running(f"{count} {kind.upper()} job{'s' * (count > 1)}", count * price)


def _on_machines(queue: str) -> int:
    """Return how many jobs of a queue have a machine; 0 where there is no such queue, which another line tells."""
    batch, count = aws_client("batch"), 0
    with aws_in_words(f"The jobs of {queue} cannot be listed"), suppress(batch.exceptions.ClientException):
        for status in _ON_MACHINES:
            for page in batch.get_paginator("list_jobs").paginate(jobQueue=queue, jobStatus=status):
                count += len(page["jobSummaryList"])
    return count
