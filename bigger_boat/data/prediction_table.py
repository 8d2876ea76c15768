"""A day of the log of answers as one table: its columns, what must hold of them, and reading them from lines.

What belongs elsewhere: where the lines lie (``prediction_files.py``), what follows (``ml/online_metrics.py``).
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from bigger_boat.data.prediction_files import DROPPED, FILE, MOST_EVENTS, LogFile, whole_lines

if TYPE_CHECKING:
    import pandera.polars as pa

COLUMNS: dict[str, Any] = {
    "endpoint": pl.String,
    "request_id": pl.String,
    "position": pl.Int32,
    "answered_at_ms": pl.Int64,
    "latency_ms": pl.Float64,
    "route": pl.String,
    "model": pl.String,
    "version": pl.String,
    "session_id": pl.String,
    "at_ms": pl.Int64,
    "k": pl.Int32,
    "exclude_seen": pl.Boolean,
    "events": pl.Int32,
    "actions": pl.List(pl.String),
    "skus": pl.List(pl.String),
    "timestamps_ms": pl.List(pl.Int64),
    "products": pl.Int32,
    "unknown": pl.Int32,
    "recommended": pl.List(pl.String),
    "scores": pl.List(pl.Float64),
    "fallback": pl.Boolean,
    "purchase_probability": pl.Float64,
}
"""What a line says. ``session_id``, ``at_ms`` (the request's own time), and the answer of the other endpoint may be
missing; ``products`` and ``unknown``: how many distinct products were asked about, and things (products, or actions)
unknown."""


def read_log_file(root: Path, file: LogFile) -> tuple[pl.DataFrame, int]:
    """Return a file's predictions, in its order, and how many answers it says were dropped."""
    lines = whole_lines(root, file)
    kinds = {**COLUMNS, DROPPED: pl.Int64}
    frame = pl.read_ndjson(io.BytesIO(lines), schema=kinds) if lines else pl.DataFrame(schema=kinds)
    dropped = int(frame[DROPPED].sum() or 0)
    return frame.filter(pl.col(DROPPED).is_null()).drop(DROPPED).with_columns(pl.lit(file.name).alias(FILE)), dropped


def log_schema() -> "pa.DataFrameSchema":
    """Return the schema of a day's table: a row per prediction, exactly these columns in this order."""
    import pandera.polars as pa

    nullable = {"session_id", "at_ms", "recommended", "scores", "fallback", "purchase_probability"}
    columns = {name: pa.Column(kind, nullable=name in nullable) for name, kind in {**COLUMNS, FILE: pl.String}.items()}
    lists = pl.col("recommended").list.len() == pl.col("scores").list.len()
    probability = pl.col("purchase_probability").is_between(0, 1)
    either = pl.col("recommended").is_null() != pl.col("purchase_probability").is_null()
    events = pl.col("actions").list.len() == pl.min_horizontal("events", pl.lit(MOST_EVENTS, pl.Int32))
    rules = {
        "every product has a score": lists | pl.col("recommended").is_null(),
        "a probability lies between 0 and 1": probability | pl.col("purchase_probability").is_null(),
        "an answer is a list or a probability": either,
        "the last events are kept": events,
        "latency is not negative": pl.col("latency_ms") >= 0,
    }
    checks = [_rule(sentence, holds) for sentence, holds in rules.items()]
    return pa.DataFrameSchema(columns, checks=checks, strict=True, ordered=True, name="prediction_log")


def _rule(sentence: str, holds: pl.Expr) -> "pa.Check":
    import pandera.polars as pa

    return pa.Check(lambda data: data.lazyframe.select(holds.fill_null(False)), error=sentence)
