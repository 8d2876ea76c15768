"""The intent model: will a session with a cart end in a purchase? A small LSTM beside a linear part.

What belongs here: configuration, fitting, the second fit on all days, offline answers. What does not: the encoding
(``intent_features.py``), the network (``intent_network.py``), the loop over epochs (``intent_training.py``), the
SavedModel (``intent_export.py``), numbers and plots (``intent_metrics.py``, ``intent_plots.py``).

Sessions with a cart are few, so four things stretch them: every position from the first add on is an example; what the
running totals tell is fitted as a regularised logistic regression, by convex optimisation, and the LSTMs learn only
what it misses; they also learn from what comes next, of which every event is an example; and validation decides how far
each part is trusted (calibration).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from bigger_boat.data.vocabulary import FIRST_SKU_ID
from bigger_boat.errors import TrainingError
from bigger_boat.ml.configurations import without_retired
from bigger_boat.ml.determinism import deterministic
from bigger_boat.ml.intent_calibration import Calibration, fit_calibration
from bigger_boat.ml.intent_features import KNOWN_ACTIONS, EncodedSessions, Session, encode_sessions, intent_frame
from bigger_boat.ml.intent_metrics import IntentReport, intent_report, log_loss
from bigger_boat.ml.intent_network import ProductTable
from bigger_boat.ml.intent_training import (
    EpochLog,
    Examples,
    OnEpoch,
    Progress,
    addends,
    fit_linear,
    last_wide,
    new_network,
    train_network,
)

_RETIRED = {"jit"}
"""Options that bundles may still name: this one could never take effect (Keras refuses XLA under op determinism)."""

_MORE_DAYS = "Land more days, or days with more carts; recommendations work without any."


class Embeddings(Protocol):
    """What is needed of ``ProductEmbeddings``: aligned SKUs, counts (V,) and vectors (V, D) in id order."""

    skus: list[str]
    counts: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class IntentConfig:
    """What is chosen before fitting. Shares and dropout are 0..1; ``members`` LSTMs are averaged.

    ``mix_units``: of a layer that sees LSTM and running totals together, 0 for none. ``ahead_weight``: of the lesson
    what comes next, beside the label. ``precision``: a Keras policy for the LSTMs while training (``mixed_float16`` on
    a GPU); what is exported is float32.
    """

    units: int = 48
    projection: int = 8
    mix_units: int = 32
    members: int = 1
    dropout: float = 0.3
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    ahead_weight: float = 0.1
    batch_size: int = 256
    epochs: int = 16
    patience: int = 4
    linear_strengths: tuple[float, ...] = (0.01, 0.03, 0.1)
    between_cuts_weight: float = 0.5
    max_events: int = 100
    drop_skus: float = 0.1
    drop_times: float = 0.1
    forget_products: float = 0.02
    forget_actions: float = 0.01
    precision: str = "float32"
    seed: int = 0

    @classmethod
    def quick(cls, seed: int = 0) -> "IntentConfig":
        """Seconds on two cores: what ``make run`` uses. With so few steps the label is the only lesson."""
        few = {"batch_size": 128, "epochs": 12, "patience": 3, "learning_rate": 1e-2}
        return cls(units=24, mix_units=0, ahead_weight=0.0, **few, seed=seed)

    @classmethod
    def full(cls, seed: int = 0) -> "IntentConfig":
        """Everything else."""
        return cls(seed=seed)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "IntentConfig":
        """Inverse of ``asdict``, also after a trip through JSON, and for bundles that older code wrote."""
        kept = without_retired(values, _RETIRED)
        return cls(**{**kept, "linear_strengths": tuple(kept["linear_strengths"])})


@dataclass(frozen=True)
class IntentChoice:
    """What fitting has chosen on validation: enough to fit again on other days. JSON both ways."""

    config: IntentConfig
    epochs: int
    linear_strength: float
    calibration: Calibration

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the bundle's ``info``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "IntentChoice":
        """Inverse of ``as_dict``, also after a trip through JSON."""
        config, calibration = IntentConfig.from_dict(values["config"]), Calibration.from_dict(values["calibration"])
        return cls(config, values["epochs"], values["linear_strength"], calibration)


@dataclass
class IntentModel:
    """A fitted model. ``network`` is a Keras model; ``sku_ids`` maps SKUs to rows of ``table``."""

    choice: IntentChoice
    sku_ids: dict[str, int]
    table: ProductTable
    network: Any
    prior_logit: float
    history: list[EpochLog] = field(default_factory=list)

    def predict(self, sessions: pl.DataFrame | Sequence[Session]) -> np.ndarray:
        """Return the probability of a purchase later on, float64 (N,); an empty session gets the base rate."""
        frame = sessions if isinstance(sessions, pl.DataFrame) else intent_frame(sessions)
        encoded = encode_sessions(frame, self.sku_ids, self.choice.config.max_events)
        return self._probabilities(encoded)

    def report(self, frame: pl.DataFrame) -> IntentReport:
        """Return the scores on a frame of the data set (columns of ``intent_dataset``)."""
        return intent_report(frame["label"].to_numpy(), self.predict(frame), frame["cut"].to_numpy())

    def offline_predictions(self, sessions: Sequence[Session], **_unused: Any) -> list[dict[str, Any]]:
        """Return the contract's predictions without the exported graph: what ``golden.json`` holds."""
        frame = intent_frame(sessions)
        unknown = [[action for action in actions if action not in KNOWN_ACTIONS] for actions in frame["actions"]]
        return [
            {"purchase_probability": float(probability), "unknown_actions": list(dict.fromkeys(names))}
            for probability, names in zip(self.predict(frame), unknown, strict=True)
        ]

    def _probabilities(self, encoded: EncodedSessions) -> np.ndarray:
        calibrated = self.choice.calibration.logits(addends(self.network, encoded))
        return _sigmoid(np.where(encoded.lengths > 0, calibrated, self.prior_logit))


