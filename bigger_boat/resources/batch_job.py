"""One AWS Batch job: what it needs, how it is submitted, how it stands, and what went wrong in words.

What belongs elsewhere: the step that it runs (``batch_launcher.py``).
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from pydantic import Field, ValidationError

from bigger_boat.errors import CloudError
from bigger_boat.resources.aws import aws_in_words

TAG = "batch/"
"""What an asset says of its own needs: ``op_tags={"batch/memory_mib": "16384", "batch/environment": {"A": "1"}}``."""
HERE = TAG + "here"
"""The one tag that is about where a step runs, not about what it needs."""

WAITING, ENDED = ("SUBMITTED", "PENDING", "RUNNABLE"), ("SUCCEEDED", "FAILED")
HOST_LOST = "Host EC2"
"""How AWS Batch's reason begins when a machine was taken away, as spot machines are."""

_SECRET = re.compile("SECRET|PASSWORD|PASSPHRASE|TOKEN|PRIVATE_KEY|API_KEY|CREDENTIAL", re.IGNORECASE)
_KILLED = (137, 143)
"""Exit codes of a process that was killed: by SIGKILL, by SIGTERM."""

_MORE_MEMORY = "Give it more by the tag batch/memory_mib, of the asset or of the run."
_FAULTS = (
    ("OutOfMemory", "ran out of memory ({memory_mib} MiB)", _MORE_MEMORY),
    (
        "CannotPullContainer",
        "could not pull its image",
        "Check that the job definition's image exists and that the job's role may pull it.",
    ),
    (
        "attempt duration exceeded",
        "was ended after its {timeout_s} s",
        "Give it longer by the tag batch/timeout_s, of the asset or of the run.",
    ),
    (HOST_LOST, "lost its machine in each of its attempts", "Run it again, or use a queue without spot machines."),
)
"""Words of AWS Batch's reasons, what they mean, and what to do."""


class StepNeeds(dg.Config):
    """What a step asks of AWS Batch; an asset's tags ``batch/NAME`` go before the queue's own values."""

    vcpus: int = Field(2, ge=1, description="virtual CPUs")
    memory_mib: int = Field(8192, ge=4, description="memory in MiB; more than that kills the job")
    gpus: int = Field(0, ge=0, description="GPUs")
    timeout_s: int = Field(6 * 3600, ge=60, description="longest time of an attempt, in s")
    retries: int = Field(1, ge=0, le=9, description="how often a step that was lost starts again; not one that failed")
    environment: dict[str, str] = Field({}, description="plain variables, no secrets: those belong to the definition")

    def of(self, tags: Mapping[str, str]) -> "StepNeeds":
        """Return the needs of a step with these tags. Raises CloudError that lists unknown and unusable ones."""
        given = {name.removeprefix(TAG): value for name, value in tags.items() if name.startswith(TAG) and name != HERE}
        if unknown := sorted(set(given) - set(StepNeeds.model_fields)):
            known = ", ".join(TAG + name for name in StepNeeds.model_fields)
            raise CloudError(f"Unknown tags: {', '.join(TAG + name for name in unknown)}.", f"Known are: {known}.")
        own = json.loads(given.pop("environment", "{}"))  # Dagster writes a tag that is no text as JSON
        try:
            return StepNeeds(**{**self.model_dump(), **given, "environment": {**self.environment, **own}})
        except ValidationError as error:
            faults = "; ".join(f"{TAG}{each['loc'][0]}: {each['msg']}" for each in error.errors())
            raise CloudError(
                f"Tags that cannot be used: {faults}.", "Correct the tags of the asset or of the run."
            ) from None


@dataclass(frozen=True)
class JobState:
    """How a job stands, by AWS Batch's own words.

    ``exit_code``: that of its last attempt, if one has ended. ``ended``: why each attempt that is over ended.
    """

    status: str
    reason: str
    exit_code: int | None
    ended: tuple[str, ...]
    log_stream: str

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


