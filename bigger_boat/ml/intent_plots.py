"""Pictures of the intent model as PNG bytes, for the web UI and reports.

What belongs here: numbers to pictures. What does not: computing the numbers (``intent_metrics.py``).
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bigger_boat.ml.intent_metrics import IntentReport, calibration_curve
from bigger_boat.ml.intent_training import EpochLog

DPI = 130
INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
COLORS = ("#2f6fde", "#e07a1f", "#2a9d6f", "#8e5bd0")


def learning_curve(history: Sequence[EpochLog]) -> bytes:
    """Log loss by epoch on training and, where there is one, validation; the epoch that was kept is marked."""
    figure, axes = _figure("Learning curve", "epoch", "log loss (nats)")
    epochs = [log.epoch for log in history]
    axes.plot(epochs, [log.train for log in history], color=COLORS[1], marker="o", markersize=3, label="training")
    checks = np.array([log.validation for log in history])
    if len(checks) and not np.isnan(checks).all():
        best = int(np.nanargmin(checks))
        axes.plot(epochs, checks, color=COLORS[0], marker="o", markersize=3, label="validation")
        axes.axvline(epochs[best], color=MUTED, linestyle=":", linewidth=1)
        side = -1 if best > len(epochs) / 2 else 1
        axes.annotate(
            f"kept: epoch {epochs[best]}",
            (epochs[best], checks[best]),
            (6 * side, 8),
            textcoords="offset points",
            color=INK,
            ha="right" if side < 0 else "left",
        )
    axes.xaxis.get_major_locator().set_params(integer=True)
    return _png(figure, axes)


def calibration_plot(labels: np.ndarray, probabilities: Mapping[str, np.ndarray]) -> bytes:
    """Share of buyers against mean prediction per bin, one line per model; dots grow with the rows they stand for."""
    figure, axes = _figure("Calibration", "predicted probability of a purchase", "share that bought")
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1, label="perfect")
    for color, (name, predicted) in zip(COLORS, probabilities.items(), strict=False):
        mean, bought, mass = calibration_curve(labels, predicted)
        axes.plot(mean, bought, color=color, linewidth=1.5, label=name)
        axes.scatter(mean, bought, s=12 + 150 * mass / mass.sum(), color=color, alpha=0.8, linewidths=0)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    return _png(figure, axes)


def pr_auc_by_cut(reports: Mapping[str, IntentReport | Mapping[str, Any]]) -> bytes:
    """PR-AUC at each cut, one group of bars per cut and one bar per model, the base rate as a line across each group.

    ``reports``: ``IntentReport`` or its ``as_dict`` by model name, all on the same examples.
    """
    figure, axes = _figure("PR-AUC by events since the first add", "events after the first add", "PR-AUC")
    plain = {name: one.as_dict() if isinstance(one, IntentReport) else one for name, one in reports.items()}
    cuts = next(iter(plain.values()))["cuts"]
    width = 0.8 / max(len(plain), 1)
    for index, (name, report) in enumerate(plain.items()):
        heights = np.nan_to_num([scores["pr_auc"] for scores in report["cuts"]])
        places = np.arange(len(cuts)) + (index + 0.5) * width - 0.4
        axes.bar(places, heights, width * 0.92, color=COLORS[index % len(COLORS)], label=name)
    for place, scores in enumerate(cuts):
        label = "base rate" if place == 0 else None
        axes.hlines(scores["base_rate"], place - 0.45, place + 0.45, color=INK, linewidth=1.5, label=label)
    axes.set_xticks(range(len(cuts)), [f"{scores['cut']}\nn = {scores['examples']}" for scores in cuts])
    axes.set_ylim(0, axes.get_ylim()[1] * 1.3)  # room for the legend
    return _png(figure, axes)


def _figure(title: str, x: str, y: str):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=INK, fontweight="bold")
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelcolor=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    return figure, axes


def _png(figure, axes) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()
