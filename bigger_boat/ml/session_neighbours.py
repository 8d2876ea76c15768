"""Session neighbours: products of the past sessions most like the current one. S-KNN, V-SKNN and VSTAN, vectorised.

Sources, and the parameters of their authors' session-rec (https://github.com/rn5l/session-rec): S-KNN, Jannach and
Ludewig 2017; V-SKNN, Ludewig and Jannach 2018; STAN, Garg et al. 2019, and VSTAN, Latifi, Mauro and Jannach 2021. All
are one method with other weights (``NeighbourConfig``). Where the published code leaves ties to the order of a Python
set, the more recent session comes first here. What belongs elsewhere: the other baselines (``baselines.py``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from bigger_boat.ml.item_sequences import ItemSequences, ItemVocabulary
from bigger_boat.ml.ranking import Ranker

PAIRS_PER_CHUNK = 300_000
"""Bounds the memory of one step: (history, session) pairs looked at together, about 60 bytes each."""

DAY_S = 86_400.0


@dataclass(frozen=True)
class NeighbourConfig:
    """Of the sessions that share an item the ``sample_size`` most recent, of these the ``neighbours`` most similar.

    similarity(s) = sum of position weights of the shared items / sqrt(distinct items of s), by ``time_days`` times
    exp(-age of s / time_days); score(j) = sum over neighbours with j of similarity * match weight, by ``distance``
    times exp(-|place of j - last shared place| / distance) in the neighbour, by ``idf`` times (1 + idf * idf_j).
    """

    neighbours: int
    sample_size: int
    position: str
    """Weight of an item of the current session in the similarity: same, linear, div, quadratic or exponential."""
    match: str
    """Weight of a neighbour by the most recent item it shares: same, linear, div, quadratic, log or exponential."""
    idf: float = 0.0
    """idf_j = log(training sessions / training interactions of j), not below 0."""
    decay: float = 1.02
    """Of the exponential weights, in positions."""
    time_days: float | None = None
    """Needs the end of each training session; without them it is left out."""
    distance: float | None = None


# As session-rec's example configuration and defaults have them. Its V-SKNN takes the plain product of the vectors in
# one version and the cosine in a later one: the cosine is taken here.
SKNN_CONFIG = NeighbourConfig(neighbours=100, sample_size=500, position="same", match="same")
VSKNN_CONFIG = NeighbourConfig(neighbours=500, sample_size=5000, position="quadratic", match="quadratic", idf=5.0)
VSTAN_CONFIG = NeighbourConfig(
    neighbours=500,
    sample_size=5000,
    position="exponential",
    match="exponential",
    idf=5.0,
    time_days=5.0,
    distance=2.05,
)


def position_weights(kind: str, ages: np.ndarray, lengths: np.ndarray, decay: float) -> np.ndarray:
    """Return the weight of items by age (0 = the last) in sessions of ``lengths``; the last item weighs 1."""
    if kind == "same":
        return np.ones(len(ages))
    if kind == "linear":
        return np.maximum(1 - 0.1 * ages, 0.0)
    if kind == "exponential":
        return np.exp(-ages / decay)
    return (1 - ages / lengths) ** {"div": 1, "quadratic": 2}[kind]


def match_weights(kind: str, ages: np.ndarray, decay: float) -> np.ndarray:
    """Return the weight of neighbours by the age (0 = the last) of the most recent item they share."""
    steps = ages + 1.0
    if kind == "same":
        return np.ones(len(ages))
    if kind == "linear":
        return np.maximum(1 - 0.1 * steps, 0.0)
    if kind == "exponential":
        return np.exp(-ages / decay)
    return 1 / {"div": steps, "quadratic": steps**2, "log": np.log10(steps + 1.7)}[kind]


class Ragged(NamedTuple):
    """Group g holds ``ids[offsets[g]:offsets[g + 1]]``; ``places`` is the 1-based last place of item in session."""

    ids: np.ndarray
    places: np.ndarray
    offsets: np.ndarray

    def take(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the flat indices of ``groups``, one after the other, and for each the place of its group there."""
        counts = self.offsets[groups + 1] - self.offsets[groups]
        owners = np.repeat(np.arange(len(groups)), counts)
        starts = self.offsets[groups] - (np.cumsum(counts) - counts)
        return np.arange(len(owners)) + starts[owners], owners


