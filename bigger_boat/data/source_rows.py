"""What a row of the source must look like: vectorised validation into typed rows and rejected ones.

What belongs elsewhere: columns (``source_columns.py``), reading files (``source_batches.py``), sorting, writing and
counting (``landing*.py``).
"""

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from bigger_boat.data.event_rules import (
    CLOCK_SKEW,
    EARLIEST_MS,
    EVENT_TYPES,
    ID_IS_MALFORMED,
    LONGEST_CELL,
    LONGEST_ID,
    NOT_IN_IDS,
    PRODUCT_ACTIONS,
    TIME,
    URL_IS_MALFORMED,
    VECTOR_LENGTH,
    WIRE_COLUMNS,
)
from bigger_boat.data.source_batches import Batch
from bigger_boat.data.source_columns import REJECT_SCHEMA, SCHEMAS

RAW_CELL = 500
"""Characters of each cell that a rejected row keeps."""

LATEST_SECONDS = 100_000_000_000  # what is smaller is a time in seconds until the year 5138
WEEK_MS = 7 * 86_400_000
GIVEN_TIME = "given_ms"

VECTOR = pl.List(pl.Float32)
CONTROL_CHARACTER = r"[\x00-\x1f\x7f]"
LIST_ITEM = r"""[^\s'",\[\]{}<>\x00-\x1f\x7f]+"""
QUOTED_ITEM = f"""(?:'{LIST_ITEM}'|"{LIST_ITEM}")"""
TEXT_LIST = rf"^\s*\[\s*(?:{QUOTED_ITEM}(?:\s*,\s*{QUOTED_ITEM})*\s*,?)?\s*\]\s*$"
PYTHON_LIST = rf"^\['{LIST_ITEM}'(?:, '{LIST_ITEM}')*\]$"
"""A text list as Python prints it: cut at its commas, it costs a third of what finding its items does."""

