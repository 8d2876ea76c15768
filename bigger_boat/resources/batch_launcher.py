"""Runs steps as AWS Batch jobs: the same asset function, here or there, by one resource key.

An asset that may go elsewhere has an argument ``gpu_compute: dg.ResourceParam[object]`` (or ``cpu_compute``), which it
does not use. Dagster hands the step to the launcher if that resource is one, and runs it here if it is None.
What belongs elsewhere: the messages (``batch_messages.py``), the job (``batch_job.py``), the job's side
(``batch_worker.py``).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import dagster as dg
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME
from dagster._core.definitions.materialize import EPHEMERAL_JOB_NAME
from dagster._core.definitions.step_launcher import StepLauncher
from dagster._core.errors import raise_execution_interrupts
from dagster._core.execution.context.system import StepExecutionContext
from dagster._core.execution.plan.execute_step import core_dagster_event_sequence_for_step
from dagster_shared.record import copy
from pydantic import Field

from bigger_boat.errors import CloudError
from bigger_boat.resources.aws import aws_client
from bigger_boat.resources.batch_adoption import Trace, Traces, claim, is_left, what_runs
from bigger_boat.resources.batch_job import HERE, WAITING, BatchJob, JobFault, JobState, StepNeeds
from bigger_boat.resources.batch_messages import Inbox, KnownInput, LaunchFolder, StepMessage
from bigger_boat.resources.batch_output import print_here

WORKER = "bigger_boat.resources.batch_worker"


class HereCompute(dg.ConfigurableResource):
    """Steps run in this process; as a resource it is None."""

    def create_resource(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        return None


class BatchCompute(dg.ConfigurableResource):
    """Steps run as jobs of one AWS Batch queue; as a resource it is a BatchStepLauncher.

    An asset's ``op_tags`` and a run's tags change what a step asks for: ``batch/NAME`` for each name of StepNeeds. The
    tag ``batch/here`` lists steps, separated by commas, that run in this process all the same; ``all`` means every one.
    """

    queue: str = Field(description="name or ARN of the job queue")
    job_definition: str = Field(description="name or ARN of the job definition: image, roles, secrets, log")
    prefix: str = Field(description="s3://bucket/path that this process and the jobs may read and write")
    needs: StepNeeds = Field(StepNeeds(), description="what a step asks for that has no tags of its own")
    module: str = Field("bigger_boat.definitions", description="module of the definitions in the job's image")
    attribute: str = Field("defs", description="their name in it")
    poll_s: float = Field(3.0, gt=0, description="how often a job is asked how it stands, in s")
    orphan_after_s: float = Field(900.0, ge=0, description="a job that nobody follows for so long ends; 0: never, in s")
    longest_wait_s: float = Field(3600.0, gt=0, description="longest time that a job may wait for a machine, in s")

    def create_resource(self, context: dg.InitResourceContext) -> "BatchStepLauncher":  # noqa: ARG002
        return BatchStepLauncher(self)


@dataclass(frozen=True)
class _Launch:
    """A step that is on its way."""

    context: StepExecutionContext
    folder: LaunchFolder
    job: BatchJob
    needs: StepNeeds
    started: float
    traces: Traces
    trace: Trace
    heard: frozenset[tuple[float, str]] = frozenset()
    """What this run's log has of it already, by time and text: a launch that is adopted within its own run."""


