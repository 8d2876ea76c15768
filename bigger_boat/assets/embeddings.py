"""Embeddings: a vector for every product of the training days."""

import dataclasses
import json
from pathlib import Path

import dagster as dg
from pydantic import Field

from bigger_boat.assets.common import (
    ADDRESS_IO,
    EMBEDDINGS_CONFIG,
    ML_OWNERS,
    SIZE,
    SUMMARY,
    plot,
    preset,
    readable_failures,
    table,
    tracked,
    verified_dataset,
)
from bigger_boat.assets.datasets import PRODUCTS_FILE
from bigger_boat.resources.storage import Storage
from bigger_boat.resources.tracking import Tracking
from bigger_boat.resources.training import Training


class Prod2VecOverrides(dg.Config):
    """Hyper-parameters of Prod2Vec; what is not set comes from the size (quick or full)."""

    dim: int | None = Field(None, ge=2, le=512, description="length of a product's vector")
    window: int | None = Field(None, ge=1, le=50, description="products of a session on either side that count as near")
    epochs: int | None = Field(None, ge=1, le=500, description="passes over the sessions")
    negative: int | None = Field(None, ge=1, le=50, description="negative samples per pair")
    learning_rate: float | None = Field(None, gt=0, le=1, description="first learning rate")
    seed: int | None = Field(None, description="the same seed makes the same vectors")


@dg.asset(
    group_name="embeddings",
    io_manager_key=ADDRESS_IO,
    owners=ML_OWNERS,
    kinds={"python", "gensim"},
    code_version="1",
)
def product_embeddings(
    config: Prod2VecOverrides,
    recommendation_dataset: str,
    storage: Storage,
    training: Training,
    tracking: Tracking,
    cpu_compute: dg.ResourceParam[object],  # noqa: ARG001
) -> dg.Output[str]:
    """Prod2Vec: a vector per product from the sessions of the training days, with its vocabulary and popularity."""
    from bigger_boat.ml.prod2vec import Prod2VecConfig, train_prod2vec
    from bigger_boat.ml.recommendation_plots import plot_product_map
    from bigger_boat.ml.recommendation_task import RecommendationTask

    with readable_failures(), storage.draft("embeddings/product_embeddings") as draft:
        folder, manifest = verified_dataset(storage, recommendation_dataset)
        chosen = preset(Prod2VecConfig, training.size, config)
        configuration, data = dataclasses.asdict(chosen), {"recommendation_dataset": manifest.version}
        with tracked(tracking, "product_embeddings", configuration, data) as run:
            embeddings = train_prod2vec(RecommendationTask(folder).train, chosen)
            run.log({"products": len(embeddings.skus)})
            run.tag(address=draft.address)
        embeddings.save(draft.path)
        described = {"configuration": configuration, **data}
        (draft.path / EMBEDDINGS_CONFIG).write_text(json.dumps(described, indent=2) + "\n")
    neighbours = [{"product": sku[:12], "nearest": _nearest(embeddings, sku)} for sku in embeddings.skus[:8]]
    return dg.Output(
        draft.address,
        data_version=dg.DataVersion(draft.version),
        metadata={
            SUMMARY: f"{len(embeddings.skus):,} products in {chosen.dim} dimensions",
            SIZE: training.size,
            "dagster/row_count": len(embeddings.skus),
            "dimensions": chosen.dim,
            "trained_on": manifest.version,
            "nearest_neighbours": table(neighbours),
            "map": plot(plot_product_map(embeddings, _branches(folder))),
        },
    )


def _nearest(embeddings, sku: str) -> str:
    return ", ".join(f"{other[:8]} ({cosine:.2f})" for other, cosine in embeddings.neighbours(sku, 4))


def _branches(dataset: Path) -> dict[str, str]:
    """Return the top of the category tree for each product that has a category."""
    import polars as pl

    products = pl.read_parquet(dataset / PRODUCTS_FILE).drop_nulls("category")
    branches = products["category"].str.split("/").list.first()
    return dict(zip(products["sku"], branches, strict=True))