@dataclass(frozen=True)
class BatchJob:
    """A submitted job. Its methods raise CloudError where AWS refuses."""

    batch: Any
    job_id: str
    name: str

    @classmethod
    def submit(
        cls, batch: Any, name: str, queue: str, job_definition: str, command: Sequence[str], needs: StepNeeds
    ) -> "BatchJob":
        """Submit a job under a name that AWS Batch takes, and return it. A machine that is lost is replaced by AWS."""
        if secrets := sorted(filter(_SECRET.search, needs.environment)):
            hint = "Anybody who may describe the job reads it: put it into the job definition's secrets."
            raise CloudError(f"A secret is no plain environment variable of a job: {', '.join(secrets)}.", hint)
        resources = {"VCPU": needs.vcpus, "MEMORY": needs.memory_mib, "GPU": needs.gpus}
        with aws_in_words(f"{name} cannot be submitted to the queue {queue} with the job definition {job_definition}"):
            answer = batch.submit_job(
                jobName=re.sub("[^A-Za-z0-9_-]", "-", name)[:128],
                jobQueue=queue,
                jobDefinition=job_definition,
                containerOverrides={
                    "command": list(command),
                    "environment": [{"name": each, "value": value} for each, value in needs.environment.items()],
                    "resourceRequirements": [
                        {"type": each, "value": str(value)} for each, value in resources.items() if value
                    ],
                },
                timeout={"attemptDurationSeconds": needs.timeout_s},
                retryStrategy={
                    "attempts": needs.retries + 1,
                    "evaluateOnExit": [
                        {"onStatusReason": f"{HOST_LOST}*", "action": "RETRY"},
                        {"onReason": "*", "action": "EXIT"},
                    ],
                },
                propagateTags=True,
                tags={"bigger-boat": "step"},
            )
        return cls(batch, answer["jobId"], name)

    def is_known(self) -> bool:
        """Whether AWS Batch still knows the job: it forgets those that ended a week ago."""
        with aws_in_words(f"Job {self.job_id} cannot be described"):
            return bool(self.batch.describe_jobs(jobs=[self.job_id])["jobs"])

    def state(self) -> JobState:
        """Return how the job stands."""
        with aws_in_words(f"Job {self.job_id} cannot be described"):
            found = self.batch.describe_jobs(jobs=[self.job_id])["jobs"]
        job = found[0] if found else {"status": WAITING[0]}  # it was submitted a moment ago
        container = job.get("container", {})
        reasons = [job.get("statusReason", ""), container.get("reason", "")]
        return JobState(
            job["status"],
            "; ".join(filter(None, reasons)),
            container.get("exitCode"),
            tuple(each.get("statusReason", "") for each in job.get("attempts", []) if "stoppedAt" in each),
            container.get("logStreamName", ""),
        )

    def terminate(self, reason: str) -> None:
        """End the job in whatever state it is; one that has ended stays as it is."""
        with aws_in_words(f"Job {self.job_id} cannot be terminated"):
            self.batch.terminate_job(jobId=self.job_id, reason=reason)


@dataclass(frozen=True)
class JobFault:
    """Why a job ended without bringing its step to an end. ``is_lost``: another try may well succeed."""

    message: str
    hint: str
    is_lost: bool

    @classmethod
    def of(cls, job: BatchJob, state: JobState, needs: StepNeeds, errors: Sequence[str]) -> "JobFault":
        """Return what to tell of a job that has ended. ``errors``: what its worker could still say."""
        reason = f" AWS Batch says: {state.reason}." if state.reason else ""
        logs = f" Its log is {state.log_stream} in CloudWatch." if state.log_stream else ""
        name = f"Job {job.job_id} ({job.name})"
        for words, meaning, hint in _FAULTS:
            if words in state.reason:
                return cls(f"{name} {meaning.format(**needs.model_dump())}.{reason}{logs}", hint, is_lost=False)
        if errors:
            hint = "The image and the code that launched it may differ, or a setting is missing in the job definition."
            return cls(f"{name} could not run its step.{reason}{logs}\n{errors[-1]}", hint, is_lost=False)
        if state.exit_code in _KILLED:
            hint = "If that happens again, watch its memory (batch/memory_mib) and look at its log."
            return cls(f"{name} was killed (exit code {state.exit_code}).{reason}{logs}", hint, is_lost=True)
        ended = f"ended as {state.status} with exit code {state.exit_code} and did not say what became of the step"
        return cls(f"{name} {ended}.{reason}{logs}", "Look at its log, and run it again.", is_lost=False)
