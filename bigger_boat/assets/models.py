"""Models: candidates, fitted on the training days only; each is a bundle with its numbers on validation."""

import dagster as dg
from pydantic import Field

from bigger_boat.assets.common import (
    ADDRESS_IO,
    ML_OWNERS,
    SIZE,
    SUMMARY,
    candidate_info,
    load_embeddings,
    plot,
    preset,
    readable_failures,
    table,
    tracked,
    verified_dataset,
)
from bigger_boat.resources.storage import LocalStorage
from bigger_boat.resources.tracking import Tracking
from bigger_boat.resources.training import Training


class IntentOverrides(dg.Config):
    """Hyper-parameters of the intent LSTM; what is not set comes from the size (quick or full)."""

    units: int | None = Field(None, ge=2, le=1024, description="width of an LSTM")
    members: int | None = Field(None, ge=1, le=16, description="LSTMs that are averaged")
    dropout: float | None = Field(None, ge=0, lt=1, description="share of units left out while training")
    learning_rate: float | None = Field(None, gt=0, le=1, description="first learning rate")
    batch_size: int | None = Field(None, ge=1, le=65536, description="sessions per step")
    epochs: int | None = Field(None, ge=1, le=1000, description="passes over the sessions, at most")
    mix_units: int | None = Field(None, ge=0, le=1024, description="layer that sees LSTM and running totals; 0: none")
    ahead_weight: float | None = Field(None, ge=0, le=10, description="weight of the lesson what comes next")
    precision: str | None = Field(None, pattern="^(float32|mixed_float16)$", description="of the LSTMs while training")
    jit: bool | None = Field(None, description="compile the training step by XLA")
    patience: int | None = Field(None, ge=1, le=100, description="epochs without improvement before it stops")
    seed: int | None = Field(None, description="the same seed makes the same model")


@dg.asset(
    group_name="models",
    io_manager_key=ADDRESS_IO,
    owners=ML_OWNERS,
    kinds={"python", "tensorflow", "keras"},
    code_version="2",
)
def intent_model(
    config: IntentOverrides,
    intent_dataset: str,
    product_embeddings: str,
    storage: LocalStorage,
    training: Training,
    tracking: Tracking,
) -> dg.Output[str]:
    """LSTM over actions, time gaps and product vectors: will this session with a cart end in a purchase?"""
    from bigger_boat.ml.intent_model import IntentConfig
    from bigger_boat.ml.intent_plots import learning_curve
    from bigger_boat.ml.intent_task import IntentTask, report_rows, summary

    with readable_failures():
        folder, manifest = verified_dataset(storage, intent_dataset)
        task = IntentTask(folder, checkpoints=storage.checkpoints)
        embeddings, prod2vec, items_version = load_embeddings(storage, product_embeddings)
        chosen = preset(IntentConfig, training.size, config)
        configuration = task.configuration_of(chosen, prod2vec)
        data = {"intent_dataset": manifest.version, "recommendation_dataset": items_version}
        with tracked(tracking, "intent_model", configuration, data) as run:
            task.on_epoch = run.log
            model, choice = task.fit(embeddings, chosen)
            scores = task.scores(model, "validation")
            info = candidate_info(
                manifest, data=data, configuration=configuration, chosen=choice, metrics={"validation": scores}
            )
            bundle = task.write(storage.folder("bundles/intent_model"), model, info)
            rows = report_rows(scores)
            run.log({"validation": {row["model"]: row for row in rows}})
            run.tag(bundle=storage.address(bundle.directory))
    return dg.Output(
        storage.address(bundle.directory),
        data_version=dg.DataVersion(bundle.version),
        metadata={
            SUMMARY: summary(rows),
            SIZE: training.size,
            "version": bundle.version,
            "epochs": model.choice.epochs,
            "pr_auc": rows[0]["pr_auc"],
            "validation": table(rows),
            "learning_curve": plot(learning_curve(model.history)),
        },
    )


@dg.asset(
    group_name="models",
    io_manager_key=ADDRESS_IO,
    owners=ML_OWNERS,
    kinds={"python", "tensorflow"},
    code_version="1",
)
def knn_recommender(
    recommendation_dataset: str,
    product_embeddings: str,
    storage: LocalStorage,
    training: Training,
    tracking: Tracking,
) -> dg.Output[str]:
    """Prod2Vec nearest neighbours of what the session looked at last: which products come next?"""
    from bigger_boat.ml.recommendation_plots import plot_leaderboard
    from bigger_boat.ml.recommendation_task import KIND, RecommendationTask

    with readable_failures():
        folder, manifest = verified_dataset(storage, recommendation_dataset)
        task = RecommendationTask(folder)
        embeddings, prod2vec, items_version = load_embeddings(storage, product_embeddings)
        configuration, data = task.configuration_of(prod2vec), {"recommendation_dataset": items_version}
        with tracked(tracking, "knn_recommender", configuration, data) as run:
            model, blend = task.fit(embeddings)
            scores = task.scores(model, "validation")
            info = candidate_info(
                manifest, data=data, configuration=configuration, chosen=blend, metrics={"validation": scores}
            )
            bundle = task.write(storage.folder("bundles/knn_recommender"), model, info)
            run.log({"validation": scores})
            run.tag(bundle=storage.address(bundle.directory))
    rows = list(scores.values())
    mrr = {name: row["mrr"] for name, row in scores.items()}
    return dg.Output(
        storage.address(bundle.directory),
        data_version=dg.DataVersion(bundle.version),
        metadata={
            SUMMARY: f"MRR@20 {mrr[KIND]:.3f}, in-session popularity {mrr['session_popularity']:.3f}",
            SIZE: training.size,
            "version": bundle.version,
            "mrr": mrr[KIND],
            "chosen": blend,
            "validation": table(rows),
            "leaderboard": plot(plot_leaderboard(rows)),
        },
    )
