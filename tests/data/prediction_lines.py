"""Lines of the log of answers, made by hand for tests, and days of it on disk."""

import json
from pathlib import Path
from typing import Any

import polars as pl

from bigger_boat.data.prediction_files import FILE, folder_of
from bigger_boat.data.prediction_table import COLUMNS

NINE = 1_795_165_200_000
"""2026-11-20 09:00 UTC."""


def line(request_id: str, **said: Any) -> dict[str, Any]:
    """Return a line that says what it must; a recommendation of a and b, unless ``purchase_probability`` is given."""
    answered = {} if "purchase_probability" in said else {"recommended": ["a", "b"], "scores": [0.5, 0.25]}
    intent = "purchase_probability" in said
    base = {
        "endpoint": "intent" if intent else "recommendation",
        "request_id": request_id,
        "position": 0,
        "answered_at_ms": NINE,
        "latency_ms": 4.0,
        "route": "/predict",
        "model": "tiny",
        "version": "v1",
        "session_id": None,
        "at_ms": None,
        "k": 20,
        "exclude_seen": False,
        "actions": ["detail"],
        "skus": ["x"],
        "timestamps_ms": [-1],
        "products": 1,
        "unknown": 0,
        **({} if intent else {"fallback": False}),
        **answered,
    }
    made = {**base, **said}
    return {**made, "events": len(made["actions"])}


def frame(*lines: dict[str, Any]) -> pl.DataFrame:
    """Return lines as the table has them."""
    rows = [{name: one.get(name) for name in COLUMNS} for one in lines]
    return pl.DataFrame(rows, schema=COLUMNS).with_columns(pl.lit("log.jsonl").alias(FILE))


def write_log(root: Path, day: str, *lines: dict[str, Any], name: str = "log") -> Path:
    """Write lines as a finished file of the endpoint that the first of them names."""
    folder = folder_of(root, lines[0].get("endpoint", "recommendation"), day)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    path.write_bytes(b"".join(json.dumps(one).encode() + b"\n" for one in lines))
    return path
