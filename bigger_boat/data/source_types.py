"""Which types the columns of a Parquet source may have: those that the rows' validation can judge cell by cell.

A column of another type is a fault of the file. What belongs elsewhere: the columns (``source_columns.py``), judging
cells (``source_rows.py``).
"""

from collections.abc import Callable, Iterable

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import types

from bigger_boat.data.event_rules import TIME
from bigger_boat.data.source_columns import SCHEMAS

Accepts = Callable[[pa.DataType], bool]


def refused_column(table: str, schema: pa.Schema, names: Iterable[str]) -> tuple[str, str] | None:
    """Return name and expected type, in words, of the first column that cannot be judged; None if all can."""
    for name in names:
        came = schema.field(name).type
        words, accepts = _expected(name, SCHEMAS[table][name])
        if not (types.is_null(came) or _is_text(came) or accepts(came)):
            return name, words
    return None


def without_empty_floats(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return the rows with columns of nothing but NaN as null: how pandas writes a column without a value."""
    columns = [
        pa.nulls(len(column)) if types.is_floating(column.type) and _is_empty(column) else column
        for column in rows.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names)


def _is_empty(column: pa.Array) -> bool:
    return bool(np.isnan(column.to_numpy(zero_copy_only=False)).all())


def _expected(name: str, wanted: pl.DataType) -> tuple[str, Accepts]:
    if name == TIME:
        return "whole numbers, timestamps or text", lambda came: _is_number(came) or _is_moment(came)
    if wanted == pl.Int64:
        return "whole numbers or text", _is_number
    if wanted == pl.List(pl.Float32):
        return "lists of numbers or text", lambda came: _is_list_of(came, _is_number)
    if wanted == pl.List(pl.String):
        return "lists of text or text", lambda came: _is_list_of(came, _is_text)
    return "text or whole numbers", types.is_integer


def _is_text(came: pa.DataType) -> bool:
    if types.is_dictionary(came):
        return _is_text(came.value_type)
    return types.is_string(came) or types.is_large_string(came) or types.is_string_view(came)


def _is_number(came: pa.DataType) -> bool:
    return types.is_integer(came) or types.is_floating(came) or types.is_decimal(came)


def _is_moment(came: pa.DataType) -> bool:
    return types.is_timestamp(came) or types.is_date(came)


def _is_list_of(came: pa.DataType, accepts: Accepts) -> bool:
    is_list = types.is_list(came) or types.is_large_list(came) or types.is_fixed_size_list(came)
    return is_list and (types.is_null(came.value_type) or accepts(came.value_type))
