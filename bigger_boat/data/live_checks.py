"""What a day's answers must be like: thresholds, and the sentence where one is passed. None of them blocks.

What belongs elsewhere: the numbers (``prediction_summary.py``, ``ml/online_metrics.py``).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bigger_boat.data.check_specs import CheckSpec

if TYPE_CHECKING:
    from bigger_boat.data.prediction_summary import AnswersSummary

LATENCY_P99_MS = 250.0
FALLBACK_SHARE = 0.25
UNKNOWN_SHARE = 0.15
LOST_SHARE = 0.001
FEWEST_ANSWERS = 100
"""Fewer answers of a version than this are not judged."""

LATENCY = CheckSpec("answers_come_in_time", f"99 of 100 answers come within {LATENCY_P99_MS:g} ms.", blocking=False)
FALLBACK = CheckSpec(
    "few_fallbacks",
    f"At most {FALLBACK_SHARE:.0%} of the sessions with a product get what sessions begin with instead of an answer.",
    blocking=False,
)
UNKNOWN = CheckSpec(
    "few_unknown_products", f"At most {UNKNOWN_SHARE:.0%} of the products asked about are unknown.", blocking=False
)
LOST = CheckSpec("log_is_whole", f"At most {LOST_SHARE:.1%} of the answers were not logged.", blocking=False)
ANSWER_CHECKS = (LATENCY, FALLBACK, UNKNOWN, LOST)

NEAR_OFFLINE = CheckSpec(
    "online_is_near_offline",
    "Hit rate and MRR at 20 of what serves are not clearly below three quarters of their offline numbers.",
    blocking=False,
)
CALIBRATED = CheckSpec(
    "probabilities_are_calibrated",
    "The mean probability of a purchase lies within the interval of the share that bought, widened by half.",
    blocking=False,
)
ONLINE_CHECKS = (NEAR_OFFLINE, CALIBRATED)
SMALLEST_OF_OFFLINE = 0.75
WIDENED = 1.5


@dataclass(frozen=True)
class Judged:
    """``faults`` in words, "" where there is none; ``value``: the worst number judged, None where none was."""

    faults: str
    value: float | None


def judge_answers(rows: "Sequence[AnswersSummary]", dropped: int) -> dict[str, Judged]:
    """Return what each of ``ANSWER_CHECKS`` says of a day."""
    enough = [row for row in rows if row.answers >= FEWEST_ANSWERS]
    answers = sum(row.answers for row in rows)
    lost = dropped / max(1, answers + dropped)
    return {
        LATENCY.name: _largest(enough, "latency_p99_ms", LATENCY_P99_MS, "the slowest hundredth took {:.0f} ms"),
        FALLBACK.name: _largest(enough, "fallback_share", FALLBACK_SHARE, "{:.1%} were what sessions begin with"),
        UNKNOWN.name: _largest(enough, "unknown_share", UNKNOWN_SHARE, "{:.1%} of the products were unknown"),
        LOST.name: Judged(f"{dropped:,} answers were not logged" if lost > LOST_SHARE else "", lost),
    }


def judge_beside_offline(metrics: Iterable) -> Judged:
    """Hold the upper bound of each ``OnlineMetric`` at 20 that has an offline number against a share of that number."""
    judged = [one for one in metrics if one.enough and one.offline and one.metric.endswith("@20")]
    low = [one for one in judged if one.high < SMALLEST_OF_OFFLINE * one.offline]
    told = (f"{one.metric} of {one.version} is {_interval(one)}, offline {one.offline:.3f}" for one in low)
    return Judged("; ".join(told), min((one.value / one.offline for one in judged), default=None))


def judge_calibration(metrics: Iterable) -> Judged:
    """Hold each version's mean probability against the share that bought."""
    by_version: dict[str, dict] = {}
    for one in metrics:
        if one.endpoint == "intent" and one.enough:
            by_version.setdefault(one.version, {})[one.metric] = one
    pairs = [(told["predicted"], told["purchased"]) for told in by_version.values()]
    off = [
        f"{said.version} said {said.value:.3f} on average, and {_interval(bought)} bought"
        for said, bought in pairs
        if not bought.low / WIDENED <= said.value <= bought.high * WIDENED
    ]
    return Judged("; ".join(off), max((abs(said.value - bought.value) for said, bought in pairs), default=None))


def _interval(one: object) -> str:
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]"  # type: ignore[attr-defined]


def _largest(rows: "Sequence[AnswersSummary]", name: str, limit: float, words: str) -> Judged:
    values = {f"{row.endpoint} {row.version}": getattr(row, name) for row in rows}
    known = {who: value for who, value in values.items() if value is not None}
    faults = [f"{who}: {words.format(value)}" for who, value in known.items() if value > limit]
    return Judged("; ".join(faults), max(known.values(), default=None))
