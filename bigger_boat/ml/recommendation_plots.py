"""Pictures of products and recommenders as PNG bytes, for metadata and reports. Numbers come from elsewhere."""

import io
from collections.abc import Mapping, Sequence

import numpy as np

from bigger_boat.ml.prod2vec import ProductEmbeddings

LARGEST_MAP = 5_000
COLOURS = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C8", "C9")
"""Matplotlib's ten without its grey, which stands for all other categories."""


def plot_product_map(embeddings: ProductEmbeddings, categories: Mapping[str, str] | None = None) -> bytes:
    """Return a PNG of the most popular products in two principal components, coloured by category if known.

    ``categories`` maps SKU to category (a path of hashes, of which the legend shows the leaf); the most frequent ones
    get a colour each, all others are grey.
    """
    points = embeddings.map_2d()[:LARGEST_MAP]
    sizes = 6 + 60 * np.sqrt(embeddings.counts[:LARGEST_MAP] / embeddings.counts.max())
    labels = np.array([(categories or {}).get(sku) or "" for sku in embeddings.skus[:LARGEST_MAP]])
    names, counts = np.unique(labels[labels != ""], return_counts=True)
    coloured = names[np.argsort(-counts, kind="stable")][: len(COLOURS)]
    figure, axes = _figure(7, 6)
    rest = ~np.isin(labels, coloured)
    axes.scatter(*points[rest].T, s=sizes[rest], color="lightgrey", linewidths=0)
    for colour, name in zip(COLOURS, coloured, strict=False):
        own, leaf = labels == name, name.split("/")[-1][:12]
        axes.scatter(*points[own].T, s=sizes[own], color=colour, alpha=0.7, linewidths=0, label=leaf)
    if len(coloured):
        axes.legend(title="category", fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    axes.set_title(f"{len(points):,} products; nearby ones are looked at together")
    axes.set_xlabel("first principal component")
    axes.set_ylabel("second principal component")
    return _png(figure)


def plot_leaderboard(rows: Sequence[Mapping]) -> bytes:
    """Return a PNG of ``recommender_evaluation.leaderboard`` rows: MRR@k with its interval, best on top."""
    figure, axes = _figure(7, 0.9 + 0.45 * len(rows))
    places = np.arange(len(rows))[::-1]
    values = np.array([row["mrr"] for row in rows])
    bounds = np.array([[row["mrr"] - row["mrr_low"], row["mrr_high"] - row["mrr"]] for row in rows]).T
    axes.barh(places, values, xerr=np.maximum(bounds, 0), color="C0", ecolor="black", capsize=3)
    axes.set_yticks(places, [row["recommender"] for row in rows])
    axes.set_xlabel(f"MRR@{rows[0]['k']} over {int(rows[0]['predictions']):,} predictions, with 95 % interval")
    return _png(figure)


def _figure(width: float, height: float):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
