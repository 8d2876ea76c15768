"""Jobs whose launcher is gone (``kill -9`` of the run, power): the next run of the step finds such a job.

What is asked for is the same: it is adopted, and its events come home from the first on. It is not: the job is ended.
Belongs here: the trace that a launch leaves on S3 until it is over, and when it may be taken over. What belongs
elsewhere: following a job (``batch_launcher.py``), its events (``batch_messages.py``).

::

    PREFIX/following/STEP/WHICH.json            the newest launch of a step and partition, and whether it is over
    PREFIX/RUN/STEP/LAUNCH/taken-from/RUN.json  who adopted a launch from a run that is gone: the first to write it
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from dagster._core.execution.context.system import StepExecutionContext
from dagster._core.storage.tags import PARTITION_NAME_TAG

from bigger_boat.resources.aws import aws_in_words
from bigger_boat.resources.batch_job import StepNeeds
from bigger_boat.resources.batch_messages import LaunchFolder, StepMessage

_PARTITION_TAGS = (PARTITION_NAME_TAG, "dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


@dataclass(frozen=True)
class Trace:
    """A launch that somebody follows, or followed: ``run_id`` is theirs. ``digest`` says what it runs."""

    run_id: str
    job_id: str
    job_name: str
    folder: str
    digest: str
    over: bool = False


@dataclass(frozen=True)
class Traces:
    """Where the newest launch of a step and partition leaves its trace. Methods raise CloudError where S3 refuses."""

    s3: Any
    bucket: str
    key: str

    @classmethod
    def of(cls, s3: Any, prefix: str, step_key: str, run_tags: Mapping[str, str]) -> "Traces":
        """Return that of a step in a run with these tags, which name its partition."""
        which = _digest([run_tags.get(tag) for tag in _PARTITION_TAGS])
        folder = LaunchFolder.at(s3, f"{prefix.rstrip('/')}/following/{step_key}")
        return cls(s3, folder.bucket, f"{folder.path}{which}.json")

    def read(self) -> Trace | None:
        """Return the newest trace, None where no launch has left one."""
        with self._named("read"):
            try:
                return Trace(**json.loads(self.s3.get_object(Bucket=self.bucket, Key=self.key)["Body"].read()))
            except self.s3.exceptions.NoSuchKey:
                return None

    def leave(self, trace: Trace) -> None:
        """Say that a launch is followed; it is the newest now."""
        with self._named("written"):
            self.s3.put_object(Bucket=self.bucket, Key=self.key, Body=json.dumps(asdict(trace)).encode())

    def close(self, trace: Trace) -> None:
        """Say that a launch is over, unless another is the newest."""
        if self.read() == trace:
            self.leave(replace(trace, over=True))

    def _named(self, done: str) -> Any:
        return aws_in_words(f"s3://{self.bucket}/{self.key} cannot be {done}")


def claim(folder: LaunchFolder, gone_run_id: str, run_id: str) -> bool:
    """Take a launch over from a run that is gone; return False where another run was faster."""
    from botocore.exceptions import ClientError

    key = f"{folder.path}taken-from/{gone_run_id}.json"
    with aws_in_words(f"s3://{folder.bucket}/{key} cannot be written"):
        try:
            folder.s3.put_object(
                Bucket=folder.bucket, Key=key, Body=json.dumps({"by": run_id}).encode(), IfNoneMatch="*"
            )
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise
            return False
    return True


def is_left(context: StepExecutionContext, trace: Trace) -> bool:
    """Whether nobody follows a launch any more: its run is this one, or one of this instance that has ended."""
    if trace.over or trace.run_id == context.run_id:
        return not trace.over
    run = context.instance.get_run_by_id(trace.run_id)
    return run is not None and run.is_finished  # a run of another instance is left to its own


def what_runs(message: StepMessage, needs: StepNeeds, where: tuple[str, str], op: str) -> str:
    """Return a digest of what is asked of a job: step, configuration, inputs, machine; not of its image's content."""
    config = message.run_config
    return _digest(
        [
            message.dagster,
            message.module,
            message.attribute,
            message.step_key,
            (config.get("ops") or {}).get(op),
            config.get("resources"),
            sorted([known.asset.to_user_string(), known.data_version] for known in message.inputs),
            needs.model_dump(),
            where,
        ]
    )


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:16]
