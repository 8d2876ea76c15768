"""What a step asks for, and what a job's end means in words."""

import pytest

from bigger_boat.errors import CloudError
from bigger_boat.resources.batch_job import BatchJob, JobFault, JobState, StepNeeds

QUEUE_NEEDS = StepNeeds(vcpus=4, memory_mib=8192, gpus=1, environment={"A": "1", "B": "2"})


def test_tags_of_an_asset_go_before_the_queues_values():
    needs = QUEUE_NEEDS.of({"batch/memory_mib": "512", "batch/environment": '{"B": "3"}', "team": "ml"})
    assert (needs.vcpus, needs.memory_mib, needs.gpus) == (4, 512, 1)
    assert needs.environment == {"A": "1", "B": "3"}
    assert QUEUE_NEEDS.of({}) == QUEUE_NEEDS


def test_tags_that_are_unknown_or_unusable_are_named():
    with pytest.raises(CloudError, match="Unknown tags: batch/cpu, batch/ram") as error:
        QUEUE_NEEDS.of({"batch/ram": "1", "batch/cpu": "2"})
    assert "batch/memory_mib" in error.value.hint
    with pytest.raises(CloudError, match=r"batch/vcpus: Input should be .*; batch/timeout_s: Input should be "):
        QUEUE_NEEDS.of({"batch/vcpus": "many", "batch/timeout_s": "1"})


WORDS = [
    # reason of AWS Batch, exit code, what the worker said; then: in the message, in the hint, starts again
    (
        "OutOfMemoryError: Container killed due to memory usage",
        137,
        [],
        "ran out of memory (8192 MiB)",
        "memory",
        False,
    ),
    ("CannotPullContainerError: not found", None, [], "could not pull its image", "job definition's image", False),
    ("Job attempt duration exceeded timeout", 137, [], "was ended after its 21600 s", "batch/timeout_s", False),
    ("Host EC2 (instance i-0abc) terminated.", None, [], "lost its machine in each", "without spot", False),
    ("Essential container in task exited", 70, ["ImportError: x"], "could not run its step", "image and the", False),
    ("Essential container in task exited", 137, [], "was killed (exit code 137)", "watch its memory", True),
    ("Essential container in task exited", 143, [], "was killed (exit code 143)", "watch its memory", True),
    ("Essential container in task exited", 0, [], "ended as FAILED with exit code 0 and did not say", "log", False),
]


@pytest.mark.parametrize(("reason", "exit_code", "errors", "message", "hint", "is_lost"), WORDS)
def test_every_end_of_a_job_has_a_meaning_and_something_to_do(reason, exit_code, errors, message, hint, is_lost):
    state = JobState("FAILED", reason, exit_code, (reason,), "training/default/1")
    fault = JobFault.of(BatchJob(None, "job-1", "intent_model-x"), state, QUEUE_NEEDS, errors)
    assert message in fault.message
    assert reason in fault.message
    assert "Job job-1 (intent_model-x)" in fault.message
    assert "training/default/1 in CloudWatch" in fault.message
    assert hint in fault.hint
    assert fault.is_lost is is_lost
    assert not errors or errors[-1] in fault.message
