"""The columns of the source's three files and of the landed Parquet files.

Spelled once, for reading (``source_batches.py``) and judging rows (``source_rows.py``). What needs no Polars is in
``event_rules.py``.
"""

import polars as pl

from bigger_boat.data.event_rules import TIME, WIRE_COLUMNS

BROWSING_COLUMNS = (
    "session_id_hash",
    "event_type",
    "product_action",
    "product_sku_hash",
    TIME,
    "hashed_url",
)
SEARCH_COLUMNS = (
    "session_id_hash",
    "query_vector",
    "clicked_skus_hash",
    "product_skus_hash",
    TIME,
)
CATALOG_COLUMNS = ("product_sku_hash", "description_vector", "category_hash", "image_vector", "price_bucket")
REQUIRED_COLUMNS = {"browsing": BROWSING_COLUMNS, "search": SEARCH_COLUMNS, "catalog": CATALOG_COLUMNS}
OPTIONAL_COLUMNS = {"browsing": WIRE_COLUMNS, "search": WIRE_COLUMNS, "catalog": ()}

TYPES: dict[str, pl.DataType] = {
    TIME: pl.Int64(),
    "query_vector": pl.List(pl.Float32),
    "clicked_skus_hash": pl.List(pl.String),
    "product_skus_hash": pl.List(pl.String),
    "description_vector": pl.List(pl.Float32),
    "image_vector": pl.List(pl.Float32),
    "price_bucket": pl.Int64(),
}

SCHEMAS: dict[str, dict[str, pl.DataType]] = {
    table: {name: TYPES.get(name, pl.String()) for name in (*REQUIRED_COLUMNS[table], *OPTIONAL_COLUMNS[table])}
    for table in REQUIRED_COLUMNS
}
"""Columns of landed Parquet files, in order. Session, event type, time and the catalog's SKU are never null."""

REJECT_SCHEMA = {
    "file": pl.String(),
    "line": pl.Int64(),
    "reason": pl.String(),
    "day": pl.String(),
    "raw": pl.String(),
}
"""Columns of the files of rejected rows: ``day`` is null where the time is at fault, ``raw`` is the row as JSON."""
