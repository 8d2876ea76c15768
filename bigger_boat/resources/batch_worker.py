"""What an AWS Batch job runs: one step of a Dagster run, by the message that its launcher left on S3.

``python -m bigger_boat.resources.batch_worker s3://bucket/path``. Exit code 0 means that the step is over, also when
its own code failed: that travels home as an event, with its stack. Any other code is a fault of what is around it.
"""

import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dagster import DagsterInstance, DynamicPartitionsDefinition, EventLogEntry
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.context.data_version_cache import DataVersionCache
from dagster._core.execution.context.system import StepExecutionContext
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.execute_plan import dagster_event_sequence_for_step

from bigger_boat.errors import CloudError
from bigger_boat.resources.aws import aws_client
from bigger_boat.resources.batch_messages import EventBatch, KnownInput, LaunchFolder, StepMessage
from bigger_boat.resources.batch_output import Output

SEND_EVERY_S = 1.0
FAULT, ORPHANED = 70, 75
"""EX_SOFTWARE and EX_TEMPFAIL of sysexits.h: the step could not be run here; nobody follows it any more."""


class Outbox:
    """Sends events and output home in batches while the step runs: those of every ``every_s`` s, the rest at the end.

    A batch that cannot be sent is an error of ``close``; nothing is sent after it, so that the order holds.
    """

    def __init__(self, folder: LaunchFolder, attempt: int, every_s: float = SEND_EVERY_S, output: Output | None = None):
        self._folder, self._attempt, self._every_s, self._output = folder, attempt, every_s, output
        self._entries: list[EventLogEntry] = []
        self._number, self._error = 0, None
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._send_until_closed, daemon=True)
        self._thread.start()

    def add(self, entry: EventLogEntry) -> None:
        """Take an event to be sent."""
        with self._lock:
            self._entries.append(entry)

    def close(self, is_over: bool = True) -> None:
        """Send what is left, and whether the step is over. Raises CloudError where something could not be sent."""
        self._closing.set()
        self._thread.join()
        if self._error:
            raise self._error
        self._send(last=is_over)

    def _send_until_closed(self) -> None:
        while not self._closing.wait(self._every_s):
            try:
                self._send(last=False)
            except Exception as error:
                self._error = error
                return

    def _send(self, last: bool) -> None:
        with self._lock:
            entries, self._entries = self._entries, []
        while self._output and any(printed := self._output.take()):
            self._send_batch(EventBatch(entries, False, *printed))
            entries = []
        if entries or last:
            self._send_batch(EventBatch(entries, last))

    def _send_batch(self, batch: EventBatch) -> None:
        self._folder.send_batch(self._attempt, self._number, batch)
        self._number += 1


class SentVersions(DataVersionCache):
    """Input versions as the launcher sent them: this process's instance knows nothing of other runs."""

    def __init__(self, context: StepExecutionContext, inputs: Sequence[KnownInput]):
        super().__init__(context)
        self._sent = {each.asset: each.info() for each in inputs}

    def fetch_external_input_asset_version_info(self) -> None:
        super().fetch_external_input_asset_version_info()
        self.input_asset_version_info.update(self._sent)


def run_step(message: StepMessage, outbox: Outbox) -> None:
    """Run the step in this process; everything it reports goes to ``outbox``, its own failure too."""
    with DagsterInstance.ephemeral() as instance:
        instance.add_event_listener(message.run.run_id, lambda entry: outbox.add(entry) if _of_step(entry) else None)
        with _step_context(message, instance) as context:
            for _ in dagster_event_sequence_for_step(context, force_local_execution=True):
                pass


def _of_step(entry: EventLogEntry) -> bool:
    """Whether the run at home should hear it: what it logs, and what happens to the step, but not to this process."""
    return entry.dagster_event is None or entry.dagster_event.step_key is not None


@contextmanager
def _step_context(message: StepMessage, instance: DagsterInstance) -> Iterator[StepExecutionContext]:
    """Yield the step's context, with the job made again from the definitions of this machine."""
    repository = ReconstructableRepository.for_module(message.module, message.attribute)
    job = ReconstructableJob(repository, message.job_name, message.ops, message.assets, message.checks)
    plan = create_execution_plan(job, message.run_config, [message.step_key], message.known_state)
    manager = PlanExecutionContextManager(
        job=job,
        execution_plan=plan,
        run_config=message.run_config,
        dagster_run=message.run,
        instance=instance,
        retry_mode=message.retry_mode.for_inner_plan(),
    )
    for _ in manager.prepare_context():
        pass
    context = manager.get_context().for_step(plan.get_step_by_key(message.step_key), message.known_state)
    context._data_version_cache = SentVersions(context, message.inputs)
    _add_dynamic_partition(context)
    try:
        yield context
    finally:
        for _ in manager.shutdown_context():
            pass


def _add_dynamic_partition(context: StepExecutionContext) -> None:
    """Let this process's instance know the run's partition, if it is one that was added by hand or by a sensor."""
    if not context.has_partition_key:
        return
    partitions = context.partitions_def_for_output(next(iter(context.op_def.output_dict)))
    if isinstance(partitions, DynamicPartitionsDefinition) and partitions.name:
        context.instance.add_dynamic_partitions(partitions.name, [context.partition_key])


def end_when_orphaned(folder: LaunchFolder, attempt: int, after_s: float) -> None:
    """End this process when nobody has followed the launch for ``after_s``: what nobody hears should not cost money."""
    seen, since = "", time.monotonic()
    while time.monotonic() - since < after_s:
        time.sleep(after_s / 5)
        with suppress(CloudError):  # then it counts as no beat
            if (beat := folder.last_beat()) != seen:
                seen, since = beat, time.monotonic()
    try:
        folder.send_error(attempt, f"Nobody has followed this launch for {after_s:g} s, so the job ended itself.")
    finally:
        os._exit(ORPHANED)


def _run_and_tell(message: StepMessage, folder: LaunchFolder, attempt: int) -> None:
    """Run the step; what happens and what is printed goes home meanwhile, also where it cannot be run."""
    with tempfile.TemporaryDirectory(prefix="output-", ignore_cleanup_errors=True) as kept:
        output = Output(Path(kept))
        outbox = Outbox(folder, attempt, output=output)
        try:
            with output.caught():
                run_step(message, outbox)
        except BaseException:
            with suppress(CloudError):
                outbox.close(is_over=False)
            raise
        outbox.close()


def main(address: str, attempt: int) -> int:
    """Run the step of the launch at ``address`` as AWS Batch's ``attempt``; return the exit code."""
    folder = LaunchFolder.at(aws_client("s3"), address)
    try:
        if attempt > 1 and folder.is_over():
            print(f"An earlier attempt brought the step of {address} to its end.")
            return 0
        message = folder.read_step()
        if message.orphan_after_s:
            arguments = (folder, attempt, message.orphan_after_s)
            threading.Thread(target=end_when_orphaned, args=arguments, daemon=True).start()
        _run_and_tell(message, folder, attempt)
    except BaseException:
        traceback.print_exc()
        folder.send_error(attempt, traceback.format_exc())
        return FAULT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(os.environ.get("AWS_BATCH_JOB_ATTEMPT", "1"))))
