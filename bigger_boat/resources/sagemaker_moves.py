"""Bringing a SageMaker endpoint from one configuration to another: waiting, and what serves in the end, in words.

What belongs elsewhere: which configuration, and what follows from a failure (``sagemaker_host.py``).
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import dagster as dg

from bigger_boat.errors import CloudError
from bigger_boat.ml.bundle import Bundle
from bigger_boat.ml.gate import check_golden
from bigger_boat.resources.sagemaker_endpoint import EndpointState, SageMakerEndpoint
from bigger_boat.resources.sagemaker_guards import remove_scaling
from bigger_boat.serving.captured import OURS

_FAULTS = (
    ("health check", "Read its log group in CloudWatch, or start it here: bigger-boat serve --bundle DIR."),
    ("image", "Check BIGGER_BOAT_SERVING_IMAGE, and that BIGGER_BOAT_ENDPOINT_ROLE may pull it."),
    ("alarm", "Look at the endpoint's alarms in CloudWatch: the new version answered badly, or they were on before."),
    ("capacity", "Try again later, or choose another BIGGER_BOAT_ENDPOINT_INSTANCE."),
)
"""Words of SageMaker's reasons, and what to do."""


@dataclass(frozen=True)
class Moves:
    """Moves of one endpoint. ``timeout_s``: how long one is waited for; ``poll_s``: how often it is asked."""

    endpoint: SageMakerEndpoint
    timeout_s: float
    poll_s: float

    def settled(self) -> EndpointState:
        """Wait until nothing is on its way, and tell how it stands meanwhile; return how it stands then."""
        tell, began, known = dg.get_dagster_logger("endpoints").info, time.monotonic(), ""
        while True:
            state = self.endpoint.state()
            waited_s = time.monotonic() - began
            known = _tell(tell, self.endpoint.name, state, known, waited_s)
            if not state.is_moving:
                return state
            if waited_s > self.timeout_s:
                raise CloudError(
                    f"Endpoint {self.endpoint.name} is still {state.status} after {waited_s:.0f} s. "
                    f"{self.words(state)}",
                    "SageMaker goes on, or back to the old version. Materialize the endpoint again to follow it.",
                )
            time.sleep(self.poll_s)

    def go_to(self, config: str, alarms: list[str]) -> None:
        """Begin to bring the endpoint to a configuration. Raises CloudError that says what serves then."""
        try:
            self.endpoint.go_to(config, alarms)
        except CloudError as error:
            serves = self.words(self.endpoint.state())
            raise CloudError(f"{error.message.rstrip('.')}. {serves}", error.hint, may_pass=error.may_pass) from error

    def bring(self, config: str, to: str, alarms: list[str]) -> EndpointState:
        """Bring the endpoint to a configuration, and wait until it is there. Raises CloudError where it is not."""
        self.go_to(config, alarms)
        after = self.settled()
        if after.status != "InService" or after.config != config:
            raise self._failed(to, after)
        return after

    def end(self) -> None:
        """Delete the endpoint, with what scales it; its versions stay."""
        remove_scaling(self.endpoint.name)
        self.endpoint.delete()

    def words(self, state: EndpointState) -> str:
        """Return in words what serves, as SageMaker says."""
        if not state.serves:
            return "Nothing serves."
        version = self.endpoint.version_of(state.config) or f"of configuration {state.config}"
        return f"Version {version} goes on serving."

    def differences(self, bundle: Bundle, variant: str = "") -> list[str]:
        """Ask a variant the golden requests through SageMaker; return what is wrong with the answers."""
        try:
            asked = (entry["request"] for entry in bundle.golden)
            answers = [self.endpoint.ask(request, f"{OURS}{uuid.uuid4()}", variant) for request in asked]
        except CloudError as error:
            return [error.message]
        versions = {answer.get("version") for answer in answers} - {bundle.version}
        if versions:
            return [f"Version {', '.join(map(str, versions))} answered."]
        check = check_golden(bundle.golden, [answer["predictions"] for answer in answers])
        return [] if check.passed else [check.description]

    def _failed(self, to: str, state: EndpointState) -> CloudError:
        """Return in words why an update did not arrive."""
        name = self.endpoint.name
        if state.status == "Failed":
            self.end()  # it bills nothing, but it could never be updated
        reason = state.reason or f"SageMaker gives no reason; the endpoint is {state.status or 'gone'}."
        hints = [hint for word, hint in _FAULTS if word in reason.lower()]
        return CloudError(
            f"Endpoint {name} could not be brought to {to}: {reason} {self.words(state)}",
            hints[0] if hints else f"Look at log group /aws/sagemaker/Endpoints/{name} in CloudWatch.",
        )


def _tell(tell: Callable[[str], None], name: str, state: EndpointState, known: str, waited_s: float) -> str:
    """Log a change, and each minute that it lasts; return what is known now."""
    now = f"{state.status or 'absent'} {waited_s // 60:.0f}"
    if state.is_moving and now != known:
        tell(f"Endpoint {name} is {state.status}, for {waited_s:.0f} s.")
    return now
