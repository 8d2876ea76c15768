"""Models: candidates, fitted on the training days only; each is a bundle with its numbers on validation."""

from typing import TYPE_CHECKING, Any

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
from bigger_boat.resources.storage import Storage
from bigger_boat.resources.tracking import Tracking
from bigger_boat.resources.training import Training

if TYPE_CHECKING:
    from bigger_boat.ml.bundle import Bundle
    from bigger_boat.ml.network_fitting import Fitted


class TrainingOverrides(dg.Config):
    """Hyper-parameters of anything that is trained by epochs; what is not set comes from the size (quick or full)."""

    dropout: float | None = Field(None, ge=0, lt=1, description="share of units left out while training")
    learning_rate: float | None = Field(None, gt=0, le=1, description="first learning rate")
    batch_size: int | None = Field(None, ge=1, le=65536, description="sessions per step")
    epochs: int | None = Field(None, ge=1, le=1000, description="passes over the sessions, at most")
    patience: int | None = Field(None, ge=1, le=100, description="epochs without improvement before it stops")
    seed: int | None = Field(None, description="the same seed makes the same model")


class IntentOverrides(TrainingOverrides):
    """Hyper-parameters of the intent LSTM."""

    units: int | None = Field(None, ge=2, le=1024, description="width of an LSTM")
    members: int | None = Field(None, ge=1, le=16, description="LSTMs that are averaged")
    mix_units: int | None = Field(None, ge=0, le=1024, description="layer that sees LSTM and running totals; 0: none")
    ahead_weight: float | None = Field(None, ge=0, le=10, description="weight of the lesson what comes next")
    precision: str | None = Field(None, pattern="^(float32|mixed_float16)$", description="of the LSTMs while training")


