"""What the catalogue says about products, as arrays in the order of an item vocabulary; every part may be missing.

What belongs elsewhere: reading files (the caller's), what a model makes of it (``lstm_network.py``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bigger_boat.ml.item_sequences import ItemVocabulary

UNKNOWN = 0
"""The id of a category or price that is not known."""


@dataclass(frozen=True)
class Catalogue:
    """Of V products: ``categories`` and ``prices`` int32 (V,), ids from 1, 0 unknown; ``vectors`` float32 (V, K).

    A product without vectors has zeros there. ``K`` is 0 where nothing has vectors.
    """

    categories: np.ndarray
    prices: np.ndarray
    vectors: np.ndarray

    def __len__(self) -> int:
        return len(self.categories)

    @property
    def empty(self) -> bool:
        """Whether nothing at all is known."""
        return not (self.categories.any() or self.prices.any() or self.vectors.any())

    @classmethod
    def unknown(cls, count: int) -> "Catalogue":
        """Return the catalogue that knows nothing about ``count`` products."""
        nothing = np.zeros(count, dtype=np.int32)
        return cls(nothing, nothing, np.zeros((count, 0), dtype=np.float32))


class Products:
    """The catalogue by SKU. ``rows``: SKU to ``{"category", "price_bucket", "vectors"}``, each of which may be None."""

    def __init__(self, rows: Mapping[str, Mapping]):
        self.rows = rows
        known = [row["category"] for row in rows.values() if row.get("category")]
        self._categories = {name: place for place, name in enumerate(sorted(set(known)), start=UNKNOWN + 1)}
        prices = {row["price_bucket"] for row in rows.values() if row.get("price_bucket") is not None}
        self._prices = {price: place for place, price in enumerate(sorted(prices), start=UNKNOWN + 1)}

    def of(self, vocabulary: ItemVocabulary) -> Catalogue:
        """Return what is known of the products of ``vocabulary``, in its order."""
        found = [self.rows.get(sku, {}) for sku in vocabulary.skus]
        categories = [self._categories.get(row.get("category"), UNKNOWN) for row in found]
        prices = [self._prices.get(row.get("price_bucket"), UNKNOWN) for row in found]
        return Catalogue(
            np.array(categories, dtype=np.int32),
            np.array(prices, dtype=np.int32),
            _stacked([row.get("vectors") for row in found]),
        )

    def with_new(self, vocabulary: ItemVocabulary) -> ItemVocabulary:
        """Return ``vocabulary`` with the products that the catalogue describes and training never saw, count 0."""
        described = (sku for sku, row in self.rows.items() if any(value is not None for value in row.values()))
        new = sorted(sku for sku in described if sku not in vocabulary.rows)
        counts = np.concatenate([vocabulary.counts, np.zeros(len(new), dtype=np.int64)])
        return ItemVocabulary([*vocabulary.skus, *new], counts)


def _stacked(vectors: Sequence[Sequence[float] | None]) -> np.ndarray:
    width = max((len(vector) for vector in vectors if vector is not None), default=0)
    stacked = np.zeros((len(vectors), width), dtype=np.float32)
    for row, vector in enumerate(vectors):
        if vector is not None:
            stacked[row] = vector
    return stacked
