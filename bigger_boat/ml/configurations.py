"""Configurations as bundles keep them: plain values, equal after a trip through JSON.

What belongs elsewhere: what a kind is configured by (one model per file).
"""

from collections.abc import Mapping
from typing import Any


def plain(value: Any) -> Any:
    """Return a configuration's value as JSON gives it back: tuples are lists."""
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value
