"""What a row of the source must look like: vectorised validation into typed rows and rejected ones.

What belongs elsewhere: reading files (``source_files.py``), sorting, writing and counting (``landing*.py``).
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

VECTOR_LENGTH = 50
LONGEST_CELL = 1 << 20
LONGEST_ID = 128
RAW_CELL = 500
"""Characters of each cell that a rejected row keeps."""

EARLIEST_MS = 946_684_800_000  # 2000-01-01; real shops' rows are later, epoch seconds read as milliseconds are earlier
LATEST_SECONDS = 100_000_000_000
CLOCK_SKEW = timedelta(minutes=10)
EVENT_TYPES = ("pageview", "event_product")
PRODUCT_ACTIONS = ("detail", "add", "remove", "purchase")
MISSING = ("", "nan", "NaN", "None", "null", "NULL", "NA", "<NA>")
"""What tools write for a missing cell."""

WEEK_MS = 7 * 86_400_000
RAW_TIME = "raw_server_timestamp_epoch_ms"
VECTOR = pl.List(pl.Float32)
CONTROL_CHARACTER = r"[\x00-\x1f\x7f]"
URL_IS_MALFORMED = r"[\s\x00-\x1f\x7f'\"<>]"
ID_IS_MALFORMED = r"[\s\x00-\x1f\x7f,'\"\[\]{}<>]"
TEXT_LIST = r"""^\s*\[\s*(?:(?:'[^\s'",\[\]]+'|"[^\s'",\[\]]+")(?:\s*,\s*(?:'[^\s'",\[\]]+'|"[^\s'",\[\]]+"))*)?\s*,?\s*\]\s*$"""
TEXT_LIST_ITEM = r"""[^\s'",\[\]]+"""

SCHEMAS: dict[str, dict[str, pl.DataType]] = {
    "browsing": {
        "session_id_hash": pl.String(),
        "event_type": pl.String(),
        "product_action": pl.String(),
        "product_sku_hash": pl.String(),
        "server_timestamp_epoch_ms": pl.Int64(),
        "hashed_url": pl.String(),
        "event_id": pl.String(),
        "request_id": pl.String(),
    },
    "search": {
        "session_id_hash": pl.String(),
        "query_vector": pl.List(pl.Float32),
        "clicked_skus_hash": pl.List(pl.String),
        "product_skus_hash": pl.List(pl.String),
        "server_timestamp_epoch_ms": pl.Int64(),
        "event_id": pl.String(),
        "request_id": pl.String(),
    },
    "catalog": {
        "product_sku_hash": pl.String(),
        "description_vector": pl.List(pl.Float32),
        "category_hash": pl.String(),
        "image_vector": pl.List(pl.Float32),
        "price_bucket": pl.Int64(),
    },
}
"""The columns of landed Parquet files, in order; all but session, event type, time and the catalog's SKU may be null."""

REJECT_SCHEMA = {
    "file": pl.String(),
    "line": pl.Int64(),
    "reason": pl.String(),
    "day": pl.String(),
    "raw": pl.String(),
}

REASONS = {
    "wrong_number_of_cells": "the row has more or fewer cells than the header: check quotes and commas",
    "cell_too_long": f"a cell has more than {LONGEST_CELL:,} characters: look for a quotation mark that is not closed",
    "session_id_missing": "every event needs a session id",
    "session_id_malformed": f"ids have up to {LONGEST_ID} characters, without spaces, commas, quotes or control characters",
    "event_type_unknown": f"event_type must be one of {', '.join(EVENT_TYPES)}",
    "product_action_unknown": f"product_action must be one of {', '.join(PRODUCT_ACTIONS)}, or empty for a pageview",
    "product_action_missing": "an event_product needs a product_action",
    "product_action_on_pageview": "a pageview has no product_action",
    "product_missing": "an event_product needs a product_sku_hash",
    "product_malformed": f"SKUs have up to {LONGEST_ID} characters, without spaces, commas, quotes or control characters",
    "url_malformed": "a hashed_url has no spaces, quotes or control characters",
    "event_id_malformed": "event_id and request_id are ids or empty",
    "timestamp_missing": "server_timestamp_epoch_ms is empty",
    "timestamp_not_a_number": "server_timestamp_epoch_ms must be whole milliseconds since 1970",
    "timestamp_negative": "server_timestamp_epoch_ms is before 1970",
    "timestamp_in_seconds": "server_timestamp_epoch_ms looks like seconds: multiply by 1,000",
    "timestamp_too_early": "server_timestamp_epoch_ms is before 2000",
    "timestamp_in_future": "server_timestamp_epoch_ms is in the future: check its unit, or the clock",
    "query_vector_invalid": f"query_vector must be a JSON list of {VECTOR_LENGTH} numbers, or empty",
    "description_vector_invalid": f"description_vector must be a JSON list of {VECTOR_LENGTH} numbers, or empty",
    "image_vector_invalid": f"image_vector must be a JSON list of {VECTOR_LENGTH} numbers, or empty",
    "clicked_skus_invalid": "clicked_skus_hash must be a list of SKUs like ['a', 'b'], or empty",
    "product_skus_invalid": "product_skus_hash must be a list of SKUs like ['a', 'b'], or empty",
    "category_malformed": "category_hash has no quotes or control characters",
    "price_bucket_invalid": "price_bucket must be a whole number from 0, or empty",
}
"""What each reason for a rejection means and what to do."""


@dataclass
class Validated:
    """``good`` has the table's schema and a ``day`` column (null in the catalog); ``bad`` has the reject schema."""

    good: pl.DataFrame
    bad: pl.DataFrame


def validate(
    table: str, rows: pl.DataFrame, lines: np.ndarray, file: str, shift_weeks: int, now: datetime
) -> Validated:
    """Split source rows into typed good ones and rejected ones; every row is in exactly one of the two.

    ``rows`` are the source's columns as text (or as Parquet typed them), ``lines`` their line numbers, ``file`` is what
    rejects call their source. Timestamps move by ``shift_weeks`` and are checked after that against ``now``.
    """
    raw = rows.rename({name: _raw_name(name) for name in rows.columns})
    typed = raw.with_columns(*_typed_columns(table, raw.schema, shift_weeks))
    day = pl.lit(None, pl.String) if table == "catalog" else _day(pl.col("server_timestamp_epoch_ms"))
    checked = typed.with_columns(day.alias("day"), _reason(_faults(table, raw.schema, now)).alias("reason"))
    is_bad = checked["reason"].is_not_null()
    columns = [*SCHEMAS[table], "day"]
    if not is_bad.any():
        return Validated(checked.select(columns), pl.DataFrame(schema=REJECT_SCHEMA))
    rejects = _rejects(rows.filter(is_bad), checked.filter(is_bad), lines[is_bad.to_numpy()], file)
    return Validated(checked.filter(~is_bad).select(columns), rejects)


def torn_rows(torn: list[tuple[int, str]], file: str) -> pl.DataFrame:
    """Return rejects for rows with the wrong number of cells, given as (line, text)."""
    columns = {"line": [line for line, _ in torn], "raw": [text for _, text in torn]}
    return pl.DataFrame(columns, schema={"line": pl.Int64, "raw": pl.String}).select(
        pl.lit(file).alias("file"),
        "line",
        pl.lit("wrong_number_of_cells").alias("reason"),
        pl.lit(None, pl.String).alias("day"),
        "raw",
    )


def _raw_name(name: str) -> str:
    return f"raw_{name}"


def _typed_columns(table: str, schema: pl.Schema, shift_weeks: int) -> list[pl.Expr]:
    typed = []
    for name, wanted in SCHEMAS[table].items():
        raw, came = pl.col(_raw_name(name)), schema.get(_raw_name(name), pl.Null())
        if came == pl.Null:
            column = pl.lit(None, wanted)
        elif name == "server_timestamp_epoch_ms":
            column = _whole_number(raw, came) + shift_weeks * WEEK_MS
        elif wanted == pl.Int64:
            column = _whole_number(raw, came)
        elif wanted == pl.List(pl.Float32):
            column = _vector(raw, came)
        elif wanted == pl.List(pl.String):
            column = _text_list(raw, came)
        else:
            text = raw.cast(pl.String)
            column = pl.when(~text.is_in(MISSING)).then(text)
        typed.append(column.alias(name))
    return typed


def _whole_number(raw: pl.Expr, came: pl.DataType) -> pl.Expr:
    """Int64 where the cell is a whole number (``3`` or ``3.0``), else null."""
    if came.is_integer():
        return raw.cast(pl.Int64, strict=False)
    if came.is_temporal():
        return raw.cast(pl.Datetime("ms")).cast(pl.Int64)
    text = raw.str.strip_chars() if came == pl.String else raw
    number = text.cast(pl.Float64, strict=False)
    exact = pl.when((number == number.floor()) & (number.abs() < 2**53)).then(number.cast(pl.Int64, strict=False))
    return pl.coalesce(text.cast(pl.Int64, strict=False), exact) if came == pl.String else exact


def _vector(raw: pl.Expr, came: pl.DataType) -> pl.Expr:
    """List of ``VECTOR_LENGTH`` finite float32 where the cell is one, else null."""
    if came == pl.String:
        numbers = raw.str.strip_chars(" \t\r\n")
        in_brackets = numbers.str.starts_with("[") & numbers.str.ends_with("]")
        items = numbers.str.strip_chars("[]").str.replace_all(r"\s", "").str.split(",").cast(VECTOR, strict=False)
    else:
        in_brackets, items = pl.lit(True), raw.cast(VECTOR, strict=False)
    is_whole = (items.list.len() == VECTOR_LENGTH) & items.list.eval(
        pl.element().is_finite().fill_null(False)
    ).list.all()
    return pl.when(in_brackets & is_whole).then(items)


def _text_list(raw: pl.Expr, came: pl.DataType) -> pl.Expr:
    """List of SKUs where the cell is a Python or JSON list of them, else null."""
    if came == pl.String:
        return pl.when(raw.str.contains(TEXT_LIST)).then(raw.str.extract_all(TEXT_LIST_ITEM))
    items = raw.cast(pl.List(pl.String), strict=False)
    is_fine = items.list.eval(pl.element().is_not_null() & ~pl.element().str.contains(ID_IS_MALFORMED)).list.all()
    return pl.when(is_fine).then(items)


def _faults(table: str, schema: pl.Schema, now: datetime) -> dict[str, pl.Expr]:
    """Return reason -> where a row has it; the first that holds is the row's reason."""
    text = [pl.col(name) for name, came in schema.items() if came == pl.String]
    too_long = (
        {"cell_too_long": pl.any_horizontal([cell.str.len_bytes() > LONGEST_CELL for cell in text])} if text else {}
    )
    return {**too_long, **{"browsing": _browsing, "search": _search, "catalog": _catalog}[table](schema, now)}


def _browsing(schema: pl.Schema, now: datetime) -> dict[str, pl.Expr]:
    is_product = pl.col("event_type") == "event_product"
    action, sku, url = pl.col("product_action"), pl.col("product_sku_hash"), pl.col("hashed_url")
    return {
        **_session_faults(),
        "event_type_unknown": ~pl.col("event_type").is_in(EVENT_TYPES).fill_null(False),
        **_time_faults(schema, now),
        "product_action_unknown": ~action.is_in(PRODUCT_ACTIONS),
        "product_action_missing": is_product & action.is_null(),
        "product_action_on_pageview": ~is_product & action.is_not_null(),
        "product_missing": is_product & sku.is_null(),
        "product_malformed": _is_malformed(sku),
        "url_malformed": url.str.contains(URL_IS_MALFORMED),
        **_wire_id_faults(schema),
    }


def _search(schema: pl.Schema, now: datetime) -> dict[str, pl.Expr]:
    return {
        **_session_faults(),
        **_time_faults(schema, now),
        "query_vector_invalid": _was_given("query_vector", schema),
        "clicked_skus_invalid": _was_given("clicked_skus_hash", schema),
        "product_skus_invalid": _was_given("product_skus_hash", schema),
        **_wire_id_faults(schema),
    }


def _catalog(schema: pl.Schema, _now: datetime) -> dict[str, pl.Expr]:
    sku = pl.col("product_sku_hash")
    return {
        "product_missing": sku.is_null(),
        "product_malformed": _is_malformed(sku),
        "description_vector_invalid": _was_given("description_vector", schema),
        "image_vector_invalid": _was_given("image_vector", schema),
        "category_malformed": pl.col("category_hash").str.contains(CONTROL_CHARACTER),
        "price_bucket_invalid": _was_given("price_bucket", schema) | (pl.col("price_bucket") < 0),
    }


def _session_faults() -> dict[str, pl.Expr]:
    session = pl.col("session_id_hash")
    return {"session_id_missing": session.is_null(), "session_id_malformed": _is_malformed(session)}


def _wire_id_faults(schema: pl.Schema) -> dict[str, pl.Expr]:
    ids = [name for name in ("event_id", "request_id") if _raw_name(name) in schema]
    return {"event_id_malformed": pl.any_horizontal([_is_malformed(pl.col(name)) for name in ids])} if ids else {}


def _time_faults(schema: pl.Schema, now: datetime) -> dict[str, pl.Expr]:
    """The time as it was given tells seconds from milliseconds; the shifted one tells whether it is in the future."""
    ms = pl.col("server_timestamp_epoch_ms")
    given = _whole_number(pl.col(RAW_TIME), schema[RAW_TIME])
    latest_ms = int((now + CLOCK_SKEW).timestamp() * 1000)
    return {
        "timestamp_missing": _is_missing(RAW_TIME, schema),
        "timestamp_not_a_number": ms.is_null(),
        "timestamp_negative": given < 0,
        "timestamp_in_seconds": given < LATEST_SECONDS,
        "timestamp_too_early": ms < EARLIEST_MS,
        "timestamp_in_future": ms > latest_ms,
    }


def _is_malformed(column: pl.Expr) -> pl.Expr:
    return (column.str.len_bytes() > LONGEST_ID) | column.str.contains(ID_IS_MALFORMED)


def _was_given(name: str, schema: pl.Schema) -> pl.Expr:
    """True where the cell holds something, yet the typed column is null: it could not be read as that type."""
    return pl.col(name).is_null() & ~_is_missing(_raw_name(name), schema)


def _is_missing(raw_name: str, schema: pl.Schema) -> pl.Expr:
    raw = pl.col(raw_name)
    if schema[raw_name] == pl.String:
        return raw.is_null() | raw.is_in(MISSING)
    return raw.is_null() | raw.is_nan() if schema[raw_name].is_float() else raw.is_null()


def _reason(faults: dict[str, pl.Expr]) -> pl.Expr:
    return pl.coalesce([pl.when(fault).then(pl.lit(name)) for name, fault in faults.items()])


def _day(milliseconds: pl.Expr) -> pl.Expr:
    return pl.from_epoch(milliseconds, time_unit="ms").dt.date()


def _rejects(rows: pl.DataFrame, checked: pl.DataFrame, lines: np.ndarray, file: str) -> pl.DataFrame:
    time_is_known = ~checked["reason"].str.starts_with("timestamp_")
    day = pl.col("day").cast(pl.String)
    cells = [
        pl.col(name).cast(pl.String, strict=False).str.slice(0, RAW_CELL) if came == pl.String else pl.col(name)
        for name, came in rows.schema.items()
    ]
    return pl.DataFrame(
        {
            "file": pl.Series([file]).new_from_index(0, rows.height),
            "line": pl.Series(lines, dtype=pl.Int64),
            "reason": checked["reason"],
            "day": checked.select(pl.when(time_is_known).then(day))["day"],
            "raw": rows.select(pl.struct(cells).struct.json_encode().alias("raw"))["raw"],
        }
    )
