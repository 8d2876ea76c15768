"""Looking at all bytes of a text column at once: cheaper than asking every cell, and nearly every batch is clean."""

import numpy as np
import pyarrow as pa

LOWEST, HIGHEST = 0x2D, 0x7A
"""From ``-`` to ``z``: below are spaces, controls, quotes and commas, above are braces and everything not ASCII."""
BRACKETS = b"<>[]"


def holds_plain_ids(column: pa.Array, longest: int) -> bool:
    """Return True if every cell surely is a plain id of at most ``longest`` bytes; False says that some may not be."""
    if not pa.types.is_string(column.type):
        return False
    offsets = _offsets(column)
    if len(column) == 0 or int(np.diff(offsets).max()) > longest:
        return len(column) == 0
    values = column.buffers()[2]
    values = np.frombuffer(values, np.uint8)[offsets[0] : offsets[-1]] if values else np.empty(0, np.uint8)
    if len(values) and (values.min() < LOWEST or values.max() > HIGHEST):
        return False
    return not any((values == bracket).any() for bracket in BRACKETS)


def longest_cell(column: pa.Array) -> int:
    """Return the length in bytes of a string column's longest cell; 0 for other columns."""
    if not pa.types.is_string(column.type) or len(column) == 0:
        return 0
    return int(np.diff(_offsets(column)).max())


def _offsets(column: pa.Array) -> np.ndarray:
    offsets = column.buffers()[1]
    return np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
