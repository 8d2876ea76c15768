"""A digest of a table's values, whatever their chunks, compression, and the version of what writes them."""

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

CONTENT_FORMAT = b"bigger-boat landing content 1"


class ContentDigest:
    """Takes pieces of a table in row order; the digest is over each column's validity, lengths and values."""

    def __init__(self) -> None:
        self._columns: dict[str, dict[str, object]] = {}

    def update(self, table: pa.Table) -> None:
        """Take further rows in; the columns are the same every time."""
        for name, column in zip(table.column_names, table.columns, strict=True):
            hashers = self._columns.setdefault(name, {})
            for chunk in column.chunks:
                _update(hashers, "", chunk)

    def hexdigest(self) -> str:
        """Return the first 16 hexadecimal digits."""
        total = hashlib.sha256(CONTENT_FORMAT)
        for name, hashers in sorted(self._columns.items()):
            for part, hasher in sorted(hashers.items()):
                total.update(f"{name}{part}".encode() + hasher.digest())
        return total.hexdigest()[:16]


def _update(hashers: dict, path: str, values: pa.Array) -> None:
    def take(part: str, numbers: np.ndarray) -> None:
        hashers.setdefault(f"{path}/{part}", hashlib.sha256()).update(np.ascontiguousarray(numbers))

    take("valid", _numbers(values.is_valid().cast(pa.uint8())))
    values = values.drop_null() if values.null_count else values
    if _is_text(values.type):
        take("lengths", _numbers(pc.binary_length(values)).astype("<u4"))
        take("bytes", _text_bytes(values))
    elif pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        take("lengths", _numbers(pc.list_value_length(values)).astype("<u4"))
        _update(hashers, f"{path}/items", values.flatten())
    else:
        take("values", _numbers(values))


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _numbers(values: pa.Array) -> np.ndarray:
    """Return fixed-width values as unsigned integers of that width; pyarrow's own way to NumPy would import pandas."""
    kind = np.dtype(f"<u{values.type.bit_width // 8}")
    return np.frombuffer(values.buffers()[1], kind)[values.offset : values.offset + len(values)]


def _text_bytes(values: pa.Array) -> np.ndarray:
    _, offsets, data = values.buffers()
    if not len(values) or data is None:
        return np.empty(0, np.uint8)
    width = np.int64 if pa.types.is_large_string(values.type) else np.int32
    bounds = np.frombuffer(offsets, width)[values.offset : values.offset + len(values) + 1]
    return np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]
