"""Which candidate becomes the recommendation champion, on validation, and how good all are on the test days.

A richer kind is chosen over a simpler one only if it is clearly better on the same predictions: the promotion rule
between configurations. What belongs elsewhere: measuring one model (``recommender_evaluation.py``), the comparison with
what serves (``promotion.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bigger_boat.errors import TrainingError
from bigger_boat.ml.bundle import Bundle
from bigger_boat.ml.gate import GateCheck, check_data_versions
from bigger_boat.ml.ranking import Ranker
from bigger_boat.ml.recommendation_task import RecommendationTask, by_name
from bigger_boat.ml.recommender_evaluation import evaluate
from bigger_boat.ml.recommender_kinds import KINDS


@dataclass(frozen=True)
class Choice:
    """``kind`` is chosen, ``sentence`` says why; ``validation``: rows of candidates and baselines on validation."""

    kind: str
    sentence: str
    validation: dict[str, dict]


def of_this_data(made: Mapping[str, Bundle], dataset: str) -> tuple[dict[str, Bundle], list[str]]:
    """Return the bundles (by kind) that were fitted on version ``dataset``, and a sentence for each kind left out.

    Raises TrainingError where none was: candidates of other data cannot be compared on this.
    """
    judged = {
        kind: check_data_versions(bundle.info["data_versions"], {"recommendation_dataset": dataset})
        for kind, bundle in made.items()
    }
    candidates = {kind: made[kind] for kind in KINDS if kind in judged and judged[kind].passed}
    others = [kind for kind in KINDS if kind not in candidates]
    left_out = [f"{kind}_recommender is left out: {_why(judged.get(kind))}" for kind in others]
    if not candidates:
        raise TrainingError(
            "Expected a recommender of this data and found none. " + " ".join(left_out),
            "bigger-boat run --select '+recommender_leaderboard'",
        )
    return candidates, left_out


def _why(judged: GateCheck | None) -> str:
    return judged.description if judged else "It has not been made."


def choose(task: RecommendationTask, models: Mapping[str, Ranker]) -> Choice:
    """Choose among ``models`` (by kind, the simplest first) by MRR@20 on validation, intervals of differences."""
    sessions = task.judged("validation")
    measured = {kind: evaluate(model, sessions) for kind, model in models.items()}
    kinds = list(measured)
    best, reasons = kinds[0], []
    for kind in kinds[1:]:
        difference = measured[kind].mrr_above(measured[best])
        numbers = (
            f"MRR@20 on validation {measured[kind].metrics['mrr']:.4f} against {measured[best].metrics['mrr']:.4f}, "
            f"difference {difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
        )
        if difference.low > 0:
            reasons.append(f"{kind} is clearly better than {best}: {numbers}.")
            best = kind
        else:
            reasons.append(f"{kind} is not clearly better than {best}: {numbers}.")
    sentence = " ".join([*reasons, f"{best} is chosen."]) if reasons else "It is the only candidate."
    baselines = [evaluate(baseline, sessions) for baseline in task.baselines]
    return Choice(best, sentence, by_name([*measured.values(), *baselines]))


def measure(task: RecommendationTask, models: Mapping[str, Ranker], split: str) -> dict[str, dict]:
    """Return ``SPLIT`` and ``SPLIT_without_repeats``: rows of models and of the whole ladder, best first."""
    sessions = task.judged(split)
    rankers = [*models.values(), *task.baselines, *task.neighbours()]
    return {
        name: by_name([evaluate(ranker, sessions, exclude_seen=exclude_seen) for ranker in rankers])
        for name, exclude_seen in ((split, False), (f"{split}_without_repeats", True))
    }
