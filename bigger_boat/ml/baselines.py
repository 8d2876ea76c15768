"""The simple recommenders that a model has to beat, as session-rec publishes them, vectorised.

Popularity, popularity within the session, Markov chains and sequential rules (https://github.com/rn5l/session-rec),
and plain prod2vec neighbours. Where these leave ties, the more popular product comes first. What belongs elsewhere:
session neighbours (``session_neighbours.py``), models that are served.
"""

from collections.abc import Sequence

import numpy as np

from bigger_boat.ml.item_sequences import ItemSequences, ItemVocabulary
from bigger_boat.ml.knn_recommender import KnnConfig, KnnModel
from bigger_boat.ml.prod2vec import ProductEmbeddings
from bigger_boat.ml.ranking import Ranker


class Popularity(Ranker):
    """Score = share of the training interactions."""

    name = "popularity"

    def __init__(self, vocabulary: ItemVocabulary):
        self.vocabulary = vocabulary

    @classmethod
    def fit(cls, sequences: Sequence[Sequence[str]]) -> "Popularity":
        """Count the items of training ``sequences``."""
        return cls(ItemVocabulary.of(sequences))

    def scores(self, recent: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.vocabulary.popularity, (len(recent), len(self.vocabulary)))


class SessionPopularity(Popularity):
    """Score = count in the session so far + count / (1 + count) in training (S-POP of GRU4Rec and session-rec)."""

    name = "session_popularity"

    def scores(self, recent: np.ndarray) -> np.ndarray:
        counts = self.vocabulary.counts
        scores = np.tile((counts / (1 + counts)).astype(np.float32), (len(recent), 1))
        owner, age = np.nonzero(recent >= 0)
        np.add.at(scores, (owner, recent[owner, age]), np.float32(1))
        return scores


class SequentialRules(Ranker):
    """Score = sum over training of 1 / distance from the last item to the candidate (Kamehkhosh et al., 2017).

    Pairs up to ``steps`` apart count; per antecedent the ``pruning`` strongest rules are kept, ties by popularity.
    """

    name = "sequential_rules"

    def __init__(self, vocabulary: ItemVocabulary, rules):
        self.vocabulary = vocabulary
        self.rules = rules
        """scipy CSR matrix float32 (V, V): antecedent, consequent."""

    @classmethod
    def fit(cls, sequences: Sequence[Sequence[str]], steps: int = 10, pruning: int = 20) -> "SequentialRules":
        """Mine the rules of training ``sequences``."""
        vocabulary = ItemVocabulary.of(sequences)
        return cls(vocabulary, mine_rules(vocabulary.encode(sequences), len(vocabulary), steps, pruning))

    def scores(self, recent: np.ndarray) -> np.ndarray:
        return self.rules[recent[:, 0]].toarray()


class Markov(SequentialRules):
    """Score = how often the candidate came right after the last item in training."""

    name = "markov"

    @classmethod
    def fit(cls, sequences: Sequence[Sequence[str]], steps: int = 1, pruning: int = 20) -> "Markov":
        """Count the transitions of training ``sequences``."""
        vocabulary = ItemVocabulary.of(sequences)
        return cls(vocabulary, mine_rules(vocabulary.encode(sequences), len(vocabulary), steps, pruning))


class Prod2VecMean(KnnModel):
    """Score = cosine to the mean of the session's unit vectors: prod2vec with nothing tuned (Grbovic et al. 2015)."""

    name = "prod2vec_mean"
    decay = 1.0

    def __init__(self, embeddings: ProductEmbeddings):
        plain = KnnConfig(decay=self.decay, popularity_weight=0.0, last_bonus=0.0, revisit_bonus=0.0)
        super().__init__(embeddings, plain)


class Prod2VecLast(Prod2VecMean):
    """Score = cosine to the last item; that item itself comes first."""

    name = "prod2vec_last"
    decay = 0.0


def mine_rules(encoded: ItemSequences, size: int, steps: int, pruning: int):
    """Return the CSR matrix float32 (size, size) of rule weights: 1 / distance summed, pruned per antecedent."""
    from scipy import sparse

    total = sparse.csr_matrix((size, size), dtype=np.float64)
    for distance in range(1, steps + 1):
        same = encoded.owners[distance:] == encoded.owners[:-distance]
        if not same.any():
            break
        antecedents, consequents = encoded.rows[:-distance][same], encoded.rows[distance:][same]
        weights = np.full(len(antecedents), 1.0 / distance)
        total = total + sparse.csr_matrix((weights, (antecedents, consequents)), shape=(size, size))
    return _prune(total.tocoo(), pruning)


def _prune(rules, pruning: int):
    from scipy import sparse

    order = np.lexsort((rules.col, -rules.data, rules.row))
    row, col, data = rules.row[order], rules.col[order], rules.data[order]
    first = np.searchsorted(row, row, side="left")
    keep = np.arange(len(row)) - first < pruning
    return sparse.csr_matrix((data[keep].astype(np.float32), (row[keep], col[keep])), shape=rules.shape)
