"""What watches a SageMaker endpoint: alarms that end a bad update, and autoscaling. Each call may be repeated.

What belongs elsewhere: the endpoint itself (``sagemaker_endpoint.py``).
"""

from bigger_boat.resources.aws import aws_client, aws_in_words
from bigger_boat.resources.sagemaker_config import VARIANT, EndpointShape

ERRORS_A_MINUTE = 5
LATENCY_US = 2_000_000
"""SageMaker counts a model's latency in microseconds: p90 of a minute above this is an alarm."""


def put_alarms(endpoint: str) -> list[str]:
    """Make the alarms of an endpoint, by which SageMaker goes back to the old version; return their names."""
    watched = [
        {"MetricName": "Invocation5XXErrors", "Statistic": "Sum", "Threshold": ERRORS_A_MINUTE},
        {"MetricName": "ModelLatency", "ExtendedStatistic": "p90", "Threshold": LATENCY_US},
    ]
    cloudwatch, names = aws_client("cloudwatch"), []
    for metric in watched:
        names.append(f"{endpoint}-{metric['MetricName']}")
        with aws_in_words(f"The alarm {names[-1]} cannot be made"):
            cloudwatch.put_metric_alarm(
                AlarmName=names[-1],
                AlarmDescription=f"{endpoint} answers badly; an update that is on its way is rolled back.",
                Namespace="AWS/SageMaker",
                Dimensions=[
                    {"Name": "EndpointName", "Value": endpoint},
                    {"Name": "VariantName", "Value": VARIANT},
                ],
                Period=60,
                EvaluationPeriods=1,
                ComparisonOperator="GreaterThanOrEqualToThreshold",
                TreatMissingData="notBreaching",
                **metric,
            )
    return names


def put_scaling(endpoint: str, shape: EndpointShape) -> bool:
    """Let the number of instances follow the requests if the shape says so, and no longer if not; return whether."""
    if not shape.instance_type or shape.most_instances <= shape.instances:
        remove_scaling(endpoint)
        return False
    target, scaling = _scaled(endpoint), aws_client("application-autoscaling")
    with aws_in_words(f"The autoscaling of endpoint {endpoint} cannot be set"):
        scaling.register_scalable_target(**target, MinCapacity=shape.instances, MaxCapacity=shape.most_instances)
        scaling.put_scaling_policy(
            **target,
            PolicyName=f"{endpoint}-by-requests",
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration={
                "TargetValue": float(shape.invocations_per_instance),
                "PredefinedMetricSpecification": {
                    "PredefinedMetricType": "SageMakerVariantInvocationsPerInstance",
                },
                "ScaleInCooldown": 300,
                "ScaleOutCooldown": 60,
            },
        )
    return True


def remove_scaling(endpoint: str) -> None:
    """Let the number of instances be what it is: policies go with what they scale. Nothing where there is none."""
    from botocore.exceptions import ClientError

    with aws_in_words(f"The autoscaling of endpoint {endpoint} cannot be removed"):
        try:
            aws_client("application-autoscaling").deregister_scalable_target(**_scaled(endpoint))
        except ClientError as error:
            said = error.response["Error"]
            if said["Code"] != "ObjectNotFoundException" and "No scalable target" not in said.get("Message", ""):
                raise


def remove_guards(endpoint: str) -> None:
    """Remove what watches an endpoint that goes, if it is there: alarms bill, and scaling has alarms of its own."""
    remove_scaling(endpoint)
    cloudwatch = aws_client("cloudwatch")
    with aws_in_words(f"The alarms of endpoint {endpoint} cannot be removed"):
        alarms = cloudwatch.describe_alarms(AlarmNamePrefix=f"{endpoint}-")["MetricAlarms"]
        if alarms:
            cloudwatch.delete_alarms(AlarmNames=[each["AlarmName"] for each in alarms])


def _scaled(endpoint: str) -> dict[str, str]:
    """Return what Application Auto Scaling calls the instances of an endpoint."""
    return {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{endpoint}/variant/{VARIANT}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
