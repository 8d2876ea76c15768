"""Which configuration becomes the champion: the promotion rule applied to a candidate and what serves.

What belongs elsewhere: the single rules and their words (``gate.py``), fitting and comparing (``*_task.py``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

from bigger_boat.ml.bundle import Bundle
from bigger_boat.ml.gate import Comparison, GateCheck, check_not_worse, choose_configuration


class Task(Protocol):
    """What the rule needs of a task (``RecommendationTask``, ``IntentTask``)."""

    def current(self, configuration: Mapping[str, Any]) -> dict[str, Any]: ...
    def load(self, bundle: Bundle) -> Any: ...
    def fit_configuration(self, configuration: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]: ...
    def compare(self, candidate: Any, incumbent: Any, after: date | None = None) -> Comparison | None: ...


@dataclass(frozen=True)
class Decision:
    """What is fitted on all days: ``configuration``, with what fitting chose on validation, and why."""

    configuration: dict[str, Any]
    chosen: dict[str, Any]
    reason: str
    checks: tuple[GateCheck, ...]


def decide(
    task: Task, candidate: Bundle, incumbent: Bundle | None, judged: Sequence[GateCheck], require: Callable
) -> Decision:
    """Return the decision, after ``require`` let all checks pass; ``judged`` are those of the candidate alone.

    Another configuration than the incumbent's is chosen only if clearly better when both are fitted on the same
    training days; else the incumbent's is refreshed. The same configuration must not be worse than what serves on the
    validation days after the incumbent's last one. Configurations are compared as this code writes them, so that an
    option that older code wrote and that is gone makes no difference.
    """
    require(judged)
    own = task.current(candidate.info["configuration"]), candidate.info["chosen"]
    if incumbent is None:
        return Decision(*own, choose_configuration(None).sentence, tuple(judged))
    model = task.load(candidate)
    theirs = task.current(incumbent.info["configuration"])
    if theirs == own[0]:
        last_day = date.fromisoformat(incumbent.info["refit"]["last"])
        check = check_not_worse(task.compare(model, task.load(incumbent), last_day))
        require([check])
        return Decision(*own, check.description, (*judged, check))
    rival, chosen = task.fit_configuration(theirs)
    choice = choose_configuration(task.compare(model, rival))
    winner = own if choice.winner == "candidate" else (theirs, chosen)
    return Decision(*winner, choice.sentence, tuple(judged))
