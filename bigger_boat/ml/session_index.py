"""Past sessions and rules as an index that is small enough to be served: item to recent sessions, item to what follows.

V-SKNN's idea in the form of VMIS-kNN (Kersbergen, Sprangers and Schelter 2022), for a graph without loops: of each item
a bounded number of recent sessions, and instead of the k most similar ones all of them, by the square of their
similarity. What belongs elsewhere: the published methods (``session_neighbours.py``), weighing these parts
(``hybrid_recommender.py``), the same inside a TensorFlow graph (``hybrid_export.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bigger_boat.ml.baselines import mine_rules
from bigger_boat.ml.item_sequences import ItemVocabulary
from bigger_boat.ml.repeats import first_places


@dataclass(frozen=True)
class IndexConfig:
    """Of the last ``longest`` items of a session, ``sessions_per_item`` recent sessions each, at most ``sessions`` in
    all, with their last ``items_per_session`` distinct items.

    similarity(s) = (sum over shared items of exp(-age / position_decay))^2 / items of s * exp(-age of the most recent
    shared item / match_decay). ``beside``: each item of s gets it. ``behind``: by exp(-steps / distance) behind the
    shared item, and ``before`` times that before it. Rules: 1 / distance in the past, ``rules_per_item`` kept, by
    ``rules_decay^age`` of the item they start from.
    """

    longest: int = 10
    sessions_per_item: int = 100
    sessions: int = 500_000
    items_per_session: int = 15
    position_decay: float = 4.0
    match_decay: float = 2.0
    distance: float = 3.0
    before: float = 0.3
    rules_per_item: int = 50
    rules_steps: int = 10
    rules_decay: float = 0.3


@dataclass(frozen=True)
class SessionIndex:
    """N sessions, oldest first, of L items in order, -1 on the right; V items, whose sessions and rules are slices.

    Item i is in ``sessions_of[session_offsets[i]:session_offsets[i + 1]]``, at ``places`` there; its rules lead to
    ``consequents[rule_offsets[i]:rule_offsets[i + 1]]`` with ``rule_weights``.
    """

    config: IndexConfig
    items: np.ndarray  # int32 (N, L)
    inverse_sizes: np.ndarray  # float32 (N,)
    sessions_of: np.ndarray  # int32
    places: np.ndarray  # int32
    session_offsets: np.ndarray  # int32 (V + 1,)
    consequents: np.ndarray  # int32
    rule_weights: np.ndarray  # float32
    rule_offsets: np.ndarray  # int32 (V + 1,)

    @classmethod
    def of(cls, sequences: Sequence[Sequence[str]], vocabulary: ItemVocabulary, config: IndexConfig) -> "SessionIndex":
        """Index ``sequences``, oldest first: their order is what "recent" means. Sessions of one item are left out."""
        encoded = vocabulary.encode(sequences)
        rules = mine_rules(encoded, len(vocabulary), config.rules_steps, config.rules_per_item)
        items = _last_distinct(encoded, config.items_per_session)
        items = items[(items >= 0).sum(axis=1) > 1][-config.sessions :]
        sessions, places = np.nonzero(items >= 0)
        rows = items[sessions, places]
        order = np.lexsort((-sessions, rows))
        starts = np.searchsorted(rows[order], rows[order], side="left")
        kept = order[np.arange(len(order)) - starts < config.sessions_per_item]
        return cls(
            config,
            items,
            (1 / np.maximum((items >= 0).sum(axis=1), 1)).astype(np.float32),
            sessions[kept].astype(np.int32),
            places[kept].astype(np.int32),
            _offsets(rows[kept], len(vocabulary)),
            rules.indices.astype(np.int32),
            rules.data.astype(np.float32),
            rules.indptr.astype(np.int32),
        )

    def parts(self, recent: np.ndarray) -> dict[str, np.ndarray]:
        """Return ``beside``, ``behind`` and ``rules``, shares float32 (B, V), of histories, last item first."""
        recent = recent[:, : self.config.longest]
        beside, behind = self._neighbours(recent)
        return {"beside": _shares(beside), "behind": _shares(behind), "rules": _shares(self._rules(recent))}

    def _neighbours(self, recent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        config, width = self.config, len(self.session_offsets) - 1
        owners, ages = np.nonzero(first_places(recent))
        flat, asked = _slices(self.session_offsets, recent[owners, ages])
        keys = owners[asked] * len(self.items) + self.sessions_of[flat]
        unique, inverse = np.unique(keys, return_inverse=True)
        pair_owners, sessions = np.divmod(unique, max(len(self.items), 1))
        similarity = np.bincount(inverse, np.exp(-ages[asked] / config.position_decay), len(unique))
        # the most recent shared item is the one of the lowest age, its place decides what comes behind
        nearest = np.full(len(unique), np.iinfo(np.int32).max)
        np.minimum.at(nearest, inverse, ages[asked] * config.items_per_session + self.places[flat])
        age, place = np.divmod(nearest, config.items_per_session)
        weights = similarity**2 * self.inverse_sizes[sessions] * np.exp(-age / config.match_decay)
        rows = self.items[sessions]
        steps = np.arange(rows.shape[1]) - place[:, None]
        way = np.where(steps > 0, 1.0, config.before) * np.exp(-np.maximum(np.abs(steps) - 1, 0) / config.distance)
        held = rows >= 0
        cells = (pair_owners[:, None] * width + rows)[held]
        shape = (len(recent), width)
        beside = np.bincount(cells, np.broadcast_to(weights[:, None], rows.shape)[held], shape[0] * width)
        behind = np.bincount(cells, (weights[:, None] * way)[held], shape[0] * width)
        return beside.reshape(shape), behind.reshape(shape)

    def _rules(self, recent: np.ndarray) -> np.ndarray:
        width = len(self.rule_offsets) - 1
        owners, ages = np.nonzero(recent >= 0)
        flat, asked = _slices(self.rule_offsets, recent[owners, ages])
        weights = self.rule_weights[flat] * self.config.rules_decay ** ages[asked]
        cells = owners[asked] * width + self.consequents[flat]
        return np.bincount(cells, weights, len(recent) * width).reshape(len(recent), width)


def _shares(scores: np.ndarray) -> np.ndarray:
    total = scores.sum(axis=1, keepdims=True)
    return (scores / np.where(total > 0, total, 1)).astype(np.float32)


def _last_distinct(encoded, longest: int) -> np.ndarray:
    """Return int32 (S, longest): the last distinct known items of each session by their last place, in time order."""
    known = np.flatnonzero(encoded.rows >= 0)
    owners, rows = encoded.owners[known], encoded.rows[known]
    size = int(rows.max(initial=0)) + 1
    _, from_the_end = np.unique((owners * size + rows)[::-1], return_index=True)
    kept = np.sort(len(known) - 1 - from_the_end)
    owners, rows = owners[kept], rows[kept]
    counts = np.bincount(owners, minlength=len(encoded))
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    place -= np.maximum(counts - longest, 0)[owners]
    items = np.full((len(encoded), longest), -1, dtype=np.int32)
    items[owners[place >= 0], place[place >= 0]] = rows[place >= 0]
    return items


def _slices(offsets: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the flat indices of ``groups``, one after the other, and for each the place of its group there."""
    counts = (offsets[groups + 1] - offsets[groups]).astype(np.int64)
    owners = np.repeat(np.arange(len(groups)), counts)
    return np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts) + offsets[groups][owners], owners


def _offsets(rows: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=size))]).astype(np.int32)
