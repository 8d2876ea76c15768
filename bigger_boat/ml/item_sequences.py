"""From events to item rows: which events are items, the item vocabulary, and ragged sequences as flat arrays.

What belongs elsewhere: ids on the wire and in neural models (``data/vocabulary.py``: a row here is an id there minus
``FIRST_SKU_ID``), scores (one model per file), ranking (``ranking.py``).
"""

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bigger_boat.data.vocabulary import ITEM_ACTIONS, sku_ids
from bigger_boat.errors import TrainingError

UNKNOWN_ROW = -1
"""Rows below zero stand for products outside the vocabulary; also the padding of every row matrix."""


def session_items(actions: Sequence[str], skus: Sequence[str]) -> list[str]:
    """Return the items of one session: SKUs of ``detail`` and ``click`` events, repeats kept.

    A search click and the detail page it opens are one item: a ``detail`` is dropped if the item event right before
    it is a ``click`` of the same SKU. ``actions`` and ``skus`` are aligned; events without a SKU are no items.
    """
    return [skus[place] for place in item_places(actions, skus)]


def item_places(actions: Sequence[str], skus: Sequence[str]) -> list[int]:
    """Return which events of one session are its items (``session_items``)."""
    places: list[int] = []
    opened_by_click = ""
    for place, (action, sku) in enumerate(zip(actions, skus, strict=True)):
        if not sku or action not in ITEM_ACTIONS:
            continue
        if action == "click":
            places.append(place)
            opened_by_click = sku
        else:
            if sku != opened_by_click:
                places.append(place)
            opened_by_click = ""
    return places


@dataclass(frozen=True)
class TimedSequences(Sequence):
    """Items of sessions, as a list of lists is, and when each was looked at: ``times_ms`` int64 (total,), one session
    behind the other, -1 where it is not known. Whoever needs no times takes it for the list."""

    items: list[list[str]]
    times_ms: np.ndarray

    def __post_init__(self):
        if self.offsets[-1] != len(self.times_ms):
            raise ValueError(f"{len(self.times_ms)} times were given for {self.offsets[-1]} items")

    @cached_property
    def offsets(self) -> np.ndarray:
        """Where each session begins in ``times_ms``, and the end, int64 (S + 1,)."""
        return _offsets(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self):
        return iter(self.items)

    def __getitem__(self, place):
        if not isinstance(place, slice):
            return self.items[place]
        start, stop, step = place.indices(len(self))
        if step != 1:
            raise ValueError("sessions are cut in one piece")
        return TimedSequences(
            self.items[start:stop], self.times_ms[self.offsets[start] : self.offsets[max(start, stop)]]
        )

    def of_known(self, known: Container[str]) -> "TimedSequences":
        """Return the sessions without the items that are not ``known``, and their times."""
        kept = np.fromiter(
            (item in known for items in self.items for item in items), dtype=bool, count=len(self.times_ms)
        )
        return TimedSequences([[item for item in items if item in known] for items in self.items], self.times_ms[kept])

    def longer_than(self, length: int) -> "TimedSequences":
        """Return the sessions of more than ``length`` items."""
        chosen = np.diff(self.offsets) > length
        items = [each for each, long in zip(self.items, chosen, strict=True) if long]
        return TimedSequences(items, self.times_ms[np.repeat(chosen, np.diff(self.offsets))])


def _offsets(sequences: Sequence[Sequence[str]]) -> np.ndarray:
    offsets = np.zeros(len(sequences) + 1, dtype=np.int64)
    np.cumsum([len(items) for items in sequences], out=offsets[1:])
    return offsets


