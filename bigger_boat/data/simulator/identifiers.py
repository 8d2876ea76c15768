"""64-digit hexadecimal ids, computed from numbers, many at a time: they look like the challenge's hashes."""

import numpy as np
import pyarrow as pa

SESSION, PRODUCT, URL, CATEGORY = range(1, 5)
"""What an id names: the same number gets another id in each."""

_HEX_PAIRS = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype=np.uint16)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Return splitmix64 of each value (uint64): a bijection whose outputs pass for random."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def hashed_ids(numbers: np.ndarray, kind: int, seed: int) -> pa.Array:
    """Return one 64-digit id per number (N,) of a kind and seed. Distinct numbers get distinct ids."""
    start = _mixed(_mixed(np.array([(seed * 8 + kind) % 2**64], dtype=np.uint64)))  # twice: numbers are mixed once
    lanes = _mixed(
        _mixed(numbers.astype(np.uint64))[:, None] ^ (start + np.arange(4, dtype=np.uint64) * np.uint64(2**40))
    )
    digits = _HEX_PAIRS[lanes.byteswap().view(np.uint8)].view(np.uint8)
    offsets = np.arange(len(numbers) + 1, dtype=np.int64) * 64
    return pa.LargeStringArray.from_buffers(
        len(numbers), pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(digits))
    )
