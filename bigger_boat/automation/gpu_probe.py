"""One step on the GPU queue that says which devices a training would have there: ``doctor --gpu``, or the web UI."""

import dagster as dg

from bigger_boat.automation.jobs import TIMEOUT_TAG
from bigger_boat.automation.runner import failures_of
from bigger_boat.errors import CloudError

DEVICES = "devices"


def gpu_names() -> list[str]:
    """Return the GPUs that TensorFlow sees in this process, by the names that their makers gave them."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return [tf.config.experimental.get_device_details(each).get("device_name", each.name) for each in gpus]


@dg.op(
    out=dg.Out(dg.Nothing), description="Say which GPUs TensorFlow sees where trainings run; fail where it sees none."
)
def report_gpus(context: dg.OpExecutionContext, gpu_compute: dg.ResourceParam[object]) -> dg.Output[None]:  # noqa: ARG001
    names = gpu_names()
    if not names:
        raise dg.Failure(
            "TensorFlow sees no GPU where the step ran. The queue's machines, their driver and the image's CUDA are "
            "what to look at; a training would take place on the CPU.",
            allow_retries=False,
        )
    context.log.info(f"GPUs: {', '.join(names)}")
    return dg.Output(None, metadata={DEVICES: names})


@dg.job(description="Run one step where trainings run, and say which GPUs it has.", tags=TIMEOUT_TAG)
def gpu_probe_job() -> None:
    report_gpus()


def probe_gpus(job: dg.JobDefinition, instance: dg.DagsterInstance) -> str:
    """Run the job in this process, its step where ``gpu_compute`` says; return the GPUs. Raises CloudError in words."""
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    result = job.execute_in_process(instance=instance, run_config=quiet, raise_on_error=False)
    if not result.success:
        sentences = [sentence for _, sentence in failures_of(instance, result.run_id)[0]]
        raise CloudError(" ".join(sentences) or "The step ended without a word.", "docs/aws.md says what is needed.")
    [output] = result.filter_events(lambda event: event.is_successful_output)
    return ", ".join(output.step_output_data.metadata[DEVICES].value)
