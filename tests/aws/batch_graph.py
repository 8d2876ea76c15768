"""A small graph whose steps run here or as jobs; it is imported on both sides, which share an S3 bucket and no more."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import dagster as dg

from bigger_boat.resources.batch_launcher import BatchCompute, HereCompute

BUCKET = "boat"
DAYS = dg.DailyPartitionsDefinition(start_date="2026-10-01", end_date="2026-10-08")


class BucketIOManager(dg.ConfigurableIOManager):
    """Keeps what assets return as JSON in the bucket."""

    def _key(self, context: dg.OutputContext | dg.InputContext) -> str:
        return "values/" + "/".join(context.get_asset_identifier()) + ".json"

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        import boto3

        boto3.client("s3").put_object(Bucket=BUCKET, Key=self._key(context), Body=json.dumps(obj).encode())

    def load_input(self, context: dg.InputContext) -> object:
        import boto3

        return json.loads(boto3.client("s3").get_object(Bucket=BUCKET, Key=self._key(context))["Body"].read())


class Wanted(dg.Config):
    letters: str = "abc"
    times: int = 1


@dg.asset(code_version="7")
def source() -> dg.Output[str]:
    """Always made here."""
    return dg.Output("boat", data_version=dg.DataVersion("boat-1"))


@dg.asset(
    check_specs=[dg.AssetCheckSpec("before", asset="counted"), dg.AssetCheckSpec("after", asset="counted")],
    op_tags={"batch/memory_mib": "1024", "batch/environment": {"GREETING": "ahoy"}},
    code_version="3",
)
def counted(
    context: dg.AssetExecutionContext, config: Wanted, source: str, gpu_compute: dg.ResourceParam[object]
) -> Iterator[dg.AssetCheckResult | dg.Output[str]]:
    """Checks before and after its output, metadata of several kinds, log lines, an upstream value, run config."""
    context.log.info(f"counting {config.letters} {config.times} times")
    yield dg.AssetCheckResult(check_name="before", passed=True, metadata={"source": source})
    process = {"pid": os.getpid(), "folder": os.getcwd(), "greeting": os.environ.get("GREETING", "")}
    yield dg.Output(
        source + config.letters * config.times,
        data_version=dg.DataVersion("counted-9"),
        metadata={"rows": 3, "share": 0.5, "plot": dg.MetadataValue.md("| a |"), "tags": run_tags(context), **process},
    )
    yield dg.AssetCheckResult(check_name="after", passed=False, severity=dg.AssetCheckSeverity.WARN)


def run_tags(context: dg.AssetExecutionContext) -> dict[str, str]:
    return {name: value for name, value in context.run.tags.items() if not name.startswith(("dagster/", ".dagster"))}


@dg.asset(partitions_def=DAYS, check_specs=[dg.AssetCheckSpec("is_day", asset="daily")])
def daily(context: dg.AssetExecutionContext, gpu_compute: dg.ResourceParam[object]) -> Iterator[object]:
    """Knows its day."""
    yield dg.Output(context.partition_key, metadata={"window": str(context.partition_time_window.start)})
    yield dg.AssetCheckResult(check_name="is_day", passed=context.partition_key.startswith("2026-10-"))


@dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
def failing(context: dg.AssetExecutionContext, gpu_compute: dg.ResourceParam[object]) -> None:
    """Raises each time, two calls deep."""
    fail_deeply(context.retry_number + 1)


def fail_deeply(time: int) -> None:
    raise ValueError(f"hole number {time} in the hull")


@dg.asset
def refusing(gpu_compute: dg.ResourceParam[object]) -> None:
    raise dg.Failure("not better than what serves", metadata={"refused": True}, allow_retries=False)


@dg.asset
def slow(context: dg.AssetExecutionContext, gpu_compute: dg.ResourceParam[object]) -> None:
    """Never ends by itself."""
    context.log.info("rowing")
    time.sleep(300)


LINES = [f"Zeile {number:05d}: 大きな船" for number in range(15_000)]


@dg.asset
def talkative(gpu_compute: dg.ResourceParam[object]) -> None:
    """Prints more than goes home at a time, by itself and by a process that it starts."""
    print("\n".join(LINES))
    print("Übergröße", file=sys.stderr)
    subprocess.run(["/bin/echo", "of another process"], check=True)
    os.write(2, "past Python: ☸\n".encode())


class Doom(dg.Config):
    times: int = 100


@dg.asset
def doomed(context: dg.AssetExecutionContext, config: Doom, gpu_compute: dg.ResourceParam[object]) -> Iterator[object]:
    """Its process is killed in its first attempts, after it has told that it is there."""
    attempt = int(os.environ["AWS_BATCH_JOB_ATTEMPT"])
    print(f"attempt {attempt} rows")
    yield dg.AssetObservation("doomed", metadata={"attempt": attempt})
    if attempt <= config.times:
        time.sleep(1.5)  # long enough that it is told at home
        os.kill(os.getpid(), signal.SIGKILL)
    yield dg.Output(attempt, metadata={"attempt": attempt})


GIVEN = os.environ.get("BATCH_GRAPH_COMPUTE")
COMPUTE = BatchCompute(**json.loads(GIVEN)) if GIVEN else HereCompute()
"""A setting, as in the profiles; a job has none, and its steps run there."""

ASSETS = [source, counted, daily, failing, refusing, slow, talkative, doomed]
defs = dg.Definitions(
    assets=ASSETS,
    jobs=[dg.define_asset_job("daily_job", ["daily"])],
    resources={"gpu_compute": COMPUTE, "io_manager": BucketIOManager()},
)
