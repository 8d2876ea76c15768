"""The gate between a model and the shop: pure checks with a sentence each, and the promotion rule.

Belongs here: what is decided from numbers that others computed. Does not belong here: computing predictions, starting
servers, reading data sets. Callers: the champion and endpoint assets (which refuse) and their checks (which show).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bigger_boat.errors import BundleError, GateRefused
from bigger_boat.ml.bundle import read_bundle
from bigger_boat.ml.golden import compare_golden
from bigger_boat.ml.intervals import Interval

LARGEST_RELATIVE_LOSS = 0.02
"""A refresh is promoted unless the lower bound of the difference is worse than this share of the incumbent's value."""

SMALLEST_OVERLAP = 0.25
"""Of a list's products, the share that must stay when an event is removed or repeated."""

_SHOWN_DIFFERENCES = 3


@dataclass(frozen=True)
class GateCheck:
    """One decision: ``description`` is a sentence with its numbers, ``value`` what can be plotted (None: nothing)."""

    name: str
    passed: bool
    description: str
    value: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Candidate against incumbent on validation days that neither has seen."""

    metric: str
    candidate: float
    incumbent: float
    interval: Interval
    days: int


@dataclass(frozen=True)
class ConfigurationChoice:
    """Whose configuration is fitted again on all days: ``candidate`` or ``incumbent``, and why."""

    winner: str
    sentence: str


def check_digests(directory: Path) -> GateCheck:
    """Every file of the bundle is as it was written, and its contract version is read here."""
    try:
        bundle = read_bundle(directory)
    except BundleError as error:
        return GateCheck("bundle_is_intact", False, error.message)
    return GateCheck(
        "bundle_is_intact",
        True,
        f"All {len(bundle.files)} files of {bundle.name} version {bundle.version} match their digests.",
        float(len(bundle.files)),
    )


def check_golden(golden: Sequence[Mapping[str, Any]], answers: Sequence[Sequence[Mapping[str, Any]]]) -> GateCheck:
    """The served model answers the golden requests as it did offline. ``answers``: predictions, request by request."""
    name = "endpoint_agrees_with_offline"
    if not golden:
        return GateCheck(name, False, "The bundle has no golden answers to compare with.", 0.0)
    if len(golden) != len(answers):
        return GateCheck(name, False, f"{len(golden)} golden requests were asked, {len(answers)} answers came.", None)
    differences = [
        f"request {number}, {text}"
        for number, (entry, answer) in enumerate(zip(golden, answers, strict=True))
        for text in compare_golden(entry["predictions"], answer)
    ]
    if differences:
        shown = "; ".join(differences[:_SHOWN_DIFFERENCES])
        text = f"The served answers differ from the offline ones in {len(differences)} places: {shown}."
        return GateCheck(name, False, text, float(len(differences)))
    return GateCheck(name, True, f"All {len(golden)} golden requests are answered as offline.", 0.0)


def check_beats(baseline: str, metric: str, candidate: float, baseline_value: float) -> GateCheck:
    """The model is better than a baseline in its main metric; equal is not enough, and neither is a NaN."""
    better = bool(candidate > baseline_value)
    verb = "beats" if better else "does not beat"
    text = f"The model {verb} {baseline.replace('_', ' ')}: {metric} {candidate:.4f} against {baseline_value:.4f}."
    return GateCheck(f"beats_{baseline}", better, text, _finite(candidate - baseline_value))


def check_recommendation_baselines(mrr: float, popularity: float, session_popularity: float) -> list[GateCheck]:
    """The two baselines that a recommender must beat in MRR@20."""
    return [
        check_beats("popularity", "MRR@20", mrr, popularity),
        check_beats("session_popularity", "MRR@20", mrr, session_popularity),
    ]


def check_steadiness(overlaps: Mapping[str, float | None]) -> GateCheck:
    """One event more or less leaves most of a list. ``overlaps``: by the change, the share that stays; None: not asked.

    A model of which nobody measured it does not pass.
    """
    shares = {change: share for change, share in overlaps.items() if share is not None}
    lowest = min(shares.values(), default=0.0)
    shown = " and ".join(f"{share:.0%} with an event {change}" for change, share in shares.items())
    text = f"Of a list stays {shown or 'nobody measured what'}; at least {SMALLEST_OVERLAP:.0%} must."
    return GateCheck("lists_are_steady", lowest >= SMALLEST_OVERLAP, text, lowest)


def check_intent_baseline(pr_auc: float, base_rate: float) -> list[GateCheck]:
    """The baseline that an intent model must beat in PR-AUC; that of a constant answer is the base rate."""
    return [check_beats("base_rate", "PR-AUC", pr_auc, base_rate)]


def check_dataset(name: str, version: str, checks: Sequence[Mapping[str, Any]]) -> GateCheck:
    """The data set the model was fitted on passed every blocking check of its manifest."""
    blocking = [check for check in checks if check["blocking"]]
    failed = [check for check in blocking if not check["passed"]]
    check_name = f"{name}_passed_its_checks"
    if not blocking:
        return GateCheck(check_name, False, f"The data set {name} {version} carries no results of checks.", 0.0)
    if failed:
        reasons = "; ".join(f"{check['name']}: {check['description']}" for check in failed)
        text = f"The data set {name} {version} failed {len(failed)} of {len(blocking)} blocking checks: {reasons}"
        return GateCheck(check_name, False, text, float(len(failed)))
    return GateCheck(
        check_name, True, f"The data set {name} {version} passed its {len(blocking)} blocking checks.", 0.0
    )


def check_data_versions(fitted_on: Mapping[str, str], current: Mapping[str, str]) -> GateCheck:
    """The model was fitted on the data that was judged, not on other data."""
    other = sorted(name for name in current if fitted_on.get(name) != current[name])
    if other:
        pairs = "; ".join(f"{name} {fitted_on.get(name, 'unknown')} instead of {current[name]}" for name in other)
        return GateCheck(
            "fitted_on_this_data", False, f"The model was fitted on other data: {pairs}.", float(len(other))
        )
    return GateCheck(
        "fitted_on_this_data", True, f"The model was fitted on the {len(current)} data versions judged.", 0.0
    )


def check_judged(info: Mapping[str, Any]) -> GateCheck:
    """The bundle is a champion: fitted again on all days after the champion's gate let its candidate pass."""
    name, judged = "passed_the_champions_gate", info.get("gate") or []
    failed = [check["description"] for check in judged if not check["passed"]]
    if not judged or not info.get("refit"):
        text = "The bundle was not judged by the champion's gate: a candidate, fitted on the training days only."
        return GateCheck(name, False, text, 0.0)
    if failed:
        text = f"The champion's gate refused the bundle: {'; '.join(failed)}"
        return GateCheck(name, False, text, float(len(failed)))
    return GateCheck(name, True, f"All {len(judged)} checks of the champion's gate passed.", float(len(judged)))


