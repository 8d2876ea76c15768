"""Were the answers right? Logged predictions joined with what their sessions then did.

An answer's session is the one its request named, else the one whose event says that it follows from the request
(``request_id`` of a collected event). Only events after the answer count. What belongs elsewhere: the log
(``data/prediction_*.py``), whether the numbers have fallen (``online_decline.py``).

``events`` are rows (session_id, timestamp_ms, action, sku, request_id or null) of the answers' day and the next.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bigger_boat.data.vocabulary import ITEM_ACTIONS
from bigger_boat.ml.intent_metrics import auc, log_losses
from bigger_boat.ml.intervals import Interval, mean_interval
from bigger_boat.ml.metrics import hits, reciprocal_ranks, target_ranks
from bigger_boat.ml.online_decline import FEWEST_SESSIONS, STANDARD_ERRORS

K = 20
HORIZON_MS = 30 * 60 * 1000
"""What a session looks at later than this does not follow from the answer: a session ends after half an hour."""
SAME_PAGE_MS = 2_000
"""A page asks before its own view is collected: an event of the last product asked about, so soon, is that page."""
HIT_RATE, MRR, CLICKS = "hit_rate", "mrr", "click_through"
HIT_RATE_AT_K, MRR_AT_K = f"hit_rate@{K}", f"mrr@{K}"
PURCHASED, PREDICTED, LOG_LOSS, AUC = "purchased", "predicted", "log_loss", "auc"

_KEYS = ["request_id", "position"]


@dataclass(frozen=True)
class OnlineMetric:
    """A metric of a version on a day, with its interval over sessions. ``offline``: what its bundle says, if it does.

    ``enough``: from so many sessions that it says something.
    """

    endpoint: str
    version: str
    metric: str
    value: float
    low: float
    high: float
    answers: int
    sessions: int
    offline: float | None = None

    @property
    def enough(self) -> bool:
        return self.sessions >= FEWEST_SESSIONS


def join_sessions(answers: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Return the answers whose session is known, with ``session`` and ``after_ms``: later events follow the answer."""
    named = events.filter(pl.col("request_id").is_not_null()).sort("timestamp_ms")
    by_request = named.group_by("request_id", maintain_order=True).agg(told=pl.col("session_id").first())
    alone = answers.join(answers.group_by("request_id").len(), on="request_id").with_columns(
        pl.coalesce("at_ms", "answered_at_ms").alias("asked_ms")
    )
    told = pl.when(pl.col("len") == 1).then("told")  # an event does not say which session of a request it follows
    return (
        alone.join(by_request, on="request_id", how="left")
        .with_columns(
            session=pl.coalesce("session_id", told),
            after_ms=pl.max_horizontal("asked_ms", pl.col("timestamps_ms").list.max()),
            last_sku=pl.col("skus").list.last().fill_null(""),
        )
        .filter(pl.col("session").is_not_null())
        .drop("len", "told")
    )


