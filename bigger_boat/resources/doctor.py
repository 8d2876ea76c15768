"""What the profile needs, looked at one by one: a finding each, with what to do. It writes one small object, no more.

Belongs here: the checks of this machine and of AWS. What belongs elsewhere: showing them (``cli/doctor.py``).
"""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bigger_boat.data.landing_index import read_index
from bigger_boat.errors import BiggerBoatError, CloudError, SettingsError
from bigger_boat.resources.aws import aws_client, aws_in_words, aws_region
from bigger_boat.resources.permissions import check_permissions
from bigger_boat.resources.quotas import check_quotas
from bigger_boat.resources.running_costs import running, sentence
from bigger_boat.resources.s3_storage import object_store
from bigger_boat.settings import Settings

if TYPE_CHECKING:
    from bigger_boat.resources.warehouse import Warehouse

PASS, FAIL, NOT_TRIED = "pass", "fail", "not tried"
PROBE = "doctor.json"
_LITTLE_DISK = 5 * 2**30


@dataclass(frozen=True)
class Finding:
    """What a check found; ``to_do`` is empty for one that passed."""

    name: str
    state: str
    says: str
    to_do: str = ""


@dataclass(frozen=True)
class Check:
    """A check: ``run`` returns what it found, or raises a BiggerBoatError. It is tried if those it ``needs`` passed."""

    name: str
    run: Callable[[], str]
    needs: Sequence[str] = ()


def examine(checks: Sequence[Check]) -> Iterator[Finding]:
    """Yield a finding per check, in their order."""
    passed: set[str] = set()
    for check in checks:
        if lacking := [name for name in check.needs if name not in passed]:
            yield Finding(check.name, NOT_TRIED, f"it needs: {', '.join(lacking)}", "See there.")
            continue
        try:
            says = check.run()
        except BiggerBoatError as error:
            yield Finding(check.name, FAIL, error.message, error.hint or "docs/aws.md says what is needed.")
            continue
        passed.add(check.name)
        yield Finding(check.name, PASS, says)


def local_checks(settings: Settings, warehouse: "Warehouse") -> list[Check]:
    """Return the checks of both profiles: this machine, what has landed, and the warehouse."""
    return [
        Check("data folder", lambda: _data_folder(settings)),
        Check("landing zone", lambda: _landing(settings)),
        *_warehouse_checks(settings, warehouse),
    ]


def _warehouse_checks(settings: Settings, warehouse: "Warehouse") -> list[Check]:
    if settings.profile == "local":
        return [Check("warehouse", lambda: _warehouse(warehouse))]
    return [
        Check("Snowflake login", lambda: _warehouse(warehouse)),
        Check("Snowflake grants", lambda: warehouse.try_grants(), ("Snowflake login",)),
    ]


def aws_checks(settings: Settings) -> list[Check]:
    """Return the checks of the aws profile, those that others need first."""
    login = ("region", "credentials", "identity")
    batch = [
        Check(f"{kind} queue and job definition", lambda kind=kind: _queue(settings, kind), login)
        for kind in ("gpu", "cpu")
    ]
    return [
        Check("region", aws_region),
        Check("credentials", _credentials, ("region",)),
        Check("identity", _identity, ("credentials",)),
        Check("bucket", lambda: _bucket(settings), login),
        *(batch if settings.remote_steps else [Check("queues", lambda: "steps run here: REMOTE_STEPS is off")]),
        Check("serving image", lambda: _image(settings.serving_image), login),
        Check("endpoint role", lambda: _role(settings.endpoint_role), login),
        Check("public API", lambda: _stack(settings.api_stack), login),
        Check("permissions", lambda: check_permissions(settings, aws_region()), login),
        Check("quotas", lambda: check_quotas(settings), login),
        Check("costs", lambda: sentence(running(settings)), login),
    ]


def _data_folder(settings: Settings) -> str:
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        probe = settings.data_dir / f".{PROBE}"
        probe.write_text("{}")
        probe.unlink()
    except OSError as error:
        raise SettingsError(
            f"{settings.data_dir} cannot be written: {error.strerror}.", "Set BIGGER_BOAT_DATA_DIR."
        ) from error
    free = shutil.disk_usage(settings.data_dir).free
    if free < _LITTLE_DISK:
        raise SettingsError(f"{free / 2**30:.1f} GiB are free at {settings.data_dir}.", "Have 5 GiB or more.")
    return f"{settings.data_dir}, {free / 2**30:.0f} GiB free"


def _landing(settings: Settings) -> str:
    index = read_index(settings.landing_dir)
    if not index.days:
        there = " What other machines landed comes with bigger-boat run --dry-run." if settings.profile == "aws" else ""
        raise SettingsError("Nothing has landed here.", f"bigger-boat land DIR, or bigger-boat simulate.{there}")
    return f"{len(index.days)} days, {index.first_day} to {index.last_day}"


def _warehouse(warehouse: "Warehouse") -> str:
    with warehouse.read("select 1 as one", []) as reader:
        reader.read_all()
    return "it answers"


