"""How close a simulated shop is to real ones: what is measured in its three files, and what it should be.

What belongs elsewhere: the parameters (``parameters.py``), models run on the shop (``docs/shop_calibration.py``).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from bigger_boat.data.event_rules import TIME
from bigger_boat.data.intent_dataset import SESSION_COLUMNS

SESSION, ACTION, SKU = "session_id_hash", "product_action", "product_sku_hash"
DAY_MS = 86_400_000
LAST_DAYS = 4
"""What counts as later when products new to the shop are counted."""


@dataclass(frozen=True)
class Target:
    """A measure should lie from ``low`` to ``high``; ``real`` is the real data's value in words, with its source."""

    measure: str
    low: float
    high: float
    real: str


SHARED_TARGETS = (
    Target("rows_per_session", 6.8, 7.8, "7.3 (paper)"),
    Target("pageview_rows", 0.68, 0.77, "0.70 (paper)"),
    Target("product_rows", 0.23, 0.30, "0.28 (paper)"),
    Target("search_rows", 0.015, 0.025, "0.02 (paper)"),
    Target("sessions_without_product", 0.63, 0.69, "0.66 (paper)"),
    Target("median_product", 1, 10, "5 at most, of 57,000 (paper)"),
    Target("gap_quartile_1_s", 22, 28, "25 (clicks)"),
    Target("gap_median_s", 50, 62, "56 (clicks)"),
    Target("gap_quartile_3_s", 116, 142, "129 (clicks)"),
    Target("gap_percentile_99_s", 1_100, 1_790, "1,740 (clicks), 1,249 (other clicks)"),
    Target("clicks_median", 3, 5, "3 (clicks), about 5 (paper)"),
    Target("clicks_mean", 4, 6.6, "4 (clicks), 6 (paper: 10.5 M events in 1.7 M sessions)"),
    Target("clicks_percentile_90", 7, 13, "7 (clicks)"),
    Target("clicks_percentile_99", 18, 28, "18 (clicks)"),
    Target("sessions_with_cart", 0.04, 0.055, "0.04 (assumption)"),
    Target("carts_bought", 0.18, 0.28, "about 0.20 (paper)"),
    Target("products_with_metadata", 0.56, 0.64, "0.60 (paper)"),
    Target("products_with_all_metadata", 0.34, 0.46, "a part of them (paper)"),
    Target("saturday_to_monday", 0.72, 0.90, "0.81 (assumption: a weekly rhythm)"),
    Target("evening_to_night", 5, 20, "14 (assumption: 21 to 3 o'clock UTC)"),
)

TARGETS = {
    "yoochoose": (
        *SHARED_TARGETS,
        Target("top_1_percent", 0.26, 0.36, "0.34 (paper); far less where the ladder comes from"),
        Target("top_5_percent", 0.50, 0.67, "0.67 (paper); far less where the ladder comes from"),
        Target("repeats_last", 0.23, 0.29, "0.26 (clicks)"),
        Target("repeats_seen", 0.34, 0.41, "0.36 (clicks)"),
        Target("new_products", 0.01, 0.10, "0.067 (paper)"),
    ),
    "challenge": (
        *SHARED_TARGETS,
        Target("top_1_percent", 0.29, 0.38, "0.34 (paper)"),
        Target("top_5_percent", 0.56, 0.70, "0.67 (paper)"),
        Target("repeats_of_details", 0.11, 0.16, "0.13 (paper)"),
        Target("new_products", 0.03, 0.10, "0.067 (paper)"),
    ),
}
"""By shop. "Clicks": the yoochoose extract; the shares are the challenge's, and the two pull lengths apart."""


REAL_LADDER = {
    "popularity": (0.089, 0.026),
    "session_popularity": (0.381, 0.264),
    "prod2vec_mean": (0.531, 0.270),
    "prod2vec_last": (0.586, 0.339),
    "markov": (0.580, 0.346),
    "sequential_rules": (0.620, 0.347),
    "sknn": (0.643, 0.320),
    "vsknn": (0.680, 0.372),
    "vstan": (0.686, 0.375),
}
"""HR@20 and MRR@20 of simple methods on 70,000 real clicks of yoochoose, every next click of every test session."""