def recommendation_outcomes(answers: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Return per answer of known session: the place in its list of the product looked at next (``rank``, 0: not in it).

    ``rank`` is null where the session looked at nothing more in time. ``clicked``: an event that names this request is
    of a product in the list.
    """
    joined = join_sessions(answers.filter(pl.col("recommended").is_not_null()), events)
    items = events.filter(pl.col("action").is_in(ITEM_ACTIONS) & (pl.col("sku") != ""))
    later = joined.select(*_KEYS, "session", "after_ms", "last_sku").join(
        items.select(session="session_id", at="timestamp_ms", sku="sku"), on="session"
    )
    waited = pl.col("at") - pl.col("after_ms")
    own_page = (pl.col("sku") == pl.col("last_sku")) & (waited <= SAME_PAGE_MS)
    following = later.filter((waited > 0) & (waited <= HORIZON_MS) & ~own_page).sort("at", "sku")
    first = following.group_by(_KEYS, maintain_order=True).agg(next_sku=pl.col("sku").first())
    clicks = events.filter(pl.col("request_id").is_not_null() & (pl.col("sku") != ""))
    clicked = clicks.select("request_id", session="session_id", clicked_sku="sku").unique()
    marked = joined.join(clicked, on=["request_id", "session"]).filter(
        pl.col("recommended").list.contains(pl.col("clicked_sku"))
    )
    told = joined.join(first, on=_KEYS, how="left").join(
        marked.select(*_KEYS, clicked=pl.lit(True)).unique(), on=_KEYS, how="left", maintain_order="left"
    )
    outcome = told.with_columns(rank=_ranks(told), clicked=pl.col("clicked").fill_null(False))
    return outcome.select(*_KEYS, "version", "session", "k", "exclude_seen", "rank", "clicked").sort(_KEYS)


def intent_outcomes(answers: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """Return per answer of known session the probability and whether a purchase came after it."""
    joined = join_sessions(answers.filter(pl.col("purchase_probability").is_not_null()), events)
    bought = events.filter(pl.col("action") == "purchase").group_by("session_id").agg(last=pl.col("timestamp_ms").max())
    return (
        joined.join(bought, left_on="session", right_on="session_id", how="left")
        .select(
            *_KEYS,
            "version",
            "session",
            "purchase_probability",
            purchased=(pl.col("last") > pl.col("after_ms")).fill_null(False),
        )
        .sort(_KEYS)
    )


def recommendation_metrics(outcomes: pl.DataFrame, offline: Mapping[str, Mapping[str, float]]) -> list[OnlineMetric]:
    """Return hit rate, MRR and click-through of each version; ``@20`` are those of answers like the offline ones.

    ``offline``: by version, its bundle's ``hit_rate`` and ``mrr`` at 20. Hit rate and MRR are of answers that were
    followed by another product, click-through of all.
    """
    found = []
    for version, rows in _by_version(outcomes):
        told = offline.get(version, {})
        followed = rows.filter(pl.col("rank").is_not_null())
        alike = followed.filter((pl.col("k") >= K) & ~pl.col("exclude_seen"))
        ranks, alike_ranks = followed["rank"].to_numpy(), alike["rank"].to_numpy()
        alike_ranks = np.where(alike_ranks <= K, alike_ranks, 0)
        for metric, values, of, beside in (
            (HIT_RATE, hits(ranks), followed, None),
            (MRR, reciprocal_ranks(ranks), followed, None),
            (HIT_RATE_AT_K, hits(alike_ranks), alike, told.get("hit_rate")),
            (MRR_AT_K, reciprocal_ranks(alike_ranks), alike, told.get("mrr")),
            (CLICKS, rows["clicked"].cast(pl.Float64).to_numpy(), rows, None),
        ):
            found += _metric("recommendation", version, metric, values, of, beside)
    return found


def intent_metrics(outcomes: pl.DataFrame, offline: Mapping[str, Mapping[str, float]]) -> list[OnlineMetric]:
    """Return predicted and real purchases, log loss and AUC of each version.

    ``offline``: by version, its bundle's ``log_loss`` and ``auc``: of sessions with a cart, not of all that are asked.
    """
    found = []
    for version, rows in _by_version(outcomes):
        told, probabilities = offline.get(version, {}), rows["purchase_probability"].to_numpy()
        labels = rows["purchased"].to_numpy()
        found += _metric("intent", version, PREDICTED, probabilities, rows, None)
        found += _metric("intent", version, PURCHASED, labels.astype(float), rows, None)
        found += _metric("intent", version, LOG_LOSS, log_losses(labels, probabilities), rows, told.get("log_loss"))
        value = auc(labels, probabilities)
        if np.isfinite(value):
            counts = len(rows), rows["session"].n_unique()
            found.append(OnlineMetric("intent", version, AUC, value, 0.0, 1.0, *counts, told.get("auc")))
    return found


def calibration_bins(outcomes: pl.DataFrame, bins: int = 10) -> list[dict[str, Any]]:
    """Return by version and bin of probability: answers, sessions, mean prediction, share that bought, its interval."""
    found = []
    for version, rows in _by_version(outcomes):
        placed = rows.with_columns(bin=(pl.col("purchase_probability") * bins).floor().clip(0, bins - 1).cast(pl.Int32))
        for (place,), members in sorted(placed.partition_by("bin", as_dict=True).items()):
            share = _interval(members["purchased"].cast(pl.Float64).to_numpy(), members["session"])
            found.append(
                {
                    "version": version,
                    "bin": f"{place / bins:.1f} to {(place + 1) / bins:.1f}",
                    "answers": len(members),
                    "sessions": share.count,
                    "predicted": float(members["purchase_probability"].mean()),
                    "purchased": share.value,
                    "low": max(0.0, share.low),
                    "high": min(1.0, share.high),
                }
            )
    return found


def write_metrics(path: Path, metrics: Sequence[OnlineMetric]) -> None:
    """Write a day's metrics as a table, at once."""
    kinds = dict.fromkeys(("endpoint", "version", "metric"), pl.String) | dict.fromkeys(
        ("value", "low", "high"), pl.Float64
    )
    schema = kinds | {"answers": pl.Int64, "sessions": pl.Int64, "offline": pl.Float64}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".draft-{os.getpid()}-{path.name}")
    pl.DataFrame([asdict(one) for one in metrics], schema=schema).write_parquet(draft)
    os.replace(draft, path)


def read_metrics(path: Path) -> list[OnlineMetric]:
    """Return the metrics of a day's table."""
    return [OnlineMetric(**row) for row in pl.read_parquet(path).to_dicts()]


def _metric(
    endpoint: str, version: str, metric: str, values: np.ndarray, rows: pl.DataFrame, offline: float | None
) -> list[OnlineMetric]:
    if not len(values):
        return []
    value, low, high, sessions = _interval(values, rows["session"])
    return [OnlineMetric(endpoint, version, metric, value, low, high, len(values), sessions, offline)]


def _interval(values: np.ndarray, sessions: pl.Series) -> Interval:
    """Return the mean with its interval; where all are 0 or all are 1, whose draws are all alike, Wilson's bounds."""
    found = mean_interval(values, sessions.to_list())
    if found.value not in (0.0, 1.0) or found.count < 2:
        return found
    bound = STANDARD_ERRORS**2 / (found.count + STANDARD_ERRORS**2)
    return found._replace(low=0.0, high=bound) if not found.value else found._replace(low=1 - bound, high=1.0)


def _by_version(outcomes: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    for (version,), rows in sorted(outcomes.partition_by("version", as_dict=True).items()):
        yield version, rows


def _ranks(rows: pl.DataFrame) -> pl.Series:
    """Return the 1-based place of ``next_sku`` in ``recommended``; null where there is none."""
    width = max(1, int(rows["recommended"].list.len().max() or 0))
    lists = [[*row, *[""] * (width - len(row))] for row in rows["recommended"].to_list()]
    ranked = np.array(lists, dtype=object).reshape(len(rows), width)
    ranks = target_ranks(ranked, np.array(rows["next_sku"].fill_null("").to_list(), dtype=object))
    found = pl.DataFrame({"followed": rows["next_sku"].is_not_null(), "rank": ranks})
    return found.select(pl.when("followed").then("rank"))["rank"]
