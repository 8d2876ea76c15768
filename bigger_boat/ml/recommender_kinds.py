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
from bigger_boat.ml.hybrid_export import export_hybrid, export_lstm
from bigger_boat.ml.hybrid_recommender import PARTS, HybridConfig, HybridModel, fit_hybrid
from bigger_boat.ml.knn_recommender import KnnConfig, KnnModel, fit_knn
from bigger_boat.ml.lstm_recommender import LstmConfig, fit_lstm
from bigger_boat.ml.network_fitting import Fitted, NetworkConfig
from bigger_boat.ml.prod2vec import Prod2VecConfig, ProductEmbeddings
from bigger_boat.ml.prodb_export import export_prodb
from bigger_boat.ml.prodb_recommender import ProdbConfig, fit_prodb
from bigger_boat.ml.ranking import Ranker
from bigger_boat.ml.recommender_export import export_knn

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
        export_knn(model, directory)


@dataclass(frozen=True)
class NetworkKind:
    """A next-item network. Configuration: the part of its own name, which ``read`` takes from plain values.

    ``train`` fits it (``fit_lstm``), ``write`` exports it.
    """

    name: str
    read: Callable[[Mapping[str, Any]], NetworkConfig]
    train: Callable[..., Fitted]
    write: Callable[[Any, Path], None]

    def fit(self, data: FitData, configuration: Mapping[str, Any], lstm: Fitted | None = None):  # noqa: ARG002
        fitted = self.fitted(data, configuration, validation=data.validation)
        return fitted.model, {"epochs": fitted.epochs, **fitted.also}

    def refit(self, data: FitData, configuration: Mapping[str, Any], chosen: Mapping[str, Any]) -> Ranker:
        return self.fitted(data, configuration, **chosen).model

    def fitted(self, data: FitData, configuration: Mapping[str, Any], **until: Any) -> Fitted:
        """Fit; ``until``: by validation, or by what was chosen there."""
        options = {"products": data.products, "checkpoint": data.checkpoint, "on_epoch": data.on_epoch}
        return self.train(data.sequences, data.embeddings, self.read(configuration[self.name]), **options, **until)

    def export(self, model: Ranker, directory: Path) -> None:
        self.write(model, directory)


LSTM = NetworkKind("lstm", LstmConfig.from_dict, fit_lstm, export_lstm)
PRODB = NetworkKind("prodb", ProdbConfig.from_dict, fit_prodb, export_prodb)


class HybridKind:
    """Neighbours, rules, revisits, popularity and the LSTM. Configuration: ``lstm`` and ``hybrid``."""

    name = "hybrid"

    @staticmethod
    def fit(data: FitData, configuration: Mapping[str, Any], lstm: Fitted | None = None):
        lstm = lstm or LSTM.fitted(data, configuration, validation=data.validation)
        config = HybridConfig.from_dict(configuration["hybrid"])
        model = fit_hybrid(data.sequences, lstm.model, config, data.validation)
        weights = {name: column.tolist() for name, column in zip(PARTS, model.weights.T, strict=True)}
        return model, {"epochs": lstm.epochs, "weights": weights}

    @staticmethod
    def refit(data: FitData, configuration: Mapping[str, Any], chosen: Mapping[str, Any]) -> HybridModel:
        lstm = LSTM.fitted(data, configuration, epochs=chosen["epochs"]).model
        weights = np.array([chosen["weights"][name] for name in PARTS]).T
        return HybridModel.of(data.sequences, lstm, HybridConfig.from_dict(configuration["hybrid"]), weights)

    @staticmethod
    def export(model: HybridModel, directory: Path) -> None:
        export_hybrid(model, directory)


KINDS = {kind.name: kind for kind in (KnnKind, LSTM, PRODB, HybridKind)}
"""From the simplest to the richest: a richer one is chosen only where it is clearly better."""


PARTS_READ = {"lstm": LSTM.read, "prodb": PRODB.read, "hybrid": HybridConfig.from_dict}
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
