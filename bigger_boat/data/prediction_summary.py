"""What a day's answers were like: how many and how fast, by version, and how far their scores have moved.

Tables in, tables out. What belongs elsewhere: whether they were right (``ml/online_metrics.py``).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from bigger_boat.data.drift import Drift, drift

SCORE_DAYS = 3
"""Days that scores are compared over: one alone has its own mix of shoppers."""
FEWEST_SCORES = 300
"""Fewer answers than this, on either side, say nothing about drift."""
LARGEST_EXPONENT = 10.0


@dataclass(frozen=True)
class AnswersSummary:
    """A version's answers of a day. Shares are None where nothing could be counted.

    ``fallback_share``: what sessions begin with, of the answers to sessions with a product; ``unknown_share``: of the
    products asked about; ``with_session_share``: answers that name a session, and can be joined with what it then did.
    """

    endpoint: str
    version: str
    model: str
    answers: int
    requests: int
    latency_p50_ms: float
    latency_p99_ms: float
    fallback_share: float | None
    unknown_share: float | None
    with_session_share: float


def summarize(answers: pl.DataFrame) -> list[AnswersSummary]:
    """Return a summary per endpoint and version, in the order of their names."""
    asked = pl.col("products") > 0
    ranked = pl.col("recommended").is_not_null()
    known = pl.when(ranked & asked)
    rows = answers.group_by("endpoint", "version", "model").agg(
        answers=pl.len(),
        requests=pl.col("request_id").n_unique(),
        latency_p50_ms=pl.col("latency_ms").quantile(0.5),
        latency_p99_ms=pl.col("latency_ms").quantile(0.99),
        fallback_share=known.then(pl.col("fallback").cast(pl.Float64)).mean(),
        unknown_share=known.then("unknown").sum() / known.then("products").sum(),
        with_session_share=pl.col("session_id").is_not_null().mean(),
    )
    shares = pl.col("unknown_share").fill_nan(None)
    return [AnswersSummary(**row) for row in rows.with_columns(shares).sort("endpoint", "version").to_dicts()]


def score_bins(answers: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Return by version how many answers have a score in each bin.

    A probability has ten equal bins; a list's first score, whose scale is the model's own, has two to each doubling.
    """
    probability = (pl.col("purchase_probability") * 10).floor().clip(0, 9) / 10
    first = pl.col("scores").list.first()
    power = (first.log(2) * 2).floor().clip(-2 * LARGEST_EXPONENT, 2 * LARGEST_EXPONENT) / 2
    named = pl.when(first > 0).then(power.cast(pl.String)).when(first.is_not_null()).then(pl.lit("not above 0"))
    scored = answers.select("version", bin=pl.coalesce(probability.cast(pl.String), named)).drop_nulls()
    found: dict[str, dict[str, int]] = {}
    for version, name, count in scored.group_by("version", "bin").len().sort("version", "bin").iter_rows():
        found.setdefault(version, {})[name] = count
    return found


def score_drift(by_day: Mapping[str, Mapping[str, Mapping[str, int]]]) -> dict[str, Drift]:
    """Return by version the drift of its scores: its first days against its last, where both have enough answers.

    ``by_day``: ``score_bins`` of each day. Versions that answered on too few days, or not on the last, are left out.
    """
    found = {}
    last_day = max(by_day, default="")
    for version in by_day.get(last_day, {}):
        days = sorted(day for day, bins in by_day.items() if version in bins)
        then, now = (_added(by_day[day][version] for day in some) for some in (days[:SCORE_DAYS], days[-SCORE_DAYS:]))
        if len(days) >= 2 * SCORE_DAYS and min(sum(then.values()), sum(now.values())) >= FEWEST_SCORES:
            found[version] = drift("scores", then, now)
    return found


def _added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total