def sku_vocabulary(embeddings: Embeddings) -> dict[str, int]:
    """Return the id of each SKU: pad, unknown and mask, then the embeddings' own order."""
    return {sku: index for index, sku in enumerate(embeddings.skus, start=FIRST_SKU_ID)}


def fit_intent(
    train: pl.DataFrame,
    validation: pl.DataFrame,
    embeddings: Embeddings,
    config: IntentConfig,
    progress: Progress | None = None,
    checkpoint_dir: Path | None = None,
    on_epoch: OnEpoch | None = None,
) -> IntentModel:
    """Fit on ``train``, choosing epochs, regularisation and calibration on ``validation``, and on nothing else.

    Frames have the columns of ``intent_dataset``; ``embeddings`` come from the training days. With ``checkpoint_dir``
    an interrupted fit goes on from its last epoch. Raises TrainingError if ``train`` has not both buyers and others, or
    ``validation`` is empty.
    """
    _require_both_classes(train)
    if validation.is_empty():
        raise TrainingError("The intent model stops on validation sessions with a cart; there are none.", _MORE_DAYS)
    deterministic()
    sku_ids, table = sku_vocabulary(embeddings), ProductTable.of(embeddings.vectors, embeddings.counts)
    examples = Examples.longest(train, sku_ids, config.max_events)
    checks = encode_sessions(validation, sku_ids, config.max_events)
    labels = validation["label"].to_numpy()

    linears = fit_linear(examples, table, config, config.linear_strengths)
    wide = last_wide(checks, table)
    losses = [log_loss(labels, _sigmoid(linear.logits(wide))) for linear in linears]
    chosen = int(np.argmin(losses))
    network = new_network(table, linears[chosen], config)

    def judge(network: Any) -> float:
        return log_loss(labels, _sigmoid(Calibration().logits(addends(network, checks))))

    checkpoint = checkpoint_dir / "intent.npz" if checkpoint_dir else None
    history = train_network(network, examples, config, config.epochs, judge, progress, checkpoint, on_epoch)
    epochs = min(history, key=lambda log: log.validation).epoch
    calibration = fit_calibration(addends(network, checks), labels, _sessions(validation))
    choice = IntentChoice(config, epochs, config.linear_strengths[chosen], calibration)
    return IntentModel(choice, sku_ids, table, network, _prior_logit(train), history)


def refit(
    choice: IntentChoice,
    data: pl.DataFrame,
    embeddings: Embeddings,
    progress: Progress | None = None,
    checkpoint_dir: Path | None = None,
    on_epoch: OnEpoch | None = None,
) -> IntentModel:
    """Fit a candidate's choice again on all days: its epochs, regularisation and calibration, nothing chosen anew."""
    _require_both_classes(data)
    deterministic()
    config = choice.config
    sku_ids, table = sku_vocabulary(embeddings), ProductTable.of(embeddings.vectors, embeddings.counts)
    examples = Examples.longest(data, sku_ids, config.max_events)
    network = new_network(table, fit_linear(examples, table, config, (choice.linear_strength,))[0], config)
    checkpoint = checkpoint_dir / "intent-refit.npz" if checkpoint_dir else None
    history = train_network(network, examples, config, choice.epochs, None, progress, checkpoint, on_epoch)
    return IntentModel(choice, sku_ids, table, network, _prior_logit(data), history)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def _sessions(frame: pl.DataFrame) -> int:
    return frame.select("session_id", "session_date").n_unique()


def _prior_logit(frame: pl.DataFrame) -> float:
    """What is known of a session that shows nothing: how many sessions with a cart end in a purchase."""
    share = frame.group_by("session_id", "session_date").agg(pl.col("label").any())["label"].mean()
    return math.log(share / (1 - share))


def _require_both_classes(frame: pl.DataFrame) -> None:
    buyers = int(frame["label"].sum()) if frame.height else 0
    if buyers in (0, frame.height):
        raise TrainingError(
            f"The intent model learns from sessions that buy and sessions that do not; "
            f"of {frame.height} examples {buyers} buy.",
            _MORE_DAYS,
        )