def measure(directory: Path) -> dict[str, float]:
    """Return what ``TARGETS`` names, measured in the three files in ``directory``. Seconds, shares of one, counts."""
    columns = [SESSION, "event_type", ACTION, SKU, TIME]
    browsing = pl.read_csv(directory / "browsing_train.csv", columns=columns).sort(SESSION, TIME, ACTION)
    searches = len(pl.read_csv(directory / "search_train.csv", columns=[TIME]))
    catalogue = pl.read_csv(directory / "sku_to_content.csv").drop(SKU)
    clicks = browsing.filter(pl.col(ACTION) == "detail")
    present = catalogue.select(pl.all().is_not_null())
    return {
        **_shares(browsing, searches),
        **_tail(browsing),
        **_gaps(browsing),
        **_clicks(clicks),
        **_carts(browsing),
        **_rhythm(browsing),
        "new_products": _new_products(clicks),
        "products_with_metadata": present.select(pl.any_horizontal(pl.all()).mean()).item(),
        "products_with_all_metadata": present.select(pl.all_horizontal(pl.all()).mean()).item(),
    }


def _shares(browsing: pl.DataFrame, searches: int) -> dict[str, float]:
    rows, sessions = len(browsing) + searches, browsing[SESSION].n_unique()
    products = browsing.filter(pl.col("event_type") == "event_product")
    return {
        "rows_per_session": rows / sessions,
        "pageview_rows": 1 - (len(products) + searches) / rows,
        "product_rows": len(products) / rows,
        "search_rows": searches / rows,
        "sessions_without_product": 1 - products[SESSION].n_unique() / sessions,
    }


def popularity(browsing: pl.DataFrame) -> np.ndarray:
    """Return how many product events each product has that appears, most first."""
    return np.sort(browsing[SKU].drop_nulls().value_counts()["count"].to_numpy())[::-1]


def _tail(browsing: pl.DataFrame) -> dict[str, float]:
    counts = popularity(browsing)
    share = np.cumsum(counts) / counts.sum()
    return {
        "top_1_percent": float(share[max(1, round(len(counts) / 100)) - 1]),
        "top_5_percent": float(share[max(1, round(len(counts) / 20)) - 1]),
        "median_product": float(np.median(counts)),
    }


def gaps_s(browsing: pl.DataFrame) -> np.ndarray:
    """Return the times between rows of one session, without those of one moment."""
    gaps = browsing.select(pl.col(TIME).diff().over(SESSION) / 1000).to_series().drop_nulls()
    return gaps.filter(gaps > 0).to_numpy()


def _gaps(browsing: pl.DataFrame) -> dict[str, float]:
    names = ("gap_quartile_1_s", "gap_median_s", "gap_quartile_3_s", "gap_percentile_99_s")
    return dict(zip(names, np.quantile(gaps_s(browsing), (0.25, 0.5, 0.75, 0.99)).tolist(), strict=True))


def clicks_per_session(clicks: pl.DataFrame) -> np.ndarray:
    """Return the number of details of each session with two or more."""
    lengths = clicks.group_by(SESSION).len()["len"].to_numpy()
    return lengths[lengths > 1]


def _clicks(clicks: pl.DataFrame) -> dict[str, float]:
    lengths = clicks_per_session(clicks)
    seen = ~clicks.select(pl.struct(SESSION, SKU).is_first_distinct()).to_series()
    again = clicks.select(pl.col(SKU) == pl.col(SKU).shift(1).over(SESSION)).to_series()  # null on the first
    return {
        "clicks_median": float(np.median(lengths)),
        "clicks_mean": float(lengths.mean()),
        "clicks_percentile_90": float(np.quantile(lengths, 0.9)),
        "clicks_percentile_99": float(np.quantile(lengths, 0.99)),
        "repeats_last": again.mean(),
        "repeats_seen": seen.filter(again.is_not_null()).mean(),
        "repeats_of_details": seen.mean(),
    }


