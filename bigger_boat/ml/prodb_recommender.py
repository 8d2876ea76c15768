"""ProdB, a masked language model over products (BERT4Rec family; Sun et al. 2019): configuration, fitting, scores.

Products of a session are hidden and have to be guessed from those on both sides; asked what comes next, one more place
behind the last item is hidden. Half of the lessons are of that kind (``next_share``), the others hide items anywhere.
score(j) = q . v_j + b_j, with item vectors as the LSTM has them; it sees no pauses, and a product seen before has no
logit of its own. What is learned are plain arrays: scoring needs no
Keras. What belongs elsewhere: the network (``prodb_network.py``), fitting (``network_fitting.py``), the graph that
serves (``prodb_export.py``).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bigger_boat.ml.item_network import learned_items
from bigger_boat.ml.item_sequences import UNKNOWN_ROW, ItemVocabulary
from bigger_boat.ml.network_fitting import Fitted, NetworkConfig, fit_network
from bigger_boat.ml.prod2vec import ProductEmbeddings
from bigger_boat.ml.prodb_network import HIDDEN_ROW, NUMPY, build_network, encode
from bigger_boat.ml.ranking import Ranker
from bigger_boat.ml.sequence_training import Windows, pooled_batches


@dataclass(frozen=True)
class ProdbConfig(NetworkConfig):
    """What is chosen before fitting (``NetworkConfig``). ``units``: the width of the encoder, a multiple of ``heads``.

    ``next_share``: share of the lessons that hide what comes last, after a cut at random; the others hide each item
    with probability ``hidden_share``. ``lessons``: of each session in an epoch.
    """

    RETIRED: ClassVar[frozenset[str]] = frozenset({"forget_times"})  # ProdB sees no times

    units: int = 64
    heads: int = 2
    layers: int = 2
    dropout: float = 0.2
    learning_rate: float = 2e-3
    epochs: int = 12
    next_share: float = 0.5
    hidden_share: float = 0.3
    lessons: int = 2

    def __post_init__(self):
        if self.units % self.heads:
            raise ValueError(f"units ({self.units}) must be a multiple of heads ({self.heads})")

    @classmethod
    def quick(cls) -> "ProdbConfig":
        """Seconds on two cores."""
        return cls(units=32, layers=1, epochs=4, batch_size=256, learning_rate=8e-3, samples=250)

    @classmethod
    def full(cls) -> "ProdbConfig":
        """Everything else."""
        return cls()


class ProdbModel(Ranker):
    """Scores of a trained ProdB: ``item_vectors`` float32 (V, D), ``item_bias`` (V,), ``encoder`` weights by name."""

    name = "prodb_recommender"

    def __init__(
        self,
        vocabulary: ItemVocabulary,
        item_vectors: np.ndarray,
        item_bias: np.ndarray,
        encoder: Mapping[str, np.ndarray],
        longest: int,
    ):
        self.vocabulary = vocabulary
        self.item_vectors = item_vectors
        self.item_bias = item_bias
        self.encoder = encoder
        self.longest = longest

    def scores(self, recent: np.ndarray) -> np.ndarray:
        return self.queries(recent) @ self.item_vectors.T + self.item_bias

    def queries(self, recent: np.ndarray) -> np.ndarray:
        """Return the queries float32 (B, D) of histories (B, T), last item first, -1 padded."""
        rows = np.pad(recent[:, : self.longest], ((0, 0), (1, 0)), constant_values=HIDDEN_ROW)
        hidden, held = (chosen.astype(np.float32) for chosen in (rows == HIDDEN_ROW, rows != UNKNOWN_ROW))
        return encode(NUMPY, self.encoder, self.item_vectors[np.maximum(rows, 0)], hidden, held)[:, 0]


def fit_prodb(
    sequences: Sequence[Sequence[str]], embeddings: ProductEmbeddings, config: ProdbConfig, **options
) -> Fitted[ProdbModel]:
    """Fit on ``sequences``; for ``options`` (when it stops, catalogue, checkpoint) see ``fit_network``."""

    def learned(vocabulary: ItemVocabulary, network) -> ProdbModel:
        encoder = {name: np.array(weight.value) for name, weight in network.body.learned.items()}
        return ProdbModel(vocabulary, *learned_items(network, len(vocabulary)), encoder, config.longest)

    def inputs(pieces: Windows, generator: np.random.Generator) -> Iterator[dict[str, np.ndarray]]:
        for rows, _ in pooled_batches(pieces, config.batch_size, generator):
            yield lessons(np.repeat(rows, config.lessons, axis=0), config, generator)

    return fit_network(sequences, embeddings, config, build=build_network, learned=learned, inputs=inputs, **options)


def lessons(rows: np.ndarray, config: ProdbConfig, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Return ``rows`` and ``targets`` int32 (B, T), last item first: what is shown, and what has to be guessed.

    ``rows`` (B, T): sessions of two items or more, oldest first, -1 on the right.
    """
    lengths = (rows >= 0).sum(axis=1)
    ahead = generator.random(len(rows)) < config.next_share
    last = np.where(ahead, generator.integers(1, lengths), lengths - 1)  # of which at least one item is shown
    places = last[:, None] - np.arange(rows.shape[1])
    shown = np.where(places >= 0, np.take_along_axis(rows, np.maximum(places, 0), axis=1), UNKNOWN_ROW)
    hidden = generator.random(rows.shape) < config.hidden_share
    hidden[ahead] = False
    hidden &= shown >= 0
    hidden[:, 0] |= ahead | ~hidden.any(axis=1)
    return {
        "rows": np.where(hidden, HIDDEN_ROW, shown).astype(np.int32),
        "targets": np.where(hidden, shown, UNKNOWN_ROW).astype(np.int32),
    }
