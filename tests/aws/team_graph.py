"""A small graph that two people run at the same time: each run waits for the other, and one at a time writes."""

import sys
import time

import dagster as dg

BUCKET, WHICH = "boat", dg.StaticPartitionsDefinition(["port", "starboard"])
LINE = "rowing to {}: Übergröße, 日本"


def met(s3, prefix: str) -> int:
    return s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix)["KeyCount"]


def client():
    import boto3

    return boto3.client("s3")


@dg.asset(partitions_def=WHICH)
def meeting(context: dg.AssetExecutionContext) -> None:
    """Ends when both runs are here, which they can only be at the same time."""
    s3, deadline = client(), time.monotonic() + 240
    s3.put_object(Bucket=BUCKET, Key=f"team/met/{context.partition_key}")
    while met(s3, "team/met/") < 2:
        if time.monotonic() > deadline:
            raise TimeoutError("nobody else came")
        time.sleep(0.2)
    print(LINE.format(context.partition_key))
    print(f"splash at {context.partition_key}", file=sys.stderr)


@dg.asset(partitions_def=WHICH, deps=[meeting], pool="warehouse")
def written(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Is alone in its pool, and opens the key of Snowflake as the secret holds it."""
    from bigger_boat.resources.snowflake_login import key_pair

    s3, key = client(), f"team/inside/{context.partition_key}"
    s3.put_object(Bucket=BUCKET, Key=key)
    time.sleep(1)  # long enough for the other to be seen, were it let in
    alone = met(s3, "team/inside/") == 1
    s3.delete_object(Bucket=BUCKET, Key=key)
    return dg.MaterializeResult(metadata={"alone": alone, "opens": "PRIVATE KEY" in key_pair().pem})


@dg.asset_check(asset=written, blocking=True)
def is_written() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


defs = dg.Definitions(
    assets=[meeting, written],
    asset_checks=[is_written],
    jobs=[dg.define_asset_job("team_job", [meeting, written], partitions_def=WHICH)],
    executor=dg.in_process_executor,
)
