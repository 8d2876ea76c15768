"""What a step launcher and its job tell each other: a folder on S3 per launch, JSON in Dagster's own form, no pickles.

::

    PREFIX/RUN/STEP/LAUNCH/step.json                    which step to run, and what it cannot look up there
    PREFIX/RUN/STEP/LAUNCH/alive.json                   changes while somebody follows the launch
    PREFIX/RUN/STEP/LAUNCH/events/ATTEMPT/NUMBER.json   batches of what happened and was printed, in order
    PREFIX/RUN/STEP/LAUNCH/errors/ATTEMPT.json          why the job could not run the step at all

LAUNCH is new each time (Dagster's attempt and a UUID) and ATTEMPT is AWS Batch's own count within the job, so what
belongs to an attempt that was replaced is never taken for the present one's.
What belongs elsewhere: AWS Batch itself (``batch_job.py``), running a step (``batch_worker.py``).
"""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from dagster import AssetCheckKey, AssetKey, DagsterEventType, DagsterRun, DataVersion, EventLogEntry
from dagster._core.execution.context.data_version_cache import InputAssetVersionInfo
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.retries import RetryMode
from dagster_shared.record import record
from dagster_shared.serdes import deserialize_value, pack_value, serialize_value, unpack_value, whitelist_for_serdes

from bigger_boat.errors import CloudError
from bigger_boat.resources.aws import aws_in_words

_STREAMS = ("stdout", "stderr")
STEP, ALIVE, EVENTS, ERRORS = "step.json", "alive.json", "events/", "errors/"


@whitelist_for_serdes
@record
class KnownInput:
    """The newest version of an upstream asset, as the instance had it when the step was launched."""

    asset: AssetKey
    storage_id: int
    event_type: str
    data_version: str | None
    run_id: str
    timestamp: float

    @classmethod
    def of(cls, asset: AssetKey, info: InputAssetVersionInfo) -> "KnownInput":
        """Return what Dagster knows of an input in a form that can be sent."""
        version = info.data_version.value if info.data_version else None
        return cls(
            asset=asset,
            storage_id=info.storage_id,
            event_type=info.event_type.value,
            data_version=version,
            run_id=info.run_id,
            timestamp=info.timestamp,
        )

    def info(self) -> InputAssetVersionInfo:
        """Return it in Dagster's own form."""
        version = DataVersion(self.data_version) if self.data_version else None
        kind = DagsterEventType(self.event_type)
        return InputAssetVersionInfo(self.storage_id, kind, version, self.run_id, self.timestamp)


@whitelist_for_serdes
@record
class StepMessage:
    """Which step to run: its job by name and selection out of the definitions ``module``.``attribute``.

    ``dagster`` is the version that sent it. Inputs that were never made are missing in ``inputs``. The job ends itself
    when nobody has followed it for ``orphan_after_s``; 0 means never.
    """

    dagster: str
    module: str
    attribute: str
    job_name: str
    ops: AbstractSet[str] | None
    assets: AbstractSet[AssetKey] | None
    checks: AbstractSet[AssetCheckKey] | None
    run: DagsterRun
    run_config: Mapping[str, Any]
    step_key: str
    retry_mode: RetryMode
    known_state: KnownExecutionState
    inputs: Sequence[KnownInput]
    orphan_after_s: float


@dataclass(frozen=True)
class EventBatch:
    """What happened since the batch before, in order, and what was printed. ``last``: the step is over, somehow."""

    entries: Sequence[EventLogEntry]
    last: bool
    stdout: str = ""
    stderr: str = ""


