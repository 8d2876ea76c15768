"""What a plan will take, before it is begun: rows, seconds, credits; from how long the same steps took before.

Pure: what is to be done and what was measured come in as numbers. What belongs elsewhere: reading past runs
(``past_runs.py``), saying it (``console.py``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LATEST = 3
"""How many past runs of a step without rows count."""

CREDITS_PER_HOUR = {
    "XSMALL": 1,
    "SMALL": 2,
    "MEDIUM": 4,
    "LARGE": 8,
    "XLARGE": 16,
    "XXLARGE": 32,
    "XXXLARGE": 64,
    "X4LARGE": 128,
    "X5LARGE": 256,
    "X6LARGE": 512,
}
"""What a standard virtual warehouse of Snowflake (first generation) takes while it runs, by size."""

ALSO_CALLED = {
    f"{n}XLARGE": name for n, name in ((2, "XXLARGE"), (3, "XXXLARGE"), *((n, f"X{n}LARGE") for n in (4, 5, 6)))
}

SHORTEST_S = 60.0
"""Snowflake charges a minute at least each time a virtual warehouse starts."""


@dataclass(frozen=True)
class Observation:
    """How long a step took; ``rows``: what its days had landed, 0 where it has no days."""

    rows: int
    seconds: float


@dataclass(frozen=True)
class Work:
    """A step to run: ``name`` says whose past counts, ``assets`` what it makes; ``in_warehouse``: credits are used.

    ``job``: of which queue it is a job where steps are such (``gpu``, ``cpu``), "" where it is none.
    """

    name: str
    rows: int = 0
    assets: tuple[str, ...] = ()
    in_warehouse: bool = False
    job: str = ""


@dataclass(frozen=True)
class Estimate:
    """``seconds``: None where nothing of it was ever measured; ``unknown``: assets of which nothing was.

    ``jobs_s``: seconds of what may be jobs, by queue.
    """

    days: int
    rows: int
    seconds: float | None
    unknown: tuple[str, ...]
    warehouse_s: float
    jobs_s: Mapping[str, float] = field(default_factory=dict)


def estimate(days: int, rows: int, work: Sequence[Work], history: Mapping[str, Sequence[Observation]]) -> Estimate:
    """Return what ``work`` will take, each step by its own history."""
    seconds, warehouse_s, known, unknown = 0.0, 0.0, False, []
    jobs_s: dict[str, float] = {}
    for step in work:
        expected = expected_seconds(history.get(step.name, ()), step.rows)
        if expected is None:
            unknown += step.assets
            continue
        known = known or bool(step.assets)
        seconds += expected
        warehouse_s += expected if step.in_warehouse else 0.0
        if step.job:
            jobs_s[step.job] = jobs_s.get(step.job, 0.0) + expected
    return Estimate(days, rows, seconds if known else None, tuple(dict.fromkeys(unknown)), warehouse_s, jobs_s)


def expected_seconds(observed: Sequence[Observation], rows: int) -> float | None:
    """Return how long a step will take for so many rows; None without a past. Latest observations come first.

    Without rows: the mean of the latest. One size of rows: in proportion. Several: the least-squares line, which
    neither falls nor starts below zero.
    """
    if not observed:
        return None
    if not rows:
        latest = observed[:LATEST]
        return sum(each.seconds for each in latest) / len(latest)
    mean_rows = sum(each.rows for each in observed) / len(observed)
    mean_s = sum(each.seconds for each in observed) / len(observed)
    spread = sum((each.rows - mean_rows) ** 2 for each in observed)
    if not spread:
        return mean_s * rows / mean_rows if mean_rows else mean_s
    slope = sum((each.rows - mean_rows) * (each.seconds - mean_s) for each in observed) / spread
    if slope <= 0:
        return mean_s
    start = mean_s - slope * mean_rows
    if start < 0:
        return rows * sum(each.rows * each.seconds for each in observed) / sum(each.rows**2 for each in observed)
    return start + slope * rows


def credits_for(size: str, seconds: float) -> float | None:
    """Return the credits of a virtual warehouse that runs so long; None for a size without a known price."""
    name = size.upper().replace("-", "").replace("_", "")
    per_hour = CREDITS_PER_HOUR.get(ALSO_CALLED.get(name, name))
    if per_hour is None:
        return None
    return per_hour * max(seconds, SHORTEST_S) / 3600 if seconds else 0.0


def duration(seconds: float) -> str:
    """Return a duration in words, as exactly as an estimate deserves."""
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