REASONS = {
    "wrong_number_of_cells": "the row has more or fewer cells than the header: check quotes and commas",
    "cell_too_long": f"a cell has more than {LONGEST_CELL:,} characters: look for a quotation mark that is not closed",
    "session_id_missing": "every event needs a session id",
    "session_id_malformed": f"ids have up to {LONGEST_ID} characters and no {NOT_IN_IDS}",
    "event_type_unknown": f"event_type must be one of {', '.join(EVENT_TYPES)}",
    "product_action_unknown": f"product_action must be one of {', '.join(PRODUCT_ACTIONS)}, or empty for a pageview",
    "product_action_missing": "an event_product needs a product_action",
    "product_action_on_pageview": "a pageview has no product_action",
    "product_missing": "an event_product needs a product_sku_hash",
    "product_malformed": f"SKUs have up to {LONGEST_ID} characters and no {NOT_IN_IDS}",
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


def validate(table: str, batch: Batch, file: str, shift_weeks: int, now: datetime) -> Validated:
    """Split a batch into typed good rows and rejected ones; every row is in exactly one of the two.

    ``file`` is what rejects call their source. Times move by ``shift_weeks`` and are then checked against ``now``.
    """
    raw = batch.rows.rename({name: _raw_name(name) for name in batch.rows.columns})
    if table != "catalog":
        raw = raw.with_columns(_whole_numbers(batch.rows[TIME]).alias(GIVEN_TIME))
    typed = raw.with_columns(*_typed_columns(table, raw, shift_weeks))
    day = pl.lit(None, pl.String) if table == "catalog" else pl.from_epoch(TIME, time_unit="ms").dt.date()
    checked = typed.with_columns(day.alias("day"), _reason(_faults(table, batch, now)).alias("reason"))
    columns = [*SCHEMAS[table], "day"]
    if checked["reason"].null_count() == checked.height:
        return Validated(checked.select(columns), pl.DataFrame(schema=REJECT_SCHEMA))
    is_bad = checked["reason"].is_not_null()
    rejects = _rejects(batch, is_bad, checked.filter(is_bad), file)
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


def _typed_columns(table: str, raw: pl.DataFrame, shift_weeks: int) -> list[pl.Expr]:
    typed = []
    for name, wanted in SCHEMAS[table].items():
        cell, came = pl.col(_raw_name(name)), raw.schema.get(_raw_name(name), pl.Null())
        if came == pl.Null:
            column = pl.lit(None, wanted)
        elif name == TIME:
            column = pl.col(GIVEN_TIME) + shift_weeks * WEEK_MS
        elif wanted == pl.Int64:
            column = pl.lit(_whole_numbers(raw[_raw_name(name)]))
        elif wanted == VECTOR:
            column = pl.lit(_vectors(raw[_raw_name(name)]))
        elif wanted == pl.List(pl.String):
            column = pl.lit(_text_lists(raw[_raw_name(name)]))
        else:
            column = cell.cast(pl.String)
        typed.append(column.alias(name))
    return typed


def _whole_numbers(cells: pl.Series) -> pl.Series:
    """Int64 where a cell is a whole number (``3`` or ``3.0``) or a timestamp, else null."""
    if cells.dtype.is_temporal():
        return cells.cast(pl.Datetime("ms")).cast(pl.Int64)
    if cells.dtype.is_decimal():
        cells = cells.cast(pl.Float64)  # a cast to Int64 would cut what follows the point
    if not cells.dtype.is_float():
        numbers = cells.cast(pl.Int64, strict=False)
        if numbers.null_count() == cells.null_count():
            return numbers
        cells = cells.cast(pl.String).str.strip_chars()
    number = pl.col("cell").cast(pl.Float64, strict=False)
    is_whole = (number == number.floor()) & (number.abs() < 2**53)
    whole = pl.when(is_whole).then(number.cast(pl.Int64, strict=False))
    exact = pl.col("cell").cast(pl.Int64, strict=False) if cells.dtype == pl.String else pl.lit(None, pl.Int64)
    return pl.DataFrame({"cell": cells}).select(pl.coalesce(exact, whole).alias("cell"))["cell"]


def _vectors(cells: pl.Series) -> pl.Series:
    """List of ``VECTOR_LENGTH`` finite float32 where the cell is one, else null."""
    in_brackets, cell = True, pl.col("cell")
    if cells.dtype == pl.String:
        cells = cells.str.strip_chars(" \t\r\n")
        in_brackets = cells.str.starts_with("[") & cells.str.ends_with("]")
        cells = _without_spaces(cells.str.strip_chars("[]")).str.split(",")
    items = cells.cast(VECTOR, strict=False).alias("cell")
    is_vector = (items.list.len() == VECTOR_LENGTH) & in_brackets
    vectors = items.to_frame().select(pl.when(is_vector).then(cell))["cell"]
    if vectors.drop_nulls().explode().is_finite().all(ignore_nulls=False) is True:
        return vectors
    is_finite = cell.list.eval(pl.element().is_finite().fill_null(False)).list.all()  # asks each list: slow
    return vectors.to_frame().select(pl.when(is_finite).then(cell).alias("cell"))["cell"]


def _without_spaces(cells: pl.Series) -> pl.Series:
    cells = cells.str.replace_all(" ", "", literal=True)
    return cells.str.replace_all(r"\s", "") if cells.str.contains(r"\s").any() else cells


def _text_lists(cells: pl.Series) -> pl.Series:
    """List of SKUs where the cell is a Python or JSON list of them, else null."""
    cell, cells = pl.col("cell"), cells.alias("cell")
    if cells.dtype != pl.String:
        items = cell.cast(pl.List(pl.String), strict=False)
        is_fine = items.list.eval(pl.element().is_not_null() & ~pl.element().str.contains(ID_IS_MALFORMED)).list.all()
        lists = pl.when(is_fine).then(items)
    elif cells.str.contains(PYTHON_LIST).all():
        lists = cell.str.strip_chars("[]").str.strip_chars("'").str.split("', '")
    else:
        lists = pl.when(cell.str.contains(TEXT_LIST)).then(cell.str.extract_all(LIST_ITEM))
    return cells.to_frame().select(lists.alias("cell"))["cell"]


def _faults(table: str, batch: Batch, now: datetime) -> dict[str, pl.Expr]:
    """Return reason -> where a row has it; the first that holds is the row's reason."""
    text = [pl.col(_raw_name(name)) for name, came in batch.rows.schema.items() if came == pl.String]
    too_long = pl.any_horizontal([cell.str.len_bytes() > LONGEST_CELL for cell in text])
    first = {"cell_too_long": too_long} if batch.longest_cell > LONGEST_CELL else {}
    return {**first, **{"browsing": _browsing, "search": _search, "catalog": _catalog}[table](batch, now)}


def _browsing(batch: Batch, now: datetime) -> dict[str, pl.Expr]:
    event_type, action = pl.col("event_type"), pl.col("product_action")
    is_product, is_pageview = event_type == "event_product", event_type == "pageview"
    return {
        **_id_faults(batch, "session_id_hash", "session_id"),
        "event_type_unknown": ~(is_product | is_pageview).fill_null(False),
        **_time_faults(now),
        "product_action_unknown": ~action.is_in(PRODUCT_ACTIONS),
        "product_action_missing": is_product & action.is_null(),
        "product_action_on_pageview": is_pageview & action.is_not_null(),
        "product_missing": is_product & pl.col("product_sku_hash").is_null(),
        **_malformed(batch, "product_sku_hash", "product"),
        **_text_faults(batch, "hashed_url", "url", URL_IS_MALFORMED),
        **_wire_faults(batch),
    }


def _search(batch: Batch, now: datetime) -> dict[str, pl.Expr]:
    return {
        **_id_faults(batch, "session_id_hash", "session_id"),
        **_time_faults(now),
        "query_vector_invalid": _is_lost("query_vector"),
        "clicked_skus_invalid": _is_lost("clicked_skus_hash"),
        "product_skus_invalid": _is_lost("product_skus_hash"),
        **_wire_faults(batch),
    }


def _catalog(batch: Batch, _now: datetime) -> dict[str, pl.Expr]:
    return {
        **_id_faults(batch, "product_sku_hash", "product"),
        "description_vector_invalid": _is_lost("description_vector"),
        "image_vector_invalid": _is_lost("image_vector"),
        **_text_faults(batch, "category_hash", "category", CONTROL_CHARACTER),
        "price_bucket_invalid": _is_lost("price_bucket") | (pl.col("price_bucket") < 0),
    }


def _time_faults(now: datetime) -> dict[str, pl.Expr]:
    """The time as it was given tells seconds from milliseconds; the shifted one tells whether it is in the future."""
    latest_ms = int((now + CLOCK_SKEW).timestamp() * 1000)
    return {
        "timestamp_missing": pl.col(_raw_name(TIME)).is_null(),
        "timestamp_not_a_number": pl.col(GIVEN_TIME).is_null(),
        "timestamp_negative": pl.col(GIVEN_TIME) < 0,
        "timestamp_in_seconds": pl.col(GIVEN_TIME) < LATEST_SECONDS,
        "timestamp_too_early": pl.col(TIME) < EARLIEST_MS,
        "timestamp_in_future": pl.col(TIME) > latest_ms,
    }


def _id_faults(batch: Batch, name: str, called: str) -> dict[str, pl.Expr]:
    return {f"{called}_missing": pl.col(name).is_null(), **_malformed(batch, name, called)}


def _malformed(batch: Batch, name: str, called: str) -> dict[str, pl.Expr]:
    too_long = pl.col(name).str.len_bytes() > LONGEST_ID
    return {reason: fault | too_long for reason, fault in _text_faults(batch, name, called, ID_IS_MALFORMED).items()}


def _text_faults(batch: Batch, name: str, called: str, pattern: str) -> dict[str, pl.Expr]:
    """Nothing to ask of a column whose bytes were all seen to be plain."""
    return {} if name in batch.plain else {f"{called}_malformed": pl.col(name).str.contains(pattern)}


def _wire_faults(batch: Batch) -> dict[str, pl.Expr]:
    names = [name for name in WIRE_COLUMNS if name in batch.rows.columns and name not in batch.plain]
    faults = [fault for name in names for fault in _malformed(batch, name, "event_id").values()]
    return {"event_id_malformed": pl.any_horizontal(faults)} if faults else {}


def _is_lost(name: str) -> pl.Expr:
    """True where the cell holds something that could not be read as the column's type."""
    return pl.col(name).is_null() & pl.col(_raw_name(name)).is_not_null()


def _reason(faults: dict[str, pl.Expr]) -> pl.Expr:
    return pl.coalesce([pl.when(fault).then(pl.lit(name)) for name, fault in faults.items()])


def _rejects(batch: Batch, is_bad: pl.Series, checked: pl.DataFrame, file: str) -> pl.DataFrame:
    cells = [
        pl.col(name).str.slice(0, RAW_CELL) if came == pl.String else pl.col(name)
        for name, came in batch.rows.schema.items()
    ]
    raw = batch.rows.filter(is_bad).select(pl.struct(cells).struct.json_encode().alias("raw"))
    is_dated = ~pl.col("reason").str.starts_with("timestamp_")
    return checked.select(
        pl.lit(file).alias("file"),
        pl.Series("line", batch.lines[is_bad.to_numpy()], pl.Int64),
        "reason",
        pl.when(is_dated).then(pl.col("day").cast(pl.String)).alias("day"),
        raw["raw"],
    )
