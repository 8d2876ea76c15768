"""Takes everything at AWS down, so that nothing bills; safe to run again after a kill or a refusal.

Belongs here: the order. A team's Dagster first, which would make again what goes, then endpoints, which bill most, the
API, which writes to the bucket, the jobs, the data if that is asked for by the bucket's name, and the platform's stack
last, since its outputs say where the rest is.
What belongs elsewhere: stacks (``stacks.py``), one endpoint (``sagemaker_endpoint.py``). Snowflake is not touched.
"""

from collections.abc import Callable

from bigger_boat.data.vocabulary import ENDPOINTS
from bigger_boat.errors import CloudError, SettingsError
from bigger_boat.resources.aws import aws_client, aws_in_words
from bigger_boat.resources.platform import platform_stack
from bigger_boat.resources.sagemaker_endpoint import EndpointShape, SageMakerEndpoint, endpoint_name
from bigger_boat.resources.sagemaker_guards import remove_guards
from bigger_boat.resources.stacks import Stack
from bigger_boat.resources.team import team_stack
from bigger_boat.settings import Settings

_LIVING = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
_AT_ONCE = 1000
"""Objects that S3 deletes in a request."""


class Teardown:
    """What of this graph is at AWS by these settings, and how it goes. ``tell`` gets a line per thing that is gone."""

    def __init__(self, settings: Settings, tell: Callable[[str], None], poll_s: float = 3.0):
        self._tell = tell
        self._platform = platform_stack(settings, tell)
        self._api = Stack(settings.api_stack, tell)
        self._team = team_stack(settings, tell)
        self._platform.poll_s = self._api.poll_s = self._team.poll_s = poll_s
        names = [endpoint_name(settings.endpoint_prefix, name) for name in ENDPOINTS]
        self._endpoints = [SageMakerEndpoint(name, "", "", EndpointShape()) for name in names]

    @property
    def bucket(self) -> str:
        """The platform's bucket; "" where there is none."""
        name = self._platform.outputs().get("Bucket", "")
        return name if name and _exists(name) else ""

    def things(self) -> list[str]:
        """Return what there is, the bucket and its content left aside, in the order in which it goes."""
        endpoints = [f"endpoint {each.name}" for each in self._endpoints if each.state().status]
        versions = [f"{len(each.versions())} versions of {each.name}" for each in self._endpoints if each.versions()]
        stacks = [f"stack {stack.name}" for stack in (self._team, self._api, self._platform) if stack.status()]
        return endpoints + versions + stacks

    def run(self, delete_data: str = "") -> None:
        """Take all of it down; the bucket only if ``delete_data`` is its name. Raises CloudError with what stays."""
        bucket = self.bucket
        if delete_data and delete_data != bucket:
            raise SettingsError(
                f"The platform's bucket is {bucket or 'not there'}, not {delete_data}.",
                "Nothing was deleted. Name it exactly, or leave --delete-data out to keep it.",
            )
        self._gone(self._team)  # or it would make again what goes
        for endpoint in self._endpoints:
            self._end(endpoint)
        self._gone(self._api)
        for queue in self._queues():
            self._end_jobs(queue)
        if delete_data:
            self._tell(f"Bucket {bucket}: {empty(bucket)} objects deleted.")
            with aws_in_words(f"Bucket {bucket} cannot be deleted"):
                aws_client("s3").delete_bucket(Bucket=bucket)
        self._gone(self._platform)
        if bucket and not delete_data:
            self._tell(f"Bucket {bucket} stays, and is billed for what is in it.")

    def _end(self, endpoint: SageMakerEndpoint) -> None:
        if endpoint.state().status:
            endpoint.delete()
            self._tell(f"Endpoint {endpoint.name} is on its way out.")
        remove_guards(endpoint.name)
        for version in endpoint.versions():
            endpoint.remove_version(version)

    def _gone(self, stack: Stack) -> None:
        if stack.delete():
            self._tell(f"Stack {stack.name} is gone.")

    def _queues(self) -> list[str]:
        outputs = self._platform.outputs()
        return [outputs[name] for name in ("BatchGpuQueue", "BatchCpuQueue") if name in outputs]

    def _end_jobs(self, queue: str) -> None:
        batch = aws_client("batch")
        with aws_in_words(f"The jobs of {queue} cannot be ended"):
            for status in _LIVING:
                for page in batch.get_paginator("list_jobs").paginate(jobQueue=queue, jobStatus=status):
                    for job in page["jobSummaryList"]:
                        batch.terminate_job(jobId=job["jobId"], reason="bigger-boat deploy destroy")
                        self._tell(f"Job {job['jobId']} is ended.")


def empty(bucket: str) -> int:
    """Delete all objects of a bucket, their versions and unfinished uploads too; return how many objects."""
    s3, count = aws_client("s3"), 0
    with aws_in_words(f"Bucket {bucket} cannot be emptied"):
        for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
            for upload in page.get("Uploads", []):
                s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        for page in s3.get_paginator("list_object_versions").paginate(
            Bucket=bucket, PaginationConfig={"PageSize": _AT_ONCE}
        ):
            found = page.get("Versions", []) + page.get("DeleteMarkers", [])
            objects = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in found]
            if objects:
                _require_all(bucket, s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True}))
            count += len(objects)
    return count


def _require_all(bucket: str, answer: dict) -> None:
    for error in answer.get("Errors", []):
        raise CloudError(
            f"s3://{bucket}/{error['Key']} cannot be deleted: {error['Code']}: {error.get('Message', '')}", "Run again."
        )


def _exists(bucket: str) -> bool:
    s3 = aws_client("s3")
    with aws_in_words(f"Bucket {bucket} cannot be looked at"):
        try:
            s3.head_bucket(Bucket=bucket)
        except s3.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchBucket"):
                return False
            raise
    return True