@dg.asset(
    group_name="models",
    io_manager_key=ADDRESS_IO,
    owners=ML_OWNERS,
    kinds={"python", "tensorflow", "keras"},
    code_version="3",
)
def intent_model(
    config: IntentOverrides,
    intent_dataset: str,
    product_embeddings: str,
    storage: Storage,
    training: Training,
    tracking: Tracking,
    gpu_compute: dg.ResourceParam[object],  # noqa: ARG001
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
            address = storage.publish(bundle.directory)
            run.tag(bundle=address)
    return dg.Output(
        address,
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


class NetworkOverrides(TrainingOverrides):
    """Hyper-parameters of any next-item network."""

    samples: int | None = Field(None, ge=1, description="products that a sampled loss compares with")


class LstmOverrides(NetworkOverrides):
    """Hyper-parameters of the next-item LSTM."""

    units: int | None = Field(None, ge=2, le=1024, description="width of the LSTM")


class ProdbOverrides(NetworkOverrides):
    """Hyper-parameters of ProdB."""

    units: int | None = Field(None, ge=2, le=1024, description="width of the encoder, a multiple of heads")
    heads: int | None = Field(None, ge=1, le=16, description="attention heads")
    layers: int | None = Field(None, ge=1, le=24, description="layers of the encoder")
    hidden_share: float | None = Field(None, gt=0, lt=1, description="share of a session's products that is hidden")


class HybridOverrides(dg.Config):
    """What the hybrid is chosen by; what is not set comes from the size (quick or full)."""

    judged_predictions: int | None = Field(None, ge=100, description="predictions that the weights are fitted on")
    penalty: float | None = Field(None, gt=0, description="how strongly weights are held near 0")


@dg.asset(
    group_name="models",
    io_manager_key=ADDRESS_IO,
    owners=ML_OWNERS,
    kinds={"python", "tensorflow"},
    code_version="3",
)
def knn_recommender(
    recommendation_dataset: str,
    product_embeddings: str,
    storage: Storage,
    training: Training,
    tracking: Tracking,
) -> dg.Output[str]:
    """Prod2Vec nearest neighbours of what the session looked at last: which products come next?"""
    return _recommender("knn", recommendation_dataset, product_embeddings, storage, training, tracking)


@dg.asset(
    group_name="models",
    io_manager_key=ADDRESS_IO,
    owners=ML_OWNERS,
    kinds={"python", "tensorflow", "keras"},
    code_version="3",
)
def lstm_recommender(
    config: LstmOverrides,
    recommendation_dataset: str,
    product_embeddings: str,
    storage: Storage,
    training: Training,
    tracking: Tracking,
    gpu_compute: dg.ResourceParam[object],  # noqa: ARG001
) -> dg.Output[str]:
    """LSTM over the vectors of the products looked at, which also say what the catalogue says: which come next?"""
    from bigger_boat.ml.lstm_recommender import LstmConfig

    parts = {"lstm": preset(LstmConfig, training.size, config)}
    return _recommender("lstm", recommendation_dataset, product_embeddings, storage, training, tracking, parts)


@dg.asset(
    group_name="models",
    io_manager_key=ADDRESS_IO,
    owners=ML_OWNERS,
    kinds={"python", "tensorflow", "keras"},
    code_version="1",
)
def prodb_recommender(
    config: ProdbOverrides,
    recommendation_dataset: str,
    product_embeddings: str,
    storage: Storage,
    training: Training,
    tracking: Tracking,
    gpu_compute: dg.ResourceParam[object],  # noqa: ARG001
) -> dg.Output[str]:
    """Masked language model over products: a transformer that guesses hidden products of a session: which come next?"""
    from bigger_boat.ml.prodb_recommender import ProdbConfig

    parts = {"prodb": preset(ProdbConfig, training.size, config)}
    return _recommender("prodb", recommendation_dataset, product_embeddings, storage, training, tracking, parts)


@dg.asset(
    group_name="models",
    io_manager_key=ADDRESS_IO,
    owners=ML_OWNERS,
    kinds={"python", "tensorflow"},
    code_version="3",
)
def hybrid_recommender(
    config: HybridOverrides,
    recommendation_dataset: str,
    product_embeddings: str,
    lstm_recommender: str,
    storage: Storage,
    training: Training,
    tracking: Tracking,
) -> dg.Output[str]:
    """Past sessions, rules, revisits, popularity and the LSTM, weighed on validation: which products come next?"""
    from bigger_boat.ml.bundle import read_bundle
    from bigger_boat.ml.hybrid_recommender import HybridConfig
    from bigger_boat.ml.lstm_recommender import LstmConfig

    with readable_failures():
        lstm = read_bundle(storage.fetch(lstm_recommender))
    own = LstmConfig.from_dict(lstm.info["configuration"]["lstm"])
    parts = {"lstm": own, "hybrid": preset(HybridConfig, training.size, config)}
    return _recommender("hybrid", recommendation_dataset, product_embeddings, storage, training, tracking, parts, lstm)


def _recommender(
    kind: str,
    recommendation_dataset: str,
    product_embeddings: str,
    storage: Storage,
    training: Training,
    tracking: Tracking,
    parts: dict[str, Any] | None = None,
    around: "Bundle | None" = None,
) -> dg.Output[str]:
    """Fit a kind of recommender on the training days, ``around`` an LSTM; write its bundle with its numbers."""
    from bigger_boat.ml.recommendation_plots import plot_leaderboard
    from bigger_boat.ml.recommendation_task import RecommendationTask
    from bigger_boat.ml.recommender_kinds import configuration_of

    with readable_failures():
        folder, manifest = verified_dataset(storage, recommendation_dataset)
        task = RecommendationTask(folder, storage.checkpoints, training.judged_sessions)
        embeddings, prod2vec, items_version = load_embeddings(storage, product_embeddings)
        configuration = configuration_of(kind, prod2vec, **(parts or {}))
        data = {"recommendation_dataset": items_version}
        with tracked(tracking, f"{kind}_recommender", configuration, data) as run:
            task.on_epoch = run.log
            lstm = around and _trained(around, configuration, data)
            model, chosen = task.fit(configuration, embeddings, lstm)
            scores = task.scores(model, "validation")
            metrics = {"validation": scores, "behaviour": task.behaviour(model)}
            info = candidate_info(manifest, data=data, configuration=configuration, chosen=chosen, metrics=metrics)
            bundle = task.write(storage.folder(f"bundles/{kind}_recommender"), model, info)
            run.log(metrics)
            address = storage.publish(bundle.directory)
            run.tag(bundle=address)
    rows = list(scores.values())
    mrr = {name: row["mrr"] for name, row in scores.items()}
    return dg.Output(
        address,
        data_version=dg.DataVersion(bundle.version),
        metadata={
            SUMMARY: f"MRR@20 {mrr[kind]:.3f}, in-session popularity {mrr['session_popularity']:.3f}",
            SIZE: training.size,
            "version": bundle.version,
            "mrr": mrr[kind],
            "chosen": chosen,
            "behaviour": table([metrics["behaviour"]]),
            "validation": table(rows),
            "leaderboard": plot(plot_leaderboard(rows)),
        },
    )


def _trained(bundle: "Bundle", configuration: dict[str, Any], data: dict[str, str]) -> "Fitted":
    """Return the LSTM of a candidate. Raises TrainingError where it is of other sessions or embeddings."""
    from bigger_boat.errors import TrainingError
    from bigger_boat.ml.hybrid_export import load_lstm
    from bigger_boat.ml.network_fitting import Fitted

    theirs = bundle.info["configuration"]
    if bundle.info["data_versions"] != data or theirs["prod2vec"] != configuration["prod2vec"]:
        raise TrainingError(
            f"Expected an LSTM of {data} with embeddings of {configuration['prod2vec']}, and found version "
            f"{bundle.version}, of {bundle.info['data_versions']} with {theirs['prod2vec']}.",
            "Materialize lstm_recommender again, then hybrid_recommender.",
        )
    return Fitted(load_lstm(bundle.saved_model, theirs["lstm"]["longest"]), bundle.info["chosen"]["epochs"])
