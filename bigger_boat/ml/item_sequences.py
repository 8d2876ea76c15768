"""From events to item rows: which events are items, the item vocabulary, and ragged sequences as flat arrays.

What belongs elsewhere: ids on the wire and in neural models (``data/vocabulary.py``: a row here is an id there minus
``FIRST_SKU_ID``), scores (one model per file), ranking (``ranking.py``).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
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
    items: list[str] = []
    opened_by_click = ""
    for action, sku in zip(actions, skus, strict=True):
        if not sku or action not in ITEM_ACTIONS:
            continue
        if action == "click":
            items.append(sku)
            opened_by_click = sku
        else:
            if sku != opened_by_click:
                items.append(sku)
            opened_by_click = ""
    return items


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
        offsets = np.zeros(len(sequences) + 1, dtype=np.int64)
        np.cumsum([len(items) for items in sequences], out=offsets[1:])
        known, unknown = self.rows, {}

        def row_of(sku: str) -> int:
            row = known.get(sku)
            return unknown.setdefault(sku, -1 - len(unknown)) if row is None else row

        flat = (row_of(sku) for items in sequences for sku in items)
        return ItemSequences(np.fromiter(flat, dtype=np.int32, count=int(offsets[-1])), offsets)


@dataclass(frozen=True)
class ItemSequences:
    """Sequence s is ``rows[offsets[s]:offsets[s + 1]]``; int32 (total,) and int64 (S + 1,). Negative rows: unknown."""

    rows: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def owners(self) -> np.ndarray:
        """The sequence of each row, int64 (total,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @cached_property
    def _known(self) -> tuple[np.ndarray, np.ndarray]:
        known = self.rows >= 0
        return self.rows[known], np.concatenate([[0], np.cumsum(known)])

    def whole(self) -> "Histories":
        """Each sequence as one history."""
        rows, before = self._known
        return Histories(rows, before[self.offsets[:-1]], before[self.offsets[1:]])

    def prefixes(self) -> tuple["Histories", np.ndarray]:
        """Return the history before each next item, and the flat position of that item, both of length N."""
        targets = np.flatnonzero(np.arange(len(self.rows)) > self.offsets[:-1][self.owners])
        rows, before = self._known
        return Histories(rows, before[self.offsets[self.owners[targets]]], before[targets]), targets


@dataclass(frozen=True)
class Histories:
    """N histories of known items: history n is ``rows[starts[n]:ends[n]]``, oldest first."""

    rows: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> np.ndarray:
        return self.ends - self.starts

    def recent_first(self, selection: np.ndarray) -> np.ndarray:
        """Return the selected histories as int32 (B, T): column a holds the item of age a, -1 pads on the right."""
        starts, ends = self.starts[selection], self.ends[selection]
        width = max(1, int((ends - starts).max(initial=0)))
        positions = ends[:, None] - 1 - np.arange(width)
        inside = positions >= starts[:, None]
        if not len(self.rows):
            return np.full(positions.shape, UNKNOWN_ROW, dtype=np.int32)
        return np.where(inside, self.rows[np.where(inside, positions, 0)], UNKNOWN_ROW).astype(np.int32)

    def batches(self, size: int) -> Iterable[np.ndarray]:
        """Yield selections of at most ``size`` histories, of similar lengths, covering each history once."""
        order = np.argsort(self.lengths, kind="stable")
        for first in range(0, len(order), size):
            yield order[first : first + size]
