"""What Snowflake's connector hands out, as the Arrow batches that DuckDB would have given.

Names come in capitals, whole numbers as wide as each chunk happens to need, and arrays as JSON text.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bigger_boat.errors import WarehouseError

if TYPE_CHECKING:
    import pyarrow as pa

FIXED, REAL, TEXT, DATE, TIMESTAMP, VARIANT, TIMESTAMP_NTZ, ARRAY, BOOLEAN = 0, 1, 2, 3, 4, 5, 8, 10, 13
"""The connector's codes of column types."""

NUMBER_LISTS = {"timestamps_ms": "int64"} | dict.fromkeys(
    ("query_vector", "description_vector", "image_vector"), "float32"
)
"""Array columns of numbers, which JSON does not tell apart; every other array is of text."""


def schema_of(description: Sequence[Any]) -> "pa.Schema":
    """Return the Arrow schema of a cursor's columns, in small letters."""
    import pyarrow as pa

    return pa.schema([pa.field(column.name.lower(), _type_of(column)) for column in description])


def _type_of(column: Any) -> "pa.DataType":
    import pyarrow as pa

    if column.type_code in (VARIANT, ARRAY):
        return pa.list_(pa.type_for_alias(NUMBER_LISTS.get(column.name.lower(), "string")))
    if column.type_code == FIXED:
        return pa.float64() if column.scale else pa.int64()
    types = {
        REAL: pa.float64(),
        TEXT: pa.string(),
        DATE: pa.date32(),
        TIMESTAMP: pa.timestamp("us"),
        TIMESTAMP_NTZ: pa.timestamp("us"),
        BOOLEAN: pa.bool_(),
    }
    if column.type_code not in types:
        raise WarehouseError(f"Column {column.name} has a type that is not read from Snowflake ({column.type_code}).")
    return types[column.type_code]


def batches(tables: Iterable["pa.Table"], schema: "pa.Schema") -> Iterator["pa.RecordBatch"]:
    """Yield the connector's chunks in this schema. Raises WarehouseError where a value does not fit its type."""
    import pyarrow as pa

    for table in tables:
        columns = [_convert(column, field) for column, field in zip(table.columns, schema, strict=True)]
        yield from pa.Table.from_arrays(columns, schema=schema).to_batches()


def _convert(column: "pa.ChunkedArray", field: "pa.Field") -> "pa.ChunkedArray":
    import polars as pl
    import pyarrow as pa

    try:
        if pa.types.is_list(field.type):
            inner = pl.from_arrow(pa.array([], field.type.value_type)).dtype
            lists = pl.Series(pl.from_arrow(column)).cast(pl.String).str.json_decode(pl.List(inner))
            return pa.chunked_array([lists.to_arrow()]).cast(field.type)
        return column.cast(field.type)
    except (pa.ArrowException, pl.exceptions.PolarsError) as error:
        reason = (str(error).splitlines() or ["?"])[0][:200]
        raise WarehouseError(f"Column {field.name} is not a {field.type} as expected: {reason}.") from error
