"""Which candidate becomes the recommendation champion, on validation, and how good all are on the test days.

A richer kind is chosen over a simpler one only if it is clearly better on the same predictions: DESIGN's promotion rule
between configurations. What belongs elsewhere: measuring one model (``recommender_evaluation.py``), the comparison with
what serves (``promotion.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bigger_boat.ml.ranking import Ranker
from bigger_boat.ml.recommendation_task import BASELINES, RecommendationTask, by_name
from bigger_boat.ml.recommender_evaluation import evaluate


@dataclass(frozen=True)
class Choice:
    """``kind`` is chosen, ``sentence`` says why; ``validation``: rows of candidates and baselines on validation."""

    kind: str
    sentence: str
    validation: dict[str, dict]


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
    baselines = [evaluate(baseline.fit(task.train), sessions) for baseline in BASELINES]
    return Choice(best, sentence, by_name([*measured.values(), *baselines]))


def measure(task: RecommendationTask, models: Mapping[str, Ranker], split: str) -> dict[str, dict]:
    """Return ``SPLIT`` and ``SPLIT_without_repeats``: rows of models and of the whole ladder, best first."""
    sessions = task.judged(split)
    rankers = [*models.values(), *(baseline.fit(task.train) for baseline in BASELINES)]
    tables = {}
    for name, exclude_seen in ((split, False), (f"{split}_without_repeats", True)):
        evaluations = [evaluate(ranker, sessions, exclude_seen=exclude_seen) for ranker in rankers]
        tables[name] = by_name([*evaluations, *task.neighbours(split, exclude_seen)])
    return tables
