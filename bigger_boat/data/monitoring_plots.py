"""Pictures of what is live, as PNG bytes; matplotlib inside only. What belongs elsewhere: the numbers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from bigger_boat.data.dataset_plots import png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"recommendation": "#4c78a8", "intent": "#f58518"}


def plot_answers(answers: pl.DataFrame) -> bytes:
    """Return a picture of a day: answers by hour, latency, and purchase probabilities, by endpoint."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3), layout="constrained")
    by_hour, latency, probability = figure.subplots(1, 3)
    below = np.zeros(24)
    for endpoint, colour in COLOURS.items():
        rows = answers.filter(pl.col("endpoint") == endpoint)
        hours = np.bincount((rows["answered_at_ms"].to_numpy() // 3_600_000) % 24, minlength=24)
        by_hour.bar(np.arange(24), hours, bottom=below, color=colour, label=endpoint)
        below += hours
        _steps(latency, rows["latency_ms"].to_numpy(), np.geomspace(0.5, 5000, 41), colour, endpoint)
    by_hour.set(title="answers", xlabel="hour (UTC)", xlim=(-0.6, 23.6))
    by_hour.legend()
    latency.set(title="latency", xlabel="ms", ylabel="share of answers", xscale="log")
    said = answers["purchase_probability"].drop_nulls().to_numpy()
    _steps(probability, said, np.linspace(0, 1, 21), COLOURS["intent"], "intent")
    probability.set(title="purchase probability", xlabel="answered", ylabel="share of answers", xlim=(0, 1))
    return png(figure)


def plot_beside_offline(rows: Sequence[dict]) -> bytes:
    """Return a picture of metrics with their intervals, a row each, and the offline number as a diamond.

    ``rows``: ``label``, ``value``, ``low``, ``high``, ``offline`` or None.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(reversed(rows)):
        low, high = max(0.0, row["low"]), min(1.0, row["high"])
        axes.plot([low, high], [place, place], color=COLOURS["recommendation"], linewidth=2)
        axes.plot(row["value"], place, "o", color=COLOURS["recommendation"])
        if row["offline"] is not None:
            axes.plot(row["offline"], place, "D", color=COLOURS["intent"], markersize=5)
    axes.set_yticks(range(len(rows)), [row["label"] for row in reversed(rows)], fontsize=8)
    axes.set(title="online (dot, 95 % interval) beside offline (diamond)", xlim=(0, 1), ylim=(-0.6, len(rows) - 0.4))
    axes.grid(axis="x", alpha=0.4)
    return png(figure)


def _steps(axes: "Axes", values: np.ndarray, edges: np.ndarray, colour: str, label: str) -> None:
    if len(values):
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        axes.stairs(counts / len(values), edges, color=colour, label=label, linewidth=1.5)