def choose_configuration(comparison: Comparison | None) -> ConfigurationChoice:
    """Another kind or configuration is chosen only if clearly better; otherwise the incumbent's is kept and refreshed.

    Both were fitted on the same training days. ``comparison`` is None if nothing serves yet.
    """
    if comparison is None:
        return ConfigurationChoice("candidate", "Nothing serves yet: the candidate's configuration is chosen.")
    if comparison.interval.low > 0:
        text = f"The candidate's configuration is chosen: {_numbers(comparison)}, clear of zero."
        return ConfigurationChoice("candidate", text)
    text = f"The incumbent's configuration is kept and refreshed: {_numbers(comparison)}, not clearly better."
    return ConfigurationChoice("incumbent", text)


def check_not_worse(comparison: Comparison | None) -> GateCheck:
    """For the same configuration on newer data: not more than 2 % worse than what serves, at the lower bound.

    ``comparison`` covers the validation days after the incumbent's last day; None means that nothing serves or that
    there are no such days, and then the baselines decide.
    """
    name = "not_worse_than_incumbent"
    if comparison is None or comparison.days == 0:
        return GateCheck(
            name, True, "There are no validation days after the incumbent's last day: the baselines decide."
        )
    allowed = -LARGEST_RELATIVE_LOSS * comparison.incumbent
    passed = bool(comparison.interval.low >= allowed)
    verdict = "may replace" if passed else "may not replace"
    text = (
        f"The candidate {verdict} what serves: {_numbers(comparison)}; the lower bound must not be below "
        f"{allowed:+.4f} ({LARGEST_RELATIVE_LOSS:.0%} of the incumbent's)."
    )
    return GateCheck(name, passed, text, _finite(comparison.interval.low))


def require(checks: Sequence[GateCheck], subject: str = "The model") -> None:
    """Raise GateRefused with every reason unless all checks passed; no checks at all is a refusal, too."""
    reasons = [check.description for check in checks if not check.passed]
    if not checks:
        reasons = ["No check ran."]
    if reasons:
        lines = "\n".join(f"  - {reason}" for reason in reasons)
        raise GateRefused(
            f"{subject} is not promoted:\n{lines}",
            "What serves goes on serving. Look at the numbers above, repair the data or the model, and run again.",
        )


def _numbers(comparison: Comparison) -> str:
    interval = comparison.interval
    return (
        f"{comparison.metric} {comparison.candidate:.4f} against {comparison.incumbent:.4f} on {comparison.days} "
        f"validation days, difference {interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
