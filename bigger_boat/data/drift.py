"""How far the data have moved: the population stability index (PSI) between two windows of days.

PSI = sum over categories of (now - then) * ln(now / then), of shares; symmetric, 0 where nothing moved. By the usual
rule of thumb (Siddiqi, Credit Risk Scorecards, 2006) below 0.1 is no change, 0.1 to 0.25 some, above 0.25 a great one.
Small samples alone make some, about (categories - 1) * (1 / n_then + 1 / n_now): that is taken off.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log

SMALLEST_SHARE = 1e-4
"""A category that one window lacks counts as this much of it."""


@dataclass(frozen=True)
class Drift:
    """The PSI of one variable; ``largest`` names the category that moved most, with its shares then and now."""

    name: str
    psi: float
    largest: str
    then: float
    now: float


def drift(name: str, then: Mapping[str, int], now: Mapping[str, int]) -> Drift:
    """Return the drift between two tables of counts by category; 0 where one of them is empty."""
    total_then, total_now = sum(then.values()), sum(now.values())
    if not total_then or not total_now:
        return Drift(name, 0.0, "", 0.0, 0.0)
    shares = {
        category: (_share(then.get(category, 0), total_then), _share(now.get(category, 0), total_now))
        for category in {*then, *now}
    }
    terms = {category: (after - before) * log(after / before) for category, (before, after) in shares.items()}
    largest = max(sorted(terms), key=terms.__getitem__)
    expected = (len(shares) - 1) * (1 / total_then + 1 / total_now)
    return Drift(name, max(0.0, sum(terms.values()) - expected), largest, *shares[largest])


def _share(count: int, total: int) -> float:
    return max(count / total, SMALLEST_SHARE)


def grouped(counts: Mapping[str, int], kept: set[str], others: str = "others") -> dict[str, int]:
    """Return the counts of ``kept`` categories, and all others as one."""
    found = {category: count for category, count in counts.items() if category in kept}
    return {**found, others: sum(counts.values()) - sum(found.values())}