class BatchStepLauncher(StepLauncher):
    """Hands a step to AWS Batch and reports what happens to it as if it ran here.

    Ending the run ends the job; where the run was killed, the next one adopts the job. A job that is lost starts again
    ``needs.retries`` times; its other faults, and the step's own, fail the step at once with what to do.
    """

    def __init__(self, compute: BatchCompute):
        self.compute = compute

    def launch_step(self, step_context: StepExecutionContext) -> Iterator[dg.DagsterEvent]:
        """Yield the step's events as they arrive. Raises Failure or RetryRequested with what became of the job."""
        here = _tags(step_context).get(HERE, "").split(",")
        if step_context.step.key in here or here == ["all"]:
            yield from core_dagster_event_sequence_for_step(step_context)
            return
        try:
            yield from self._run(self._launch(step_context))
        except CloudError as error:
            raise dg.Failure(str(error), allow_retries=False) from error

    def _launch(self, context: StepExecutionContext) -> _Launch:
        """Return the launch that a run which is gone has left, else a new one."""
        s3, needs = aws_client("s3"), self.compute.needs.of(_tags(context))
        message = step_message(context, self.compute)
        where = (self.compute.queue, self.compute.job_definition)
        digest = what_runs(message, needs, where, context.step.node_handle.path[0])
        traces = Traces.of(s3, self.compute.prefix, context.step.key, context.run_tags)
        found = traces.read()
        if found and is_left(context, found) and (left := _take_over(context, traces, found, digest)):
            folder, again = LaunchFolder.at(s3, left.folder), found.run_id == context.run_id
            heard = frozenset(_heard(context)) if again else frozenset()
            return _Launch(context, folder, _job(left), needs, time.monotonic(), traces, left, heard)
        return self._submit(context, message, needs, traces, digest)

    def _submit(
        self, context: StepExecutionContext, message: StepMessage, needs: StepNeeds, traces: Traces, digest: str
    ) -> _Launch:
        """Leave the message on S3 and submit the job that reads it."""
        step_key, attempt = context.step.key, context.previous_attempt_count
        folder = LaunchFolder.new(traces.s3, self.compute.prefix, context.run_id, step_key, attempt)
        folder.send_step(message)
        folder.beat()
        job = BatchJob.submit(
            aws_client("batch"),
            f"{step_key}-{context.run_id[:8]}-{folder.launch}",
            self.compute.queue,
            self.compute.job_definition,
            ["python", "-m", WORKER, folder.address],
            needs,
        )
        trace = Trace(context.run_id, job.job_id, job.name, folder.address, digest)
        launch = _Launch(context, folder, job, needs, time.monotonic(), traces, trace)
        try:
            traces.leave(trace)
        except CloudError as error:
            _terminate(launch, type(error).__name__)
            raise
        context.log.info(f"Submitted as AWS Batch job {job.job_id} to {self.compute.queue}; messages: {folder.address}")
        return launch

    def _run(self, launch: _Launch) -> Iterator[dg.DagsterEvent]:
        """Yield the events of a job until the step is over; leaving early for any reason ends the job."""
        try:
            yield from self._follow(launch)
        except BaseException as error:  # a cancelled run and an abandoned iterator, too
            _terminate(launch, type(error).__name__)
            _close(launch)
            raise
        _close(launch)

    def _follow(self, launch: _Launch) -> Iterator[dg.DagsterEvent]:
        inbox, known, beaten = Inbox(launch.folder, _printer(launch)), None, launch.started
        while True:
            if 0 < self.compute.orphan_after_s / 5 < time.monotonic() - beaten:
                launch.folder.beat()
                beaten = time.monotonic()
            state = launch.job.state()  # before the events: what a job that has ended wrote is there already
            known = _tell(launch, known, state)
            for entry in inbox.receive():
                yield from _forward(launch, entry)
            if inbox.is_over:
                return
            if state.has_ended:
                _raise_fault(launch, state)
            self._require_patience(launch, state)
            with raise_execution_interrupts():
                time.sleep(self.compute.poll_s)

    def _require_patience(self, launch: _Launch, state: JobState) -> None:
        waited_s = time.monotonic() - launch.started
        if state.status in WAITING and waited_s > self.compute.longest_wait_s:
            needs = f"{launch.needs.vcpus} vCPU, {launch.needs.memory_mib} MiB, {launch.needs.gpus} GPU"
            reason = f" AWS Batch says: {state.reason}." if state.reason else ""
            raise CloudError(
                f"Job {launch.job.job_id} has been {state.status} for {waited_s:.0f} s: no machine of "
                f"{self.compute.queue} took it.{reason}",
                f"Check that its compute environment is enabled, has quota, and machines with {needs}.",
            )


def _take_over(context: StepExecutionContext, traces: Traces, found: Trace, digest: str) -> Trace | None:
    """Adopt the job of a run that is gone and return its trace; None where there is none to adopt.

    A job that runs something else is ended. One that was lost while nobody looked is forgotten.
    """
    job, folder = _job(found), LaunchFolder.at(traces.s3, found.folder)
    if not job.is_known() or (job.state().has_ended and not folder.is_over()):
        return None
    if not claim(folder, found.run_id, context.run_id):
        return None
    if found.digest != digest:
        job.terminate(f"Bigger Boat: run {found.run_id} is gone, and run {context.run_id} asks for something else")
        context.log.warning(
            f"Ended AWS Batch job {job.job_id} of run {found.run_id}: another configuration is asked for."
        )
        return None
    mine = replace(found, run_id=context.run_id)
    folder.beat()
    traces.leave(mine)
    context.log.info(f"Adopted AWS Batch job {job.job_id} of run {found.run_id}, which is gone: {found.folder}")
    return mine


def _heard(context: StepExecutionContext) -> Iterator[tuple[float, str]]:
    for entry in context.instance.all_logs(context.run_id):
        yield entry.timestamp, entry.user_message


def _job(trace: Trace) -> BatchJob:
    return BatchJob(aws_client("batch"), trace.job_id, trace.job_name)


def _tags(context: StepExecutionContext) -> dict[str, str]:
    """Return the step's tags; the run's go before."""
    return {**context.step.tags, **context.run_tags}


