"""The products of a simulated shop: categories, popularity, prices, vectors, successors, queries, and their CSV file.

What shoppers do with them belongs in ``shoppers.py``.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist

import numpy as np
import polars as pl
import pyarrow as pa

from bigger_boat.data.simulator import identifiers
from bigger_boat.data.simulator.parameters import ShopParameters

PRICE_BUCKETS = 10


@dataclass(frozen=True)
class Catalogue:
    """P products in C categories (leaves of a tree). Products of one category have consecutive numbers."""

    seed: int
    category: np.ndarray  # (P,) int32
    category_start: np.ndarray  # (C + 1,) int64: products of category c are category_start[c]:category_start[c + 1]
    popularity: np.ndarray  # (P,) float64, sums to one
    weekly_cumulative: np.ndarray  # (W * P,) float64: week w's cumulative popularity plus w
    cumulative: np.ndarray  # (P + 1,) float64
    price: np.ndarray  # (P,) int8, 1..10
    successors: np.ndarray  # (P, M) int32, likeliest first
    centres: np.ndarray  # (C, 50): the direction of a category, which descriptions, images and queries share
    query_vectors: list[str]  # C * Q JSON texts
    results: np.ndarray  # (C * Q, R) int32
    sku_ids: pa.Array  # (P,)

    def draw_anywhere(self, uniform: np.ndarray, week: np.ndarray) -> np.ndarray:
        """Return one product per uniform number, by popularity in that week."""
        position = np.searchsorted(self.weekly_cumulative, week + uniform, side="right")
        return np.minimum(position - week * len(self.category), len(self.category) - 1).astype(np.int32)

    def draw_from_category(self, uniform: np.ndarray, category: np.ndarray) -> np.ndarray:
        """Return one product of each category, by popularity."""
        first, last = self.category_start[category], self.category_start[category + 1] - 1
        low, high = self.cumulative[first], self.cumulative[last + 1]
        position = np.searchsorted(self.cumulative, low + uniform * (high - low), side="right") - 1
        return np.clip(position, first, last).astype(np.int32)


def make_catalogue(parameters: ShopParameters, products: int, weeks: int, seed: int) -> Catalogue:
    """Return the catalogue of a seed. It depends on nothing else than these arguments."""
    rng = np.random.default_rng([seed, 1])
    categories = max(2, round(products / parameters.products_per_category))
    drawn = np.sort(rng.integers(0, categories, products))
    category = np.unique(drawn, return_inverse=True)[1].astype(np.int32)  # none is empty
    categories = int(category.max()) + 1
    category_start = np.searchsorted(category, np.arange(categories + 1))
    log_weight = _log_weights(parameters, category, rng)
    popularity = np.exp(log_weight - log_weight.max())
    popularity /= popularity.sum()
    drift = np.cumsum(rng.normal(0, parameters.weekly_popularity_drift, (weeks, products)), axis=0)
    weekly = np.cumsum(np.exp(log_weight - log_weight.max() + drift), axis=1)
    weekly /= weekly[:, -1:]
    price = _price_buckets(category, rng)
    queries = categories * parameters.queries_per_category
    query_category = np.repeat(np.arange(categories), parameters.queries_per_category)
    centres = _category_vectors(categories, parameters.vector_size, rng)
    query_vectors = _unit(centres[query_category] + 0.5 * rng.normal(size=(queries, parameters.vector_size)))
    return Catalogue(
        seed=seed,
        category=category,
        category_start=category_start,
        popularity=popularity,
        weekly_cumulative=(weekly + np.arange(weeks)[:, None]).ravel(),
        cumulative=np.concatenate([[0.0], np.cumsum(popularity)]),
        price=price,
        centres=centres,
        successors=_successors(parameters, category_start, log_weight, rng),
        query_vectors=_json_vectors(query_vectors),
        results=_results(parameters, category_start, log_weight, rng),
        sku_ids=identifiers.hashed_ids(np.arange(products), identifiers.PRODUCT, seed),
    )


def _normal_scores(count: int) -> np.ndarray:
    """Return evenly spaced quantiles of the normal distribution: every seed gets the same long tail."""
    return np.array([NormalDist().inv_cdf((index + 0.5) / count) for index in range(count)])


def _log_weights(parameters: ShopParameters, category: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return (P,) normal scores. Which product gets which is chance, more alike within a category; none is left out."""
    own = parameters.popularity_sigma * rng.normal(size=len(category))
    shared = parameters.category_popularity_sigma * rng.normal(size=int(category.max()) + 1)
    rank = np.argsort(np.argsort(own + shared[category], kind="stable"), kind="stable")
    sigma = np.hypot(parameters.popularity_sigma, parameters.category_popularity_sigma)
    return sigma * _normal_scores(len(category))[rank]


