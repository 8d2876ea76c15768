"""Imports of many modules, without Python's collector looking through all that they have made again and again."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Let the collector rest within the block, and leave alone for good what exists at its end: modules stay."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