@dataclass(frozen=True)
class LaunchFolder:
    """The folder of one launch; ``path`` ends in a slash. Every method raises CloudError where S3 refuses."""

    s3: Any
    bucket: str
    path: str

    @classmethod
    def new(cls, s3: Any, prefix: str, run_id: str, step_key: str, attempt: int) -> "LaunchFolder":
        """Return the folder of a new launch under ``prefix`` (``s3://bucket/path``)."""
        launch = f"{attempt}-{uuid.uuid4().hex}"
        return cls.at(s3, f"{prefix.rstrip('/')}/{run_id}/{step_key}/{launch}")

    @classmethod
    def at(cls, s3: Any, address: str) -> "LaunchFolder":
        """Return the folder of an address. Raises CloudError for anything but ``s3://bucket/path``."""
        scheme, _, rest = address.partition("://")
        bucket, _, path = rest.strip("/").partition("/")
        if scheme != "s3" or not bucket or not path:
            raise CloudError(f"Expected an address like s3://bucket/path, and got {address!r}.")
        return cls(s3, bucket, f"{path}/")

    @property
    def address(self) -> str:
        return f"s3://{self.bucket}/{self.path}".rstrip("/")

    @property
    def launch(self) -> str:
        """The launch's name, unlike any other's."""
        return self.path.rstrip("/").rpartition("/")[2]

    def send_step(self, message: StepMessage) -> None:
        self._write(STEP, serialize_value(message))

    def read_step(self) -> StepMessage:
        return deserialize_value(self._read(STEP), StepMessage)

    def beat(self) -> None:
        """Say that somebody follows the launch."""
        self._write(ALIVE, json.dumps({"beat": uuid.uuid4().hex}))

    def last_beat(self) -> str:
        """Return what changes with every beat."""
        return self._read(ALIVE)

    def send_batch(self, attempt: int, number: int, batch: EventBatch) -> None:
        """Write batch ``number`` (from 0) of Batch's ``attempt`` (from 1)."""
        document = {"entries": [pack_value(entry) for entry in batch.entries], "last": batch.last}
        document |= {name: text for name in _STREAMS if (text := getattr(batch, name))}
        self._write(f"{EVENTS}{attempt:02d}/{number:06d}.json", json.dumps(document))

    def read_batch(self, name: str) -> EventBatch:
        document = json.loads(self._read(name))
        entries = [unpack_value(entry, EventLogEntry) for entry in document["entries"]]
        return EventBatch(entries, document["last"], *(document.get(name, "") for name in _STREAMS))

    def batch_names(self, after: str = EVENTS) -> list[str]:
        """Return the batches' names that come after a name: by attempt, then by number."""
        with aws_in_words(f"{self.address} cannot be listed"):
            pages = self.s3.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=f"{self.path}{EVENTS}", StartAfter=f"{self.path}{after}"
            )
            return [found["Key"].removeprefix(self.path) for page in pages for found in page.get("Contents", [])]

    def is_over(self) -> bool:
        """Whether some attempt brought the step to its end."""
        newest = {name.split("/")[1]: name for name in self.batch_names()}
        return any(self.read_batch(name).last for name in newest.values())

    def send_error(self, attempt: int, text: str) -> None:
        self._write(f"{ERRORS}{attempt:02d}.json", json.dumps({"error": text}))

    def errors(self) -> list[str]:
        """Return why attempts could not run the step, in their order; empty if none said so."""
        with aws_in_words(f"{self.address} cannot be listed"):
            found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=f"{self.path}{ERRORS}").get("Contents", [])
        return [json.loads(self._read(each["Key"].removeprefix(self.path)))["error"] for each in found]

    def _write(self, name: str, text: str) -> None:
        with aws_in_words(f"{self.address}/{name} cannot be written"):
            self.s3.put_object(
                Bucket=self.bucket, Key=f"{self.path}{name}", Body=text.encode(), ContentType="application/json"
            )

    def _read(self, name: str) -> str:
        with aws_in_words(f"{self.address}/{name} cannot be read"):
            return self.s3.get_object(Bucket=self.bucket, Key=f"{self.path}{name}")["Body"].read().decode()


class Inbox:
    """Reads a launch's events in order, each once.

    Names sort by attempt: after the first batch of an attempt, what an earlier one still writes is never read.
    ``on_output`` gets the attempt (from 1) and what was printed to both streams, before the events of the same batch.
    """

    def __init__(self, folder: LaunchFolder, on_output: Callable[[int, str, str], None] = lambda *_: None):
        self.folder, self.is_over, self._after = folder, False, EVENTS
        self._on_output = on_output

    def receive(self) -> Iterator[EventLogEntry]:
        """Yield what has come since the call before; sets ``is_over`` with the step's last batch."""
        for name in self.folder.batch_names(self._after):
            batch = self.folder.read_batch(name)
            self._after, self.is_over = name, batch.last
            if batch.stdout or batch.stderr:
                self._on_output(int(name.split("/")[1]), batch.stdout, batch.stderr)
            yield from batch.entries
            if self.is_over:
                return