@dataclass(frozen=True)
class ItemVocabulary:
    """Products in row order: by falling training count, ties by SKU. ``counts`` is int64 (V,)."""

    skus: list[str]
    counts: np.ndarray

    @classmethod
    def of(cls, sequences: Iterable[Sequence[str]]) -> "ItemVocabulary":
        """Count the items of ``sequences``. Raises ``TrainingError`` if there are none."""
        counter: Counter[str] = Counter()
        for items in sequences:
            counter.update(items)
        if not counter:
            raise TrainingError(
                "Expected training sessions with products and found none.",
                "Land more days, or look at the recommendation data set's row counts.",
            )
        skus = list(sku_ids(counter))
        return cls(skus, np.array([counter[sku] for sku in skus], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.skus)

    @cached_property
    def rows(self) -> dict[str, int]:
        """Row of each SKU."""
        return {sku: row for row, sku in enumerate(self.skus)}

    @cached_property
    def sku_array(self) -> np.ndarray:
        """SKUs as an object array (V + 1,), whose last element is "" so that row -1 reads as no product."""
        return np.array([*self.skus, ""], dtype=object)

    @cached_property
    def popularity(self) -> np.ndarray:
        """Share of training interactions of each row, float32 (V,): the scores of the fallback."""
        return (self.counts / self.counts.sum()).astype(np.float32)

    def encode(self, sequences: Sequence[Sequence[str]]) -> "ItemSequences":
        """Return rows; each distinct SKU outside the vocabulary gets its own negative number."""
        offsets = _offsets(sequences)
        known, unknown = self.rows, {}

        def row_of(sku: str) -> int:
            row = known.get(sku)
            return unknown.setdefault(sku, -1 - len(unknown)) if row is None else row

        flat = (row_of(sku) for items in sequences for sku in items)
        times_ms = sequences.times_ms if isinstance(sequences, TimedSequences) else None
        return ItemSequences(np.fromiter(flat, dtype=np.int32, count=int(offsets[-1])), offsets, times_ms)


@dataclass(frozen=True)
class ItemSequences:
    """Sequence s is ``rows[offsets[s]:offsets[s + 1]]``; int32 (total,) and int64 (S + 1,). Negative rows: unknown.

    ``times_ms`` int64 (total,), if there are times, is -1 where one is not known.
    """

    rows: np.ndarray
    offsets: np.ndarray
    times_ms: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def owners(self) -> np.ndarray:
        """The sequence of each row, int64 (total,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @cached_property
    def _known(self) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        known = self.rows >= 0
        times_ms = None if self.times_ms is None else self.times_ms[known]
        return self.rows[known], times_ms, np.concatenate([[0], np.cumsum(known)])

    def whole(self) -> "Histories":
        """Each sequence as one history."""
        rows, times_ms, before = self._known
        return Histories(rows, before[self.offsets[:-1]], before[self.offsets[1:]], times_ms)

    def prefixes(self) -> tuple["Histories", np.ndarray]:
        """Return the history before each next item, and the flat position of that item, both of length N."""
        targets = np.flatnonzero(np.arange(len(self.rows)) > self.offsets[:-1][self.owners])
        rows, times_ms, before = self._known
        return Histories(rows, before[self.offsets[self.owners[targets]]], before[targets], times_ms), targets


@dataclass(frozen=True)
class Histories:
    """N histories of known items: history n is ``rows[starts[n]:ends[n]]``, oldest first, with times if there are."""

    rows: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    times_ms: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> np.ndarray:
        return self.ends - self.starts

    def recent_first(self, selection: np.ndarray) -> np.ndarray:
        """Return the selected histories as int32 (B, T): column a holds the item of age a, -1 pads on the right."""
        return self._recent_first(selection, self.rows).astype(np.int32)

    def recent_times(self, selection: np.ndarray) -> np.ndarray | None:
        """Return the times of ``recent_first``, int64 (B, T), -1 where there is none; None without any times."""
        return None if self.times_ms is None else self._recent_first(selection, self.times_ms)

    def _recent_first(self, selection: np.ndarray, values: np.ndarray) -> np.ndarray:
        starts, ends = self.starts[selection], self.ends[selection]
        width = max(1, int((ends - starts).max(initial=0)))
        positions = ends[:, None] - 1 - np.arange(width)
        inside = positions >= starts[:, None]
        if not len(values):
            return np.full(positions.shape, UNKNOWN_ROW)
        return np.where(inside, values[np.where(inside, positions, 0)], UNKNOWN_ROW)

    def batches(self, size: int) -> Iterable[np.ndarray]:
        """Yield selections of at most ``size`` histories, of similar lengths, covering each history once."""
        order = np.argsort(self.lengths, kind="stable")
        for first in range(0, len(order), size):
            yield order[first : first + size]
