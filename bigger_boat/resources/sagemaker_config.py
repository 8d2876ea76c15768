"""What a SageMaker endpoint runs on, and what its configurations and updates say of it, in SageMaker's shapes.

Belongs here: variants, data capture, blue/green. What belongs elsewhere: asking SageMaker (``sagemaker_endpoint.py``).
"""

import math
from dataclasses import dataclass
from typing import Any

import dagster as dg
from pydantic import Field

VARIANT, CHALLENGER_VARIANT, SHADOW_VARIANT = "AllTraffic", "Challenger", "Shadow"
"""Of an endpoint: what serves; what answers a share of the requests beside it; what is asked unseen."""
SHARE_DIGITS = 4
"""Weights are single floats at SageMaker: what is read back is the share that was asked for, to so many digits."""
CAPTURED = "captured"
"""Below the storage's root: what SageMaker captures, by endpoint, variant and hour."""


class EndpointShape(dg.Config):
    """What a version runs on. With ``instance_type`` "" it is serverless."""

    instance_type: str = Field("", description="such as ml.m5.large; empty: serverless")
    instances: int = Field(1, ge=1, description="instances at first, and at least")
    most_instances: int = Field(
        1, ge=1, description="instances that autoscaling may start; the same number: no scaling"
    )
    invocations_per_instance: int = Field(1000, ge=1, description="requests a minute that one instance should take")
    memory_mb: int = Field(3072, description="serverless: memory, 1024 to 6144 in steps of 1024")
    concurrency: int = Field(5, ge=1, le=200, description="serverless: requests answered at once")
    canary_percent: int = Field(
        10, ge=0, le=50, description="instances that take a new version first, if there are several; 0: all"
    )
    bake_s: int = Field(300, ge=0, le=3600, description="how long the alarms are watched before the rest follows, in s")
    capture_percent: int = Field(0, ge=0, le=100, description="requests and answers that are kept on S3, in %")
    capture_root: str = Field("", description="s3://bucket/path for them")
    start_timeout_s: int = Field(600, ge=60, le=3600, description="longest time until a container answers, in s")


@dataclass(frozen=True)
class Rival:
    """A version beside the one that serves: it answers a ``share`` of the requests, or is asked all unseen."""

    version: str
    share: float
    shadow: bool = False


def variants(shape: EndpointShape, model: str, rival: Rival | None, rival_model: str) -> dict[str, Any]:
    """Return the variants of a configuration: what serves, and beside it a rival's.

    The rival of a share runs on a part of the instances that is as large, a shadow on as many as what serves.
    """
    serves = _variant(shape, VARIANT, model, 1.0 - (rival.share if rival and not rival.shadow else 0), shape.instances)
    if rival is None:
        return {"production_variants": [serves]}
    if rival.shadow:
        shadow = _variant(shape, SHADOW_VARIANT, rival_model, 1.0, shape.instances)
        return {"production_variants": [serves], "shadow_production_variants": [shadow]}
    instances = math.ceil(shape.instances * rival.share)
    challenger = _variant(shape, CHALLENGER_VARIANT, rival_model, rival.share, instances)
    return {"production_variants": [serves, challenger]}


def variants_of(config: Any) -> tuple[list[Any], list[Any]]:
    """Return the production and the shadow variants of a configuration of sagemaker.core."""
    shadows = config.shadow_production_variants
    return list(config.production_variants), list(shadows) if isinstance(shadows, list) else []


def capture(shape: EndpointShape) -> dict[str, Any]:
    """Return what a configuration says of data capture; nothing where nothing is captured."""
    from sagemaker.core.shapes import CaptureContentTypeHeader, CaptureOption, DataCaptureConfig

    if not (shape.instance_type and shape.capture_percent):
        return {}
    config = DataCaptureConfig(
        enable_capture=True,
        initial_sampling_percentage=shape.capture_percent,
        destination_s3_uri=shape.capture_root,
        capture_options=[CaptureOption(capture_mode="Input"), CaptureOption(capture_mode="Output")],
        capture_content_type_header=CaptureContentTypeHeader(json_content_types=["application/json"]),
    )
    return {"data_capture_config": config}


def update(shape: EndpointShape, alarms: list[str], *, same_variants: bool) -> dict[str, Any]:
    """Return how an endpoint is brought to another configuration.

    Instances that autoscaling has started stay; weights are the configuration's. SageMaker watches no update, and
    slows none, whose variants have other names than before.
    """
    from sagemaker.core.shapes import VariantProperty

    if not shape.instance_type:
        return {}
    kept: dict[str, Any] = {"retain_all_variant_properties": shape.most_instances > shape.instances}
    if kept["retain_all_variant_properties"]:
        kept["exclude_retained_variant_properties"] = [VariantProperty(variant_property_type="DesiredWeight")]
    return {**kept, **({"deployment_config": _deployment(shape, alarms)} if same_variants else {})}


def _variant(shape: EndpointShape, name: str, model: str, weight: float, instances: int) -> Any:
    from sagemaker.core.shapes import ProductionVariant, ProductionVariantServerlessConfig

    if not shape.instance_type:
        serverless = ProductionVariantServerlessConfig(
            memory_size_in_mb=shape.memory_mb, max_concurrency=shape.concurrency
        )
        return ProductionVariant(variant_name=name, model_name=model, serverless_config=serverless)
    return ProductionVariant(
        variant_name=name,
        model_name=model,
        instance_type=shape.instance_type,
        initial_instance_count=instances,
        initial_variant_weight=weight,
        container_startup_health_check_timeout_in_seconds=shape.start_timeout_s,
    )


def _deployment(shape: EndpointShape, alarms: list[str]) -> Any:
    """Blue/green: a new fleet beside the old one; traffic moves while alarms are quiet, and back if one is not."""
    from sagemaker.core import shapes

    canary = shape.canary_percent if alarms and shape.instances > 1 else 0  # one cannot be split
    size = {"canary_size": shapes.CapacitySize(type="CAPACITY_PERCENT", value=canary)} if canary else {}
    routing = shapes.TrafficRoutingConfig(
        type="CANARY" if canary else "ALL_AT_ONCE",
        wait_interval_in_seconds=max(1, shape.bake_s if alarms else 0),  # sagemaker-core 2.27 sends no 0
        **size,
    )
    longest_s = max(600, 2 * shape.start_timeout_s + 2 * shape.bake_s)  # after which SageMaker itself goes back
    policy = shapes.BlueGreenUpdatePolicy(
        traffic_routing_configuration=routing, maximum_execution_timeout_in_seconds=longest_s
    )
    if not alarms:
        return shapes.DeploymentConfig(blue_green_update_policy=policy)
    rollback = shapes.AutoRollbackConfig(alarms=[shapes.Alarm(alarm_name=name) for name in alarms])
    return shapes.DeploymentConfig(blue_green_update_policy=policy, auto_rollback_configuration=rollback)
