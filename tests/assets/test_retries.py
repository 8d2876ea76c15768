"""What is tried again, after which waits, and what is not."""

import dagster as dg
import pytest

from bigger_boat.assets import common
from bigger_boat.assets.common import readable_failures
from bigger_boat.errors import CloudError, DatasetError, GateRefused


def run(failures: list[Exception]) -> tuple[dg.ExecuteInProcessResult, int]:
    """Materialize an asset that fails so often; return the result, and how often it was tried."""
    tries = []

    @dg.asset
    def shaky() -> None:
        tries.append(1)
        with readable_failures():
            if failures:
                raise failures.pop(0)

    result = dg.materialize([shaky], raise_on_error=False)
    return result, len(tries)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(common, "BACK_OFF_S", 0.001)


def unreachable() -> CloudError:
    return CloudError("S3 cannot be reached.", "Look at the network.", may_pass=True)


def test_what_may_pass_is_tried_again_until_it_has():
    result, tries = run([unreachable(), unreachable()])
    assert (result.success, tries) == (True, 3)


def test_what_does_not_pass_fails_in_words():
    result, tries = run([unreachable() for _ in range(9)])
    assert (result.success, tries) == (False, 1 + common.RETRIES)
    [failed] = result.get_step_failure_events()
    assert failed.step_failure_data.user_failure_data.description.startswith("S3 cannot be reached.")


def test_each_wait_is_longer_than_the_one_before(monkeypatch):
    waits = []
    asked = dg.RetryRequested.__init__
    monkeypatch.setattr(
        dg.RetryRequested,
        "__init__",
        lambda self, n, seconds_to_wait: (waits.append(seconds_to_wait), asked(self, n))[1],
    )
    run([unreachable() for _ in range(9)])
    assert waits == pytest.approx([0.001, 0.004, 0.016])


@pytest.mark.parametrize(
    "error", [DatasetError("A day is missing."), GateRefused("It is worse."), CloudError("Denied.")]
)
def test_refusals_and_bad_data_are_not_tried_again(error):
    result, tries = run([error])
    assert (result.success, tries) == (False, 1)


def test_outside_of_a_step_there_is_nothing_to_try_again():
    with pytest.raises(dg.Failure, match="S3 cannot be reached"), readable_failures():
        raise unreachable()
