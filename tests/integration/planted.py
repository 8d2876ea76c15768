"""Candidates with planted faults, honestly measured: what the champion's gate is there to refuse."""

import dataclasses
import json

import numpy as np
from whole_shop import Shop

from bigger_boat.ml.bundle import Bundle, read_bundle
from bigger_boat.ml.knn_recommender import KnnConfig, KnnModel
from bigger_boat.ml.prod2vec import ProductEmbeddings
from bigger_boat.ml.recommendation_task import RecommendationTask


class Backwards(KnnModel):
    """Sorts the wrong way: the worst products first."""

    def scores(self, recent: np.ndarray) -> np.ndarray:
        return -super().scores(recent)


def trained(shop: Shop) -> ProductEmbeddings:
    return ProductEmbeddings.load(shop.folder("product_embeddings"))


def popular_items(shop: Shop) -> KnnModel:
    """Has learned nothing but what is popular."""
    embeddings = trained(shop)
    blind = dataclasses.replace(embeddings, vectors=np.zeros_like(embeddings.vectors))
    return KnnModel(blind, KnnConfig(last_bonus=0.0, revisit_bonus=0.0, popularity_weight=1.0))


def ascending(shop: Shop) -> KnnModel:
    return Backwards(trained(shop), KnnConfig())


def replace_candidate(shop: Shop, model: KnnModel, **changes: object) -> None:
    """Make ``model``, honestly measured, the candidate that the leaderboard chose."""
    task = RecommendationTask(shop.folder("recommendation_dataset"))
    info = read_bundle(shop.folder("knn_recommender")).info
    scores = task.scores(model, "validation")
    written = task.write(
        shop.storage.folder("bundles/knn_recommender"), model, {**info, "metrics": {"validation": scores}, **changes}
    )
    choose(shop, written)


def choose(shop: Shop, candidate: Bundle) -> None:
    """Make a bundle what the leaderboard says it chose."""
    with shop.storage.draft("reports/recommender_leaderboard") as draft:
        report = json.loads((shop.folder("recommender_leaderboard") / "report.json").read_text())
        report["chosen"]["bundle"] = shop.storage.address(candidate.directory)
        (draft.path / "report.json").write_text(json.dumps(report))
    shop.point("recommender_leaderboard", draft.address)