class Pairs(NamedTuple):
    """(History, training session) pairs, sorted by both; ``ages`` and ``places`` of the most recent shared item."""

    histories: np.ndarray
    sessions: np.ndarray
    weights: np.ndarray
    ages: np.ndarray
    places: np.ndarray

    def where(self, chosen: np.ndarray) -> "Pairs":
        return Pairs(*(column[chosen] for column in self))


class SessionNeighbours(Ranker):
    """The common method. A subclass is a name with a published configuration."""

    name = "session_neighbours"
    published: NeighbourConfig

    def __init__(self, vocabulary: ItemVocabulary, encoded: ItemSequences, config: NeighbourConfig, ended_s=None):
        self.vocabulary = vocabulary
        self.config = config
        self.session_items, self.item_sessions = _index(encoded, len(vocabulary), config.sample_size)
        self.session_norms = np.sqrt(np.maximum(np.diff(self.session_items.offsets), 1))
        counts = np.bincount(encoded.rows, minlength=len(vocabulary))
        idf = np.log(max(len(encoded), 1) / np.maximum(counts, 1))
        self.item_weights = (1 + config.idf * np.maximum(idf, 0)).astype(np.float32)
        self.ended_s = ended_s

    @classmethod
    def fit(
        cls,
        sequences: Sequence[Sequence[str]],
        config: NeighbourConfig | None = None,
        ended_s: Sequence[float] | None = None,
    ) -> "SessionNeighbours":
        """Index training ``sequences``, oldest first: their order is what "recent" means.

        ``ended_s``: when each ended, in seconds; only VSTAN looks at it. Sessions of one item say nothing about what
        comes next and are no neighbours (session-rec drops them from its data).
        """
        several = [place for place, items in enumerate(sequences) if len(items) > 1]
        vocabulary = ItemVocabulary.of(sequences)
        encoded = vocabulary.encode([sequences[place] for place in several])
        times = None if ended_s is None else np.asarray(ended_s, dtype=np.float64)[several]
        return cls(vocabulary, encoded, config or cls.published, times)

    @cached_property
    def _item_matrix(self):
        """Which items each session holds: scipy CSR (sessions, V)."""
        from scipy import sparse

        held = np.ones(len(self.session_items.ids), dtype=np.float32)
        shape = (len(self.session_norms), len(self.vocabulary))
        return sparse.csr_array((held, self.session_items.ids, self.session_items.offsets), shape=shape)

    def scores(self, recent: np.ndarray) -> np.ndarray:
        scores = np.zeros((len(recent), len(self.vocabulary)), dtype=np.float32)
        for chunk in self._chunks(recent):
            self._add_scores(self._neighbours(self._pairs(recent[chunk])), scores[chunk])
        return scores

    def _chunks(self, recent: np.ndarray) -> Iterator[slice]:
        """Yield slices of histories that together look at a bounded number of sessions."""
        sizes = np.append(np.diff(self.item_sessions.offsets), 0)  # row -1: no item, no session
        totals = np.cumsum(sizes[recent].sum(axis=1) + self.config.neighbours)
        start = 0
        while start < len(recent):
            before = totals[start - 1] if start else 0
            end = max(start + 1, int(np.searchsorted(totals, before + PAIRS_PER_CHUNK, side="right")))
            yield slice(start, end)
            start = end

    def _pairs(self, recent: np.ndarray) -> Pairs:
        """Return every session that shares an item, at most ``sample_size`` per history, the most recent."""
        histories, ages = np.nonzero(recent >= 0)
        keys = histories * len(self.vocabulary) + recent[histories, ages]
        first = np.unique(keys, return_index=True)[1]  # of a repeated item the last place counts
        histories, ages = histories[first], ages[first]
        lengths = (recent >= 0).sum(axis=1)[histories]
        weights = position_weights(self.config.position, ages, lengths, self.config.decay)
        flat, owners = self.item_sessions.take(recent[histories, ages])
        keys = histories[owners] * len(self.session_norms) + self.item_sessions.ids[flat]
        if not len(keys):
            return Pairs(*(np.zeros(0, dtype=np.int64) for _ in Pairs._fields))
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = _starts(keys)
        shared = owners[order]
        pairs = Pairs(
            *np.divmod(keys[starts], len(self.session_norms)),
            np.add.reduceat(weights[shared], starts),
            np.minimum.reduceat(ages[shared], starts),
            np.maximum.reduceat(self.item_sessions.places[flat[order]], starts),
        )
        from_the_newest = _places_within(pairs.histories[::-1])[::-1]
        return pairs.where(from_the_newest < self.config.sample_size)

    def _neighbours(self, pairs: Pairs) -> Pairs:
        """Return the most similar sessions of each history, ties by recency, with their similarity as weight."""
        similarity = pairs.weights / self.session_norms[pairs.sessions] * self._time_weights(pairs)
        pairs = pairs._replace(weights=similarity)
        sizes = np.bincount(pairs.histories, minlength=1)
        crowded = np.flatnonzero(sizes[pairs.histories] > self.config.neighbours)
        owners = pairs.histories[crowded]
        by_similarity = np.lexsort((-pairs.sessions[crowded], -similarity[crowded], owners))
        chosen = np.ones(len(similarity), dtype=bool)
        chosen[crowded[by_similarity[_places_within(owners) >= self.config.neighbours]]] = False
        return pairs.where(chosen)

    def _time_weights(self, pairs: Pairs) -> np.ndarray | float:
        """Newer sessions weigh more, relative to the newest one of each history: the query's time cancels out."""
        if self.config.time_days is None or self.ended_s is None or not len(pairs.sessions):
            return 1.0
        ended_s = self.ended_s[pairs.sessions]
        starts = _starts(pairs.histories)
        sizes = np.diff(np.append(starts, len(ended_s)))
        newest_s = np.repeat(np.maximum.reduceat(ended_s, starts), sizes)
        return np.exp((ended_s - newest_s) / (self.config.time_days * DAY_S))

    def _add_scores(self, neighbours: Pairs, scores: np.ndarray) -> None:
        """Sum what each neighbour says about its products into ``scores`` (B, V)."""
        from scipy import sparse

        config, groups = self.config, self.session_items
        weights = neighbours.weights * match_weights(config.match, neighbours.ages, config.decay)
        sizes = np.bincount(neighbours.histories, minlength=len(scores))
        if config.distance is None:
            by_session = (weights, neighbours.sessions, _offsets(sizes))
            shape = (len(scores), len(self.session_norms))
            total = sparse.csr_array(by_session, shape=shape) @ self._item_matrix
        else:
            flat, owners = groups.take(neighbours.sessions)
            apart = np.abs(groups.places[flat] - neighbours.places[owners])
            values = weights[owners] * np.exp(-apart / config.distance)
            ends = _offsets(np.bincount(neighbours.histories[owners], minlength=len(scores)))
            total = sparse.csr_array((values, groups.ids[flat], ends), shape=scores.shape)
        scores += total.toarray()
        scores *= self.item_weights


