"""The kinds of recommenders that can become champion: how each is fitted, fitted again on all days, and exported.

A kind turns sessions and embeddings into a model and what was chosen on validation; what was chosen is enough to fit it
again on other days. What belongs elsewhere: the models (one file each), the data set and the bundle
(``recommendation_task.py``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bigger_boat.ml.catalogue import Products
from bigger_boat.ml.configurations import plain
from bigger_boat.ml.hybrid_recommender import PARTS, HybridConfig, HybridModel, fit_hybrid
from bigger_boat.ml.knn_recommender import KnnConfig, KnnModel, fit_knn
from bigger_boat.ml.lstm_recommender import LstmConfig, LstmModel, fit_lstm
from bigger_boat.ml.network_fitting import Fitted, NetworkConfig
from bigger_boat.ml.prod2vec import Prod2VecConfig, ProductEmbeddings
from bigger_boat.ml.prodb_recommender import ProdbConfig, ProdbModel, fit_prodb

Progress = Callable[[Mapping[str, float], int], None]
"""Called with numbers of an epoch, and its number."""


@dataclass(frozen=True)
class FitData:
    """``sequences``: items of sessions, oldest first; ``validation``: later ones, None when fitting again on all days.

    ``embeddings`` are of the same sessions. ``checkpoint`` names a file in which a training keeps its last epoch.
    """

    sequences: Sequence[Sequence[str]]
    embeddings: ProductEmbeddings
    validation: Sequence[Sequence[str]] | None = None
    products: Products | None = None
    checkpoint: Path | None = None
    on_epoch: Progress | None = field(default=None, compare=False)


class KnnKind:
    """prod2vec neighbours. Configuration: nothing of its own."""

    name = "knn"

    @staticmethod
    def fit(data: FitData, configuration: Mapping[str, Any], lstm: Fitted | None = None):  # noqa: ARG004
        model = fit_knn(data.embeddings, validation=data.validation)
        return model, model.config.as_dict()

    @staticmethod
    def refit(data: FitData, configuration: Mapping[str, Any], chosen: Mapping[str, Any]) -> KnnModel:  # noqa: ARG004
        return fit_knn(data.embeddings, KnnConfig(**chosen))

    @staticmethod
    def export(model: KnnModel, directory: Path) -> None:
        from bigger_boat.ml.recommender_export import export_knn

        export_knn(model, directory)


class LstmKind:
    """The next-item LSTM. Configuration: ``lstm``."""

    name = "lstm"

    @staticmethod
    def fit(data: FitData, configuration: Mapping[str, Any], lstm: Fitted | None = None):
        lstm = lstm or _fit_lstm(data, configuration, validation=data.validation)
        return lstm.model, {"epochs": lstm.epochs}

    @staticmethod
    def refit(data: FitData, configuration: Mapping[str, Any], chosen: Mapping[str, Any]) -> LstmModel:
        return _fit_lstm(data, configuration, epochs=chosen["epochs"]).model

    @staticmethod
    def export(model: LstmModel, directory: Path) -> None:
        from bigger_boat.ml.hybrid_export import export_lstm

        export_lstm(model, directory)


class ProdbKind:
    """The masked language model over products. Configuration: ``prodb``."""

    name = "prodb"

    @staticmethod
    def fit(data: FitData, configuration: Mapping[str, Any], lstm: Fitted | None = None):  # noqa: ARG004
        fitted = _fit_prodb(data, configuration, validation=data.validation)
        return fitted.model, {"epochs": fitted.epochs}

    @staticmethod
    def refit(data: FitData, configuration: Mapping[str, Any], chosen: Mapping[str, Any]) -> ProdbModel:
        return _fit_prodb(data, configuration, epochs=chosen["epochs"]).model

    @staticmethod
    def export(model: ProdbModel, directory: Path) -> None:
        from bigger_boat.ml.prodb_export import export_prodb

        export_prodb(model, directory)


class HybridKind:
    """Neighbours, rules, revisits, popularity and the LSTM. Configuration: ``lstm`` and ``hybrid``."""

    name = "hybrid"

    @staticmethod
    def fit(data: FitData, configuration: Mapping[str, Any], lstm: Fitted | None = None):
        lstm = lstm or _fit_lstm(data, configuration, validation=data.validation)
        config = HybridConfig.from_dict(configuration["hybrid"])
        model = fit_hybrid(data.sequences, lstm.model, config, data.validation)
        weights = {name: column.tolist() for name, column in zip(PARTS, model.weights.T, strict=True)}
        return model, {"epochs": lstm.epochs, "weights": weights}

    @staticmethod
    def refit(data: FitData, configuration: Mapping[str, Any], chosen: Mapping[str, Any]) -> HybridModel:
        lstm = _fit_lstm(data, configuration, epochs=chosen["epochs"]).model
        weights = np.array([chosen["weights"][name] for name in PARTS]).T
        return HybridModel.of(data.sequences, lstm, HybridConfig.from_dict(configuration["hybrid"]), weights)

    @staticmethod
    def export(model: HybridModel, directory: Path) -> None:
        from bigger_boat.ml.hybrid_export import export_hybrid

        export_hybrid(model, directory)


KINDS = {kind.name: kind for kind in (KnnKind, LstmKind, ProdbKind, HybridKind)}
"""From the simplest to the richest: a richer one is chosen only where it is clearly better."""


PARTS_READ = {
    "lstm": lambda values: LstmConfig(**values),
    "prodb": lambda values: ProdbConfig(**values),
    "hybrid": HybridConfig.from_dict,
}
"""The parts of a configuration, and how each is read from plain values."""


def configuration_of(kind: str, prod2vec: Mapping[str, Any], **parts: NetworkConfig | HybridConfig) -> dict[str, Any]:
    """Return what was chosen before fitting: two bundles of equal configuration differ by their data only.

    ``parts`` are those that the kind names: ``lstm``, ``prodb``, ``hybrid``. Plain values, equal after a trip through
    JSON.
    """
    return plain({"kind": kind, "prod2vec": prod2vec, **{name: asdict(part) for name, part in parts.items()}})


def current(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return another version's configuration as this code writes it: settings that it lacks have their defaults."""
    parts = {name: read(configuration[name]) for name, read in PARTS_READ.items() if name in configuration}
    return configuration_of(configuration["kind"], asdict(Prod2VecConfig(**configuration["prod2vec"])), **parts)


def _fit_lstm(data: FitData, configuration: Mapping[str, Any], **until: Any) -> Fitted[LstmModel]:
    return fit_lstm(data.sequences, data.embeddings, LstmConfig(**configuration["lstm"]), **_options(data), **until)


def _fit_prodb(data: FitData, configuration: Mapping[str, Any], **until: Any) -> Fitted[ProdbModel]:
    config = ProdbConfig(**configuration["prodb"])
    return fit_prodb(data.sequences, data.embeddings, config, **_options(data), **until)


def _options(data: FitData) -> dict[str, Any]:
    return {"products": data.products, "checkpoint": data.checkpoint, "on_epoch": data.on_epoch}
