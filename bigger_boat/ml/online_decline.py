"""Has a version become worse since it began to serve? Its last days against its first, or against its offline number.

What belongs elsewhere: the metric of a day (``online_metrics.py``), what follows from a decline
(``automation/retraining.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

FEWEST_SESSIONS = 30
"""Days with fewer sessions than this say little."""
DAYS = 3
"""How many days are held together: one alone says little."""
STANDARD_ERRORS = 1.96
FIRST_DAYS, OFFLINE = "first days", "offline number"


@dataclass(frozen=True)
class DayValue:
    """A metric of one day with the bounds of its interval (95 %)."""

    day: str
    value: float
    low: float
    high: float
    answers: int
    sessions: int


@dataclass(frozen=True)
class Decline:
    """How much worse the last days are: ``fall`` relative to ``then``; ``clear`` if more than chance.

    ``against`` says what ``then`` is: the version's first days, or its offline number. Negative falls are rises.
    """

    metric: str
    then: float
    now: float
    fall: float
    clear: bool
    against: str
    last_day: str


def decline(
    metric: str, days: Sequence[DayValue], offline: float | None = None, lower_is_better: bool = False
) -> Decline | None:
    """Return the decline, None where too little is known; days with too few sessions are left out.

    Until there are twice three days, the last three are held against ``offline``, if that is given.
    """
    usable = [
        day
        for day in sorted(days, key=lambda one: one.day)
        if day.sessions >= FEWEST_SESSIONS and isfinite(day.high - day.low)
    ]
    if len(usable) < DAYS or (len(usable) < 2 * DAYS and offline is None):
        return None
    now, now_error = _pooled(usable[-DAYS:])
    then, then_error = _pooled(usable[:DAYS]) if len(usable) >= 2 * DAYS else (offline, 0.0)
    if not then:
        return None
    lost = now - then if lower_is_better else then - now
    clear = lost > STANDARD_ERRORS * sqrt(now_error**2 + then_error**2)
    against = FIRST_DAYS if len(usable) >= 2 * DAYS else OFFLINE
    return Decline(metric, then, now, lost / then, clear, against, usable[-1].day)


def _pooled(days: Sequence[DayValue]) -> tuple[float, float]:
    """Return the mean over the answers of several days, and its standard error: days are independent."""
    total = sum(day.answers for day in days)
    value = sum(day.answers * day.value for day in days) / total
    errors = [(day.high - day.low) / (2 * STANDARD_ERRORS) for day in days]
    return value, sqrt(sum((day.answers / total * error) ** 2 for day, error in zip(days, errors, strict=True)))