def _credentials() -> str:
    import boto3

    with aws_in_words("Credentials cannot be found"):
        found = boto3.Session().get_credentials()
    if found is None:
        raise CloudError("There are no AWS credentials.", "Log in (aws sso login), or set AWS_PROFILE.")
    return f"found by way of {found.method}"


def _identity() -> str:
    with aws_in_words("AWS does not say who this is"):
        caller = aws_client("sts").get_caller_identity()
    return f"{caller['Arn']} in account {caller['Account']}"


def _bucket(settings: Settings) -> str:
    """Write a small object, read it, and look where the bucket is."""
    store = object_store(settings.storage, settings.storage_kms_key)
    store.write_text(PROBE, "{}\n")
    if store.read_text(PROBE) != "{}\n":
        raise CloudError(
            f"{settings.storage}/{PROBE} is not what was written a moment ago.", "Does another process write there?"
        )
    bucket = settings.storage.removeprefix("s3://").split("/")[0]
    with aws_in_words(f"Bucket {bucket} cannot be looked at"):
        there = aws_client("s3").get_bucket_location(Bucket=bucket).get("LocationConstraint") or "us-east-1"
    if there != aws_region():
        raise CloudError(
            f"Bucket {bucket} is in {there}, this process in {aws_region()}.", f"Set AWS_DEFAULT_REGION={there}."
        )
    return f"{settings.storage} can be written and read, in {there}"


def _queue(settings: Settings, kind: str) -> str:
    queue, definition = getattr(settings, f"batch_{kind}_queue"), getattr(settings, f"batch_{kind}_job_definition")
    batch = aws_client("batch")
    with aws_in_words(f"Queue {queue} cannot be looked at"):
        found = batch.describe_job_queues(jobQueues=[queue])["jobQueues"]
    if not found or found[0]["state"] != "ENABLED":
        state = found[0]["state"].lower() if found else "not there"
        raise CloudError(
            f"Queue {queue} is {state}.", f"Make or enable it, or correct BIGGER_BOAT_BATCH_{kind.upper()}_QUEUE."
        )
    if found[0].get("status") == "INVALID":  # enabled, but nothing would ever run
        reason = found[0].get("statusReason", "AWS Batch gives no reason")
        raise CloudError(f"Queue {queue} is invalid: {reason}.", "Correct its compute environments.")
    return f"{queue} is enabled; {definition} runs {_job_image(definition, kind)}"


def _job_image(definition: str, kind: str) -> str:
    """Return the image of a job definition. Raises CloudError for one that is not there, or that runs no container."""
    to_do = f"correct BIGGER_BOAT_BATCH_{kind.upper()}_JOB_DEFINITION."
    key = {"jobDefinitions": [definition]} if definition.startswith("arn:") else {"jobDefinitionName": definition}
    with aws_in_words(f"Job definition {definition} cannot be looked at"):
        known = aws_client("batch").describe_job_definitions(**key, status="ACTIVE")["jobDefinitions"]
    if not known:
        raise CloudError(f"There is no active job definition {definition}.", f"Register it, or {to_do}")
    image = known[0].get("containerProperties", {}).get("image")
    if not image:
        text = f"Job definition {definition} is of type {known[0]['type']} without containerProperties: nothing runs."
        raise CloudError(text, f"Register one of type container, or {to_do}")
    return image


def _image(address: str) -> str:
    registry, _, path = address.partition("/")
    if ".dkr.ecr." not in registry:
        raise CloudError(
            f"{address} is no image in ECR.", "SageMaker runs images of ECR: correct BIGGER_BOAT_SERVING_IMAGE."
        )
    named, _, digest = path.partition("@")
    name, _, tag = named.partition(":")
    image = {"imageDigest": digest} if digest else {"imageTag": tag or "latest"}
    with aws_in_words(f"Image {address} cannot be looked at"):
        found = aws_client("ecr").describe_images(
            registryId=registry.split(".")[0], repositoryName=name, imageIds=[image]
        )
    return f"{address}, {found['imageDetails'][0].get('imageSizeInBytes', 0) / 2**20:.0f} MiB"


def _role(arn: str) -> str:
    with aws_in_words(f"Role {arn} cannot be looked at"):
        role = aws_client("iam").get_role(RoleName=arn.rpartition("/")[2])["Role"]
    trusted = json.dumps(role["AssumeRolePolicyDocument"])
    if "sagemaker.amazonaws.com" not in trusted:
        raise CloudError(f"SageMaker may not assume {arn}.", "Name sagemaker.amazonaws.com in its trust policy.")
    return f"SageMaker may assume {arn}"


def _stack(name: str) -> str:
    from bigger_boat.resources.stacks import Stack

    stack = Stack(name, lambda _: None)
    status = stack.status()
    if (status and not status.endswith("_COMPLETE")) or status.startswith("ROLLBACK"):
        raise CloudError(f"Stack {name} is {status}.", "See its events in CloudFormation.")
    return (
        f"{name}: {stack.outputs().get('Url', status)}"
        if status
        else f"{name} is not deployed yet: prediction_api does"
    )