class SKNN(SessionNeighbours):
    """Score = summed cosine of the sessions with the item; order plays no part."""

    name = "sknn"
    published = SKNN_CONFIG


class VSKNN(SessionNeighbours):
    """S-KNN with more weight on recent items of the session and on rare items."""

    name = "vsknn"
    published = VSKNN_CONFIG


class VSTAN(SessionNeighbours):
    """V-SKNN with exponential weights, also by the age of the neighbour and the distance within it."""

    name = "vstan"
    published = VSTAN_CONFIG


def _index(encoded: ItemSequences, items: int, sample_size: int) -> tuple[Ragged, Ragged]:
    """Return the distinct items of each session, and the ``sample_size`` most recent sessions of each item.

    The sample of a history is among these: a session older than ``sample_size`` others with one of its items is not.
    """
    keys = encoded.owners * items + encoded.rows
    distinct, from_the_end = np.unique(keys[::-1], return_index=True)
    sessions, rows = (part.astype(np.int32) for part in np.divmod(distinct, items))
    last = len(keys) - 1 - from_the_end
    places = (last - encoded.offsets[sessions] + 1).astype(np.int32)
    session_items = Ragged(rows, places, _offsets(np.bincount(sessions, minlength=len(encoded))))
    order = np.lexsort((-sessions, rows))
    recent = order[_places_within(rows[order]) < sample_size]
    item_sessions = Ragged(sessions[recent], places[recent], _offsets(np.bincount(rows[recent], minlength=items)))
    return session_items, item_sessions


def _starts(groups: np.ndarray) -> np.ndarray:
    """Return where each run of equal values begins."""
    return np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]])[: len(groups)])


def _places_within(groups: np.ndarray) -> np.ndarray:
    """Return 0, 1, 2 ... within each run of equal values."""
    starts = _starts(groups)
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))


def _offsets(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)])