def _price_buckets(category: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    level = rng.normal(0, 1.0, int(category.max()) + 1)[category] + rng.normal(0, 0.6, len(category))
    rank = np.argsort(np.argsort(level, kind="stable"), kind="stable")
    return (1 + rank * PRICE_BUCKETS // len(category)).astype(np.int8)


def _top_of_category(members: np.ndarray, log_weight: np.ndarray, rows: int, count: int, rng) -> np.ndarray:
    """Return (rows, count) members, drawn without repeats by weight; repeated in turn where the category is smaller."""
    keys = log_weight[members] + rng.gumbel(size=(rows, len(members)))
    order = np.argsort(-keys, axis=1)[:, :count]
    return members[order[:, np.arange(count) % order.shape[1]]]


def _successors(parameters: ShopParameters, start: np.ndarray, log_weight: np.ndarray, rng) -> np.ndarray:
    count, products = parameters.related_products, len(log_weight)
    successors = np.empty((products, count), dtype=np.int32)
    for first, end in pairwise(start):
        members = np.arange(first, end)
        keys = log_weight[members] * parameters.related_popularity + rng.gumbel(size=(end - first, end - first))
        np.fill_diagonal(keys, -np.inf)  # no product leads to itself, unless it is alone
        order = np.argsort(-keys, axis=1)[:, : max(1, min(count, end - first - 1))]
        successors[first:end] = members[order[:, np.arange(count) % order.shape[1]]]
    elsewhere = rng.random((products, count)) < parameters.related_elsewhere
    weights = np.exp(log_weight * parameters.related_popularity)
    successors[elsewhere] = rng.choice(products, int(elsewhere.sum()), p=weights / weights.sum())
    return successors


def _results(parameters: ShopParameters, start: np.ndarray, log_weight: np.ndarray, rng) -> np.ndarray:
    rows = [
        _top_of_category(
            np.arange(first, end), log_weight, parameters.queries_per_category, parameters.results_per_query, rng
        )
        for first, end in pairwise(start)
    ]
    return np.concatenate(rows).astype(np.int32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _category_vectors(categories: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return (C, size): leaves of a tree with about sqrt(C) branches; leaves of a branch are alike."""
    branches = max(1, round(categories**0.5))
    return rng.normal(size=(branches, size))[np.arange(categories) % branches] + 0.8 * rng.normal(
        size=(categories, size)
    )


def _json_vectors(vectors: np.ndarray) -> list[str]:
    """Return each row (N, D) as a JSON list with six decimals."""
    columns = pl.DataFrame(np.round(vectors, 6)).select(pl.all().cast(pl.String))
    text = pl.concat_str(pl.lit("["), pl.concat_str(pl.all(), separator=", "), pl.lit("]"))
    return columns.select(text.alias("vector"))["vector"].to_list()


def write_catalogue(catalogue: Catalogue, parameters: ShopParameters, path: Path) -> None:
    """Write ``sku_to_content.csv``: every product once, in no order, empty where metadata is missing."""
    rng = np.random.default_rng([catalogue.seed, 2])
    products, categories = len(catalogue.category), len(catalogue.category_start) - 1
    style = rng.normal(size=(products, parameters.vector_size))
    description = _unit(catalogue.centres[catalogue.category] + 0.6 * style)
    image = _unit((catalogue.centres[catalogue.category] + style) @ rng.normal(size=(parameters.vector_size,) * 2))
    branches = max(1, round(categories**0.5))
    leaf_ids = identifiers.hashed_ids(np.arange(categories), identifiers.CATEGORY, catalogue.seed).to_pylist()
    branch_ids = identifiers.hashed_ids(np.arange(branches) + 2**32, identifiers.CATEGORY, catalogue.seed).to_pylist()
    paths = [f"{branch_ids[leaf % branches]}/{leaf_ids[leaf]}" for leaf in range(categories)]
    some = rng.random(products) < parameters.metadata_share
    present = some[:, None] & (rng.random((products, 4)) < np.array(parameters.field_shares))

    def column(values: list, field: int) -> pl.Series:
        return pl.Series([value if kept else None for value, kept in zip(values, present[:, field], strict=True)])

    frame = pl.DataFrame(
        {
            "product_sku_hash": pl.Series(catalogue.sku_ids.to_pylist()),
            "description_vector": column(_json_vectors(description), 0),
            "category_hash": column([paths[leaf] for leaf in catalogue.category.tolist()], 1),
            "image_vector": column(_json_vectors(image), 2),
            "price_bucket": column(catalogue.price.tolist(), 3),
        }
    )
    frame[rng.permutation(products)].write_csv(path)