def _new_products(clicks: pl.DataFrame) -> float:
    start = clicks[TIME].max() - LAST_DAYS * DAY_MS
    later = clicks.filter(pl.col(TIME) >= start)[SKU].unique()
    return 1 - later.is_in(clicks.filter(pl.col(TIME) < start)[SKU].unique().implode()).mean()


def _carts(browsing: pl.DataFrame) -> dict[str, float]:
    def sessions_with(action: str) -> int:
        return browsing.filter(pl.col(ACTION) == action)[SESSION].n_unique()

    carts = sessions_with("add")
    return {
        "sessions_with_cart": carts / browsing[SESSION].n_unique(),
        "carts_bought": sessions_with("purchase") / max(carts, 1),
    }


def starts(browsing: pl.DataFrame) -> pl.Series:
    """Return when each session starts, UTC."""
    return browsing.group_by(SESSION).agg(pl.col(TIME).min()).select(pl.from_epoch(TIME, "ms")).to_series()


def _rhythm(browsing: pl.DataFrame) -> dict[str, float]:
    moments = starts(browsing)
    weekday = np.bincount(moments.dt.weekday().to_numpy(), minlength=8)
    hour = np.bincount(moments.dt.hour().to_numpy(), minlength=24)
    return {
        "saturday_to_monday": float(weekday[6] / max(weekday[1], 1)),
        "evening_to_night": float(hour[21] / max(hour[3], 1)),
    }


def cart_sessions(directory: Path) -> pa.RecordBatch:
    """Return the sessions with an add, as ``intent_dataset.SESSION_COLUMNS``, read from a small shop's files.

    The warehouse's rules, in short: events in order, without pageviews that double a detail, clicks beside searches.
    """
    keys = [SESSION, TIME]
    action, sku = pl.col(ACTION).fill_null("view").alias("action"), pl.col(SKU).fill_null("").alias("sku")
    browsing = pl.read_csv(directory / "browsing_train.csv").select(*keys, "hashed_url", action, sku)
    is_view, is_detail = pl.col("action") == "view", pl.col("action") == "detail"
    views = browsing.filter(is_view).join(browsing.filter(is_detail), on=[*keys, "hashed_url"], how="anti")
    searches = pl.read_csv(directory / "search_train.csv").with_columns(clicked=pl.col("clicked_skus_hash"))
    clicked = pl.col("clicked").str.strip_chars("[]'").alias("sku")
    parts = [
        views.drop("hashed_url"),
        browsing.filter(~is_view).drop("hashed_url"),
        searches.select(*keys, action=pl.lit("search"), sku=pl.lit("")),
        searches.filter(pl.col("clicked").is_not_null()).select(*keys, pl.lit("click").alias("action"), clicked),
    ]
    order = pl.col("action").replace_strict({"search": 0, "click": 1, "view": 2, "detail": 3}, default=4)
    sessions = (
        pl.concat(parts)
        .filter((pl.col("action") == "add").any().over(SESSION))
        .sort(SESSION, TIME, order)
        .group_by(SESSION, maintain_order=True)
        .agg("action", "sku", TIME)
        .with_columns(started_at=pl.from_epoch(pl.col(TIME).list.first(), "ms").cast(pl.Datetime("us")))
        .sort("started_at", SESSION)
    )
    columns = {"actions": "action", "skus": "sku", "timestamps_ms": TIME}
    frame = sessions.select("started_at", session_id=SESSION, session_date=pl.col("started_at").dt.date(), **columns)
    table = frame.select(SESSION_COLUMNS.names).to_arrow().cast(SESSION_COLUMNS)
    return table.combine_chunks().to_batches()[0]
