"""Configurations as bundles keep them: plain values, equal after a trip through JSON.

What belongs elsewhere: what a kind is configured by (one model per file).
"""

from collections.abc import Collection, Mapping
from typing import Any


def without_retired(values: Mapping[str, Any], retired: Collection[str]) -> dict[str, Any]:
    """Return settings as the present code knows them: without those that are gone, of which bundles may still speak."""
    return {name: value for name, value in values.items() if name not in retired}


def plain(value: Any) -> Any:
    """Return a configuration's value as JSON gives it back: tuples are lists."""
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value
