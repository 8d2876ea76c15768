"""How two versions of a data set differ: days, rows and products, from their manifests and files.

What belongs elsewhere: what a manifest is (``dataset_manifest.py``), what models make of it (``ml/version_diff.py``).
"""

from pathlib import Path
from typing import Any

import polars as pl

from bigger_boat.data.dataset_manifest import read_manifest
from bigger_boat.data.split_files import split_path
from bigger_boat.data.vocabulary import SPLITS

_GONE = "no longer there"
_PRODUCTS = ("items", "skus")


def dataset_rows(name: str, before: Path | None, after: Path | None) -> list[dict[str, Any]]:
    """Return rows (what, before, after) about two versions of the data set ``name``; None: it was swept away."""
    facts = [_facts(folder) for folder in (before, after)]
    rows = [
        {"what": f"{name}: {what}", "before": facts[0].get(what, _GONE), "after": facts[1].get(what, _GONE)}
        for what in dict.fromkeys([*facts[0], *facts[1]])
    ]
    if before and after:
        old, new = _products(before), _products(after)
        rows.append({"what": f"{name}: products", "before": len(old), "after": len(new)})
        rows.append(
            {"what": f"{name}: products that went, that came", "before": len(old - new), "after": len(new - old)}
        )
    return rows


def _facts(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {}
    manifest = read_manifest(folder)
    rows = {f"rows of {split}": manifest.rows.get(split, 0) for split in SPLITS}
    return {"days": manifest.days["count"], "content": manifest.data_version, **rows}


def _products(folder: Path) -> set[str]:
    """Return the products in the sessions of a data set."""
    frame = pl.scan_parquet([split_path(folder, split) for split in SPLITS])
    column = next(name for name in _PRODUCTS if name in frame.collect_schema().names())
    unique = frame.select(pl.col(column).explode().unique()).collect()[column]
    return {sku for sku in unique.to_list() if sku}
