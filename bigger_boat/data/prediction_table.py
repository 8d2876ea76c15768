"""A day of the log of answers as one table: its columns, what must hold of them, and making it from files of lines.

What belongs elsewhere: where the lines lie (``prediction_files.py``), what follows (``ml/online_metrics.py``).
"""

import io
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow.parquet as pq

from bigger_boat.data.prediction_files import DROPPED, FILE, MOST_EVENTS, LogFile, whole_lines
from bigger_boat.data.prediction_summary import score_bins
from bigger_boat.errors import DatasetError

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

SCORE_BINS = "score_bins"
ScoreBins = dict[str, dict[str, int]]
Read = Callable[[LogFile], tuple[pl.DataFrame, int]]
"""A file's predictions, and how many answers it says were dropped."""


@dataclass(frozen=True)
class DayLog:
    """What a day's table was made of: ``kept`` rows are of files that are there no longer."""

    answers: int
    kept: int
    dropped: int
    files: int


def day_table(folder: Path, day: str) -> Path:
    """Return where the table of a day lies."""
    return Path(folder) / f"date={day}.parquet"


def build_day(target: Path, files: Sequence[LogFile], read: Read) -> DayLog:
    """Make a day's table from its files, a file at a time, and put it into its place at once.

    Rows of files that have been swept since stay as they were. Raises DatasetError where a row breaks the schema.
    """
    names = {file.name for file in files}
    kept, told = _kept(target, names)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".draft-{os.getpid()}-{target.name}")
    dropped, bins, answers = Counter(told), _added({}, score_bins(kept)), len(kept)
    with pq.ParquetWriter(draft, kept.to_arrow().schema, compression="zstd") as writer:
        writer.write_table(kept.to_arrow())
        for file in files:
            rows, lost = read(file)
            require_valid(rows, file.name)
            writer.write_table(rows.to_arrow())
            bins, answers = _added(bins, score_bins(rows)), answers + len(rows)
            dropped[file.name] = lost
        writer.add_key_value_metadata({DROPPED: json.dumps(dropped), SCORE_BINS: json.dumps(bins)})
    os.replace(draft, target)
    return DayLog(answers, len(kept), sum(dropped.values()), len(files))


def read_bins(table: Path) -> ScoreBins:
    """Return ``score_bins`` of a day's table, which are written beside its rows."""
    return json.loads(pq.read_metadata(table).metadata[SCORE_BINS.encode()])


def require_valid(rows: pl.DataFrame, name: str) -> None:
    """Raise DatasetError that names the file and every rule that its rows break."""
    import pandera.errors

    try:
        log_schema().validate(rows, lazy=True)
    except pandera.errors.SchemaErrors as failed:
        rules = (str(getattr(error.check, "error", None) or error) for error in failed.schema_errors)
        broken = sorted({rule.splitlines()[0] for rule in rules})
        raise DatasetError(
            f"The log file {name} cannot be read as answers: {'; '.join(broken[:5])}.",
            "Find what wrote it; to leave it out, move it out of the log's folder.",
        ) from None


def read_log_file(root: Path, file: LogFile) -> tuple[pl.DataFrame, int]:
    """Return a file's predictions, in its order, and how many answers it says were dropped."""
    return rows_of(whole_lines(root, file), file.name)


def rows_of(lines: bytes, name: str) -> tuple[pl.DataFrame, int]:
    """Return the predictions that whole lines hold, as rows of the file of this name, and how many were dropped."""
    kinds = {**COLUMNS, DROPPED: pl.Int64}
    frame = pl.read_ndjson(io.BytesIO(lines), schema=kinds) if lines else pl.DataFrame(schema=kinds)
    dropped = int(frame[DROPPED].sum() or 0)
    return frame.filter(pl.col(DROPPED).is_null()).drop(DROPPED).with_columns(pl.lit(name).alias(FILE)), dropped


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


def _kept(target: Path, names: set[str]) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the rows of the table as it is that are of other files than ``names``, and what those dropped."""
    if not target.exists():
        return pl.DataFrame(schema={**COLUMNS, FILE: pl.String}), {}
    told = json.loads(pq.read_metadata(target).metadata[DROPPED.encode()])
    rows = pl.read_parquet(target).filter(~pl.col(FILE).is_in(list(names)))
    return rows, {name: count for name, count in told.items() if name not in names}


def _added(some: ScoreBins, more: ScoreBins) -> ScoreBins:
    both = {**some, **more}
    return {version: dict(Counter(some.get(version, {})) + Counter(more.get(version, {}))) for version in both}
