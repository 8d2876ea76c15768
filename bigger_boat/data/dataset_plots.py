"""Pictures of a data set for people: how much there is per day, and what is in it. PNG bytes; matplotlib inside only.

What belongs elsewhere: the numbers that decide anything (``dataset_checks.py``).
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from bigger_boat.data.drift import SMALLEST_SHARE
from bigger_boat.data.split_files import read_split
from bigger_boat.data.vocabulary import SPLITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"train": "#4c78a8", "validation": "#f58518", "test": "#54a24b"}
LONGEST = 20
"""Sessions with more items share the last bar."""


def plot_intent_dataset(directory: Path) -> bytes:
    """Return a picture: examples per day by split, and the share that ends in a purchase by cut."""
    frames = {split: read_split(directory, split, ["session_date", "cut", "label"]) for split in SPLITS}

    def share_by_cut(axes: "Axes") -> None:
        for split, frame in frames.items():
            shares = frame.group_by("cut").agg(pl.col("label").mean()).sort("cut")
            axes.plot(shares["cut"].to_numpy(), shares["label"].to_numpy(), "o-", color=COLOURS[split], label=split)
        axes.set(title="purchase to come", xlabel="events after the first add", ylabel="share", ylim=(0, None))

    return _two_panels(frames, "examples per day", share_by_cut)


def plot_recommendation_dataset(directory: Path) -> bytes:
    """Return a picture: sessions per day by split, and how many items training sessions have."""
    lengths = read_split(directory, "train", ["items"]).select(pl.col("items").list.len().clip(upper_bound=LONGEST))
    counts = lengths.group_by("items").len().sort("items")

    def items_per_session(axes: "Axes") -> None:
        axes.bar(counts["items"].to_numpy(), counts["len"].to_numpy(), color=COLOURS["train"])
        axes.set(title="items per training session", xlabel=f"items ({LONGEST} and more in one)", ylabel="sessions")

    frames = {split: read_split(directory, split, ["session_date"]) for split in SPLITS}
    return _two_panels(frames, "sessions per day", items_per_session)


def plot_shares(panels: Mapping[str, tuple[Sequence[str], Mapping[str, int], Mapping[str, int]]]) -> bytes:
    """Return a picture with a panel per variable: the share of each category (in this order) then and now.

    On a logarithmic axis: a drift of what is rare, such as purchases, counts as much as one of what is frequent.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(panels), 3), layout="constrained")
    for axes, (name, (categories, then, now)) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        places = np.arange(len(categories))
        for offset, label, counts in ((-0.2, "then", then), (0.2, "now", now)):
            total = max(1, sum(counts.values()))
            shares = [counts.get(category, 0) / total for category in categories]
            axes.bar(
                places + offset, shares, 0.4, label=label, color=COLOURS["train" if label == "then" else "validation"]
            )
        axes.set(title=name, ylabel="share (log)", yscale="log", ylim=(SMALLEST_SHARE, 6))
        axes.set_xticks(places, categories, rotation=60, ha="right", fontsize=8)
        axes.legend()
    return png(figure)


def _two_panels(frames: dict[str, pl.DataFrame], title: str, draw_right) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for split, frame in frames.items():
        days = frame.group_by("session_date").len().sort("session_date")
        left.bar(days["session_date"].to_list(), days["len"].to_numpy(), color=COLOURS[split], label=split)
    left.set(title=title, ylabel="rows")
    left.tick_params(axis="x", rotation=45)
    left.margins(y=0.25)  # the legend above the bars, not over them
    left.legend(loc="upper center", ncols=len(frames), fontsize=8)
    draw_right(right)
    return png(figure)


def png(figure: "Figure") -> bytes:
    """Return a figure as a PNG."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=90)
    return picture.getvalue()
