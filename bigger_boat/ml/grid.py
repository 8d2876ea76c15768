"""A grid of configurations, and the table that compares what came of them. Pure; the sweep's assets are in ``assets/``.

What belongs elsewhere: which values are worth trying (beside the asset that trains them), training itself.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any


def configurations(grid: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """Return every combination of the grid's values by a name that tells it: ``units_32-dropout_0.1``.

    The last parameter changes fastest. Raises ValueError if two values read alike.
    """
    found: dict[str, dict[str, Any]] = {}
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        name = "-".join(f"{key}_{value}" for key, value in chosen.items())
        if name in found:
            raise ValueError(f"Two configurations of the grid are called {name}.")
        found[name] = chosen
    return found


def comparison(results: Sequence[Mapping[str, Any]], by: str, dataset: str) -> list[dict[str, Any]]:
    """Return a row per result, least ``by`` first: name, parameters, scores, and whether it is of this data set.

    Results of another data set stand behind: their numbers are not comparable.
    """
    rows = [
        {
            "configuration": result["name"],
            **result["parameters"],
            **result["scores"],
            "data": "this" if result["dataset"] == dataset else "older",
        }
        for result in results
    ]
    return sorted(rows, key=lambda row: (row["data"] != "this", row[by], row["configuration"]))