def step_message(context: StepExecutionContext, compute: BatchCompute) -> StepMessage:
    """Return what another process needs to run the step; where this one's code lies is not part of it."""
    run, layer = context.dagster_run, context.job_def.asset_layer
    name, assets, checks = run.job_name, run.asset_selection, run.asset_check_selection
    if name == EPHEMERAL_JOB_NAME:  # materialize() made the job: its assets stand in no definitions but as themselves
        keys = {key for data in layer.data for key in data.assets_def.asset_and_check_keys}
        assets = {key for key in keys if isinstance(key, dg.AssetKey)}
        name, checks = IMPLICIT_ASSET_JOB_NAME, keys - assets
    if context.is_sda_step:
        context.fetch_external_input_asset_version_info()
    return StepMessage(
        dagster=dg.__version__,
        module=compute.module,
        attribute=compute.attribute,
        job_name=name,
        ops=run.resolved_op_selection,
        assets=assets,
        checks=checks,
        run=run._replace(job_code_origin=None, remote_job_origin=None),  # they may carry a machine's environment
        run_config=context.run_config,
        step_key=context.step.key,
        retry_mode=context.retry_mode,
        known_state=context.get_known_state(),
        inputs=[KnownInput.of(key, info) for key, info in context.input_asset_records.items() if info],
        orphan_after_s=compute.orphan_after_s,
    )


def _forward(launch: _Launch, entry: dg.EventLogEntry) -> Iterator[dg.DagsterEvent]:
    """Store an event of the job as one of this run; yield it if it is more than a log line."""
    context, is_news = launch.context, (entry.timestamp, entry.user_message) not in launch.heard
    entry, event = entry._replace(job_name=context.job_name, run_id=context.run_id), entry.dagster_event
    if event is None:
        if is_news:
            context.instance.handle_new_event(entry)
        return
    event = event._replace(job_name=context.job_name)
    if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION and event.asset_key:
        context.wipe_input_asset_version_info(event.asset_key)
    if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        event = _about_what_is_here(context, event)
    if is_news:
        context.instance.handle_new_event(entry._replace(dagster_event=event))
    yield event


def _about_what_is_here(context: StepExecutionContext, event: dg.DagsterEvent) -> dg.DagsterEvent:
    """Let a check's result point at the materialization as this instance counts it; the job's counted by itself."""
    evaluation = event.asset_check_evaluation_data
    target = dg.AssetCheckResult(passed=evaluation.passed)._get_target_materialization_data(
        context, evaluation.asset_check_key
    )
    return event._replace(event_specific_data=copy(evaluation, target_materialization_data=target))


def _printer(launch: _Launch) -> Callable[[int, str, str], None]:
    """Return what prints a job's output; it says where that of another attempt begins."""
    heard = 1

    def on_output(attempt: int, stdout: str, stderr: str) -> None:
        nonlocal heard
        if attempt > heard:
            heard, begins = attempt, f"\n[Attempt {attempt} of AWS Batch job {launch.job.job_id}]\n"
            stdout, stderr = begins + stdout, begins + stderr
        print_here(stdout, stderr)

    return on_output


def _tell(launch: _Launch, known: JobState | None, state: JobState) -> JobState:
    """Log how a job stands if that is news."""
    lost = len(known.ended) if known else 0
    for number, reason in enumerate(state.ended[lost:], lost + 1):
        if not state.has_ended:
            launch.context.log.warning(f"Attempt {number} was lost ({reason}); AWS Batch starts the step again.")
    if known is None or state.status != known.status:
        logs = f", log stream {state.log_stream}" if state.log_stream else ""
        launch.context.log.info(f"AWS Batch job {launch.job.job_id} is {state.status}{logs}.")
    return state


def _raise_fault(launch: _Launch, state: JobState) -> None:
    fault = JobFault.of(launch.job, state, launch.needs, launch.folder.errors())
    error = CloudError(fault.message, fault.hint)
    if fault.is_lost and launch.needs.retries:
        raise dg.RetryRequested(max_retries=launch.needs.retries, seconds_to_wait=1) from error
    raise error


def _terminate(launch: _Launch, why: str) -> None:
    """End a job that nobody waits for any more; say so if even that fails, without hiding why."""
    try:
        if not launch.job.state().has_ended:
            launch.job.terminate(f"Bigger Boat: {why} in run {launch.context.run_id}")
            launch.context.log.info(f"Ended AWS Batch job {launch.job.job_id}.")
    except CloudError as error:
        launch.context.log.error(f"AWS Batch job {launch.job.job_id} may go on and cost money. {error}")


def _close(launch: _Launch) -> None:
    """Leave nothing to adopt; where S3 refuses, the next run that asks for the same takes this end for its own."""
    try:
        launch.traces.close(launch.trace)
    except CloudError as error:
        launch.context.log.warning(str(error))
