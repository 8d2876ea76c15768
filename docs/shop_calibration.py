"""Measure the simulated shops and write the tables and plots of docs/the-shop.md: python docs/shop_calibration.py

Takes some minutes. The same machine and seed give the same tables. What is measured, and what it should be, is in
bigger_boat/data/simulator/calibration.py; a test holds small shops to the same targets.
"""

import argparse
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bigger_boat.data.intent_dataset import intent_examples  # noqa: E402
from bigger_boat.data.session_files import read_sessions  # noqa: E402
from bigger_boat.data.simulator import SHOPS, calibration, simulate  # noqa: E402
from bigger_boat.data.simulator.calibration import REAL_LADDER  # noqa: E402
from bigger_boat.data.vocabulary import INTENT_CUTS  # noqa: E402
from bigger_boat.ml.benchmark import Benchmark, split_by_time  # noqa: E402
from bigger_boat.ml.intent_baselines import fit_counts, logistic_regression  # noqa: E402
from bigger_boat.ml.intent_features import COUNT_FEATURES, count_features  # noqa: E402
from bigger_boat.ml.intent_metrics import auc  # noqa: E402

PAGE = ROOT / "docs" / "the-shop.md"
IMAGES = ROOT / "docs" / "images"
END = date(2026, 11, 22)
MODELS = {
    "truth": "truth",
    "boosting": "boosting on counts and duration",
    "regression": "regression on counts and duration",
    "counts": "regression on counts",
}
STYLES = {"truth": "-", "boosting": "-.", "regression": "--", "counts": ":"}
COLOURS = {"yoochoose": "#1f6f8b", "challenge": "#d1603d"}


def main() -> None:
    """Simulate both shops, measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--products", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    size = parser.parse_args()
    measures, ladders, known, browsing = {}, {}, {}, {}
    for name, parameters in SHOPS.items():
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder)
            started = time.perf_counter()
            simulate(
                directory,
                sessions=size.sessions,
                days=28,
                products=size.products,
                seed=size.seed,
                end_date=END,
                parameters=parameters,
            )
            print(f"{name}: simulated in {time.perf_counter() - started:.0f} s", flush=True)
            measures[name] = calibration.measure(directory)
            browsing[name] = pl.read_csv(directory / "browsing_train.csv").sort("session_id_hash", calibration.TIME)
            known[name] = knowable(directory)
            ladders[name] = Benchmark(*split_by_time(read_sessions(directory))).run(candidates=False)
            print(f"{name}: measured after {time.perf_counter() - started:.0f} s", flush=True)
    IMAGES.mkdir(exist_ok=True)
    plot_shares(browsing)
    plot_ladder(ladders["yoochoose"])
    plot_truth(known)
    shown = f"{size.sessions:,} sessions, {size.products:,} products, 28 days, seed {size.seed}"
    tables = {"calibration": calibration_table(measures), "ladder": ladder_table(ladders), "truth": truth_table(known)}
    write_page({name: f"Measured on {shown}.\n\n{table}" for name, table in tables.items()})


def knowable(directory: Path) -> pl.DataFrame:
    """Return the last 40 % of the examples by time: cut, label, and what truth and counts say about each.

    ``counts`` is logistic regression on how often each action came; the two others know the duration, too.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    truth = pl.read_parquet(directory / "truth" / "intent.parquet").rename({"session_id_hash": "session_id"})
    examples = pl.from_arrow(pa.Table.from_batches([intent_examples(calibration.cart_sessions(directory))]))
    frame = examples.join(truth, on=["session_id", "cut"]).sort("started_at", "session_id", "cut")
    assert len(frame) == len(examples) == len(truth)
    split = frame["started_at"].quantile(0.6)
    train, test = frame.filter(pl.col("started_at") < split), frame.filter(pl.col("started_at") >= split)
    kept = [name != "duration_s" for name in COUNT_FEATURES]
    counts = [np.log1p(count_features(part)[:, kept]) for part in (train, test)]
    plain = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(counts[0], train["label"].to_numpy())
    boosting = fit_counts("boosting", HistGradientBoostingClassifier(max_depth=3, random_state=0), train)
    return test.select(
        "cut",
        "label",
        truth="probability",
        counts=pl.Series(plain.predict_proba(counts[1])[:, 1]),
        regression=pl.Series(logistic_regression(train).predict(test)),
        boosting=pl.Series(boosting.predict(test)),
    )


# -- tables


def calibration_table(measures: dict[str, dict[str, float]]) -> str:
    """Return target and measured value per measure, both shops."""
    targets = {name: {target.measure: target for target in calibration.TARGETS[name]} for name in SHOPS}
    names = list(dict.fromkeys(measure for shop in targets.values() for measure in shop))
    lines = [f"| measure | real | tolerance | {' | '.join(SHOPS)} |", f"|---|---|---|{'---|' * len(SHOPS)}"]
    for name in names:
        target = next(shop[name] for shop in targets.values() if name in shop)
        cells = [f"{_short(measures[shop][name])}{'' if name in targets[shop] else ' (no target)'}" for shop in SHOPS]
        bounds = " / ".join(
            dict.fromkeys(f"{_short(s[name].low)} to {_short(s[name].high)}" for s in targets.values() if name in s)
        )
        lines.append(f"| {name.replace('_', ' ')} | {target.real} | {bounds} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ladder_table(ladders: dict[str, dict]) -> str:
    """Return HR@20 / MRR@20 of each method: real clicks, both shops."""
    rows = {shop: {row["recommender"]: row for row in result["results"]} for shop, result in ladders.items()}
    lines = [f"| HR@20 / MRR@20 | yoochoose, real clicks | {' | '.join(SHOPS)} |", f"|---|---|{'---|' * len(SHOPS)}"]
    for name, (hit_rate, mrr) in REAL_LADDER.items():
        cells = [f"{rows[shop][name]['hit_rate']:.3f} / {rows[shop][name]['mrr']:.3f}" for shop in SHOPS]
        lines.append(f"| {name.replace('_', ' ')} | {hit_rate:.3f} / {mrr:.3f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def truth_table(known: dict[str, pl.DataFrame]) -> str:
    """Return the AUC per cut of the truth and of models on counts, with their share of the truth's lift, both shops."""
    head = [f"{shop}: {who}" for shop in SHOPS for who in MODELS.values()]
    lines = [f"| AUC at cut | {' | '.join(head)} |", f"|---|{'---|' * len(head)}"]
    for cut in (None, *INTENT_CUTS):
        cells = []
        for frame in known.values():
            values = aucs(frame, cut)
            shares = {name: (value - 0.5) / (values["truth"] - 0.5) for name, value in values.items()}
            cells += [f"{value:.3f} ({shares[name]:.0%})" for name, value in values.items()]
        lines.append(f"| {'all' if cut is None else cut} | {' | '.join(cells)} |")
    return "\n".join(lines)


def aucs(frame: pl.DataFrame, cut: int | None) -> dict[str, float]:
    """Return the AUC of each of ``MODELS`` on the examples of a cut."""
    frame = frame if cut is None else frame.filter(pl.col("cut") == cut)
    labels = frame["label"].to_numpy()
    return {name: auc(labels, frame[name].to_numpy()) for name in MODELS}


def write_page(tables: dict[str, str]) -> None:
    """Put each table between its markers."""
    text = PAGE.read_text()
    for name, table in tables.items():
        begin, end = f"<!-- {name}: written by docs/shop_calibration.py -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"
    PAGE.write_text(text)


# -- plots


def _figure(panels: int, height: float = 3.6):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, panels, figsize=(4.4 * panels, height), layout="constrained")
    for axis in np.atleast_1d(axes):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure, axes


def _save(figure, name: str) -> None:
    figure.savefig(IMAGES / f"shop-{name}.png", dpi=110)


def plot_shares(browsing: dict[str, pl.DataFrame]) -> None:
    """Tail, session lengths, gaps and hours of the day, with the real values where they are known."""
    figure, axes = _figure(4)
    for name, rows in browsing.items():
        style = {"color": COLOURS[name], "label": name}
        counts = calibration.popularity(rows)
        axes[0].plot(np.arange(1, len(counts) + 1) / len(counts), np.cumsum(counts) / counts.sum(), **style)
        clicks = calibration.clicks_per_session(rows.filter(pl.col("product_action") == "detail"))
        lengths = np.arange(2, 31)
        axes[1].plot(lengths, [(clicks > length).mean() for length in lengths], **style)
        gaps = np.sort(calibration.gaps_s(rows))
        axes[2].plot(gaps, np.linspace(0, 1, len(gaps)), **style)
        hours = np.bincount(calibration.starts(rows).dt.hour().to_numpy(), minlength=24)
        axes[3].plot(np.arange(24), hours / hours.sum(), **style)
    real = {"marker": "o", "linestyle": "", "color": "black", "label": "real"}
    axes[0].plot([0.01, 0.05], [0.34, 0.67], **real)
    axes[1].plot([3, 7, 18], [0.5, 0.1, 0.01], **real)
    axes[2].plot([25, 56, 129, 1740], [0.25, 0.5, 0.75, 0.99], **real)
    axes[0].set(title="popularity", xscale="log", xlabel="share of products", ylabel="share of product events")
    axes[1].set(title="clicks of sessions with two or more", yscale="log", xlabel="clicks", ylabel="longer")
    axes[2].set(title="time between rows", xscale="log", xlabel="seconds", ylabel="shorter", xlim=(1, 2000))
    axes[3].set(title="when sessions start", xlabel="hour, UTC", ylabel="share", ylim=(0, None))
    for axis in axes[:3]:
        axis.legend(frameon=False)
    _save(figure, "shares")


def plot_ladder(ladder: dict) -> None:
    """Each simple method on real clicks and in the first shop."""
    rows = {row["recommender"]: row for row in ladder["results"]}
    figure, axes = _figure(2, 4.2)
    places = np.arange(len(REAL_LADDER))
    for axis, number, metric in zip(axes, (0, 1), ("hit_rate", "mrr"), strict=True):
        real = [values[number] for values in REAL_LADDER.values()]
        axis.barh(places - 0.2, real, 0.4, color="black", label="yoochoose, real clicks")
        ours = [rows[name][metric] for name in REAL_LADDER]
        axis.barh(places + 0.2, ours, 0.4, color=COLOURS["yoochoose"], label="simulated")
        axis.set(title={"hit_rate": "HR@20", "mrr": "MRR@20"}[metric])
        axis.set_yticks(places, [name.replace("_", " ") for name in REAL_LADDER] if not number else [])
        axis.invert_yaxis()
    axes[1].legend(frameon=False, loc="upper right")
    _save(figure, "ladder")


def plot_truth(known: dict[str, pl.DataFrame]) -> None:
    """What share is bought of carts with a true probability, and how well truth and counts tell buyers by cut."""
    figure, axes = _figure(3)
    axes[0].plot([0, 0.9], [0, 0.9], color="black", linewidth=0.8)
    for name, frame in known.items():
        order = np.argsort(frame["truth"].to_numpy())
        p, bought = frame["truth"].to_numpy()[order], frame["label"].to_numpy()[order]
        expected, counted = ([part.mean() for part in np.array_split(values, 10)] for values in (p, bought))
        axes[0].plot(expected, counted, "o", color=COLOURS[name], label=name)
    for axis, (name, frame) in zip(axes[1:], known.items(), strict=True):
        lines = [aucs(frame, cut) for cut in INTENT_CUTS]
        for who, label in MODELS.items():
            axis.plot(INTENT_CUTS, [line[who] for line in lines], STYLES[who], color=COLOURS[name], label=label)
        axis.set(title=f"{name}: AUC", xlabel="events after the first add", ylim=(0.5, 0.95))
        axis.legend(frameon=False)
    axes[0].set(title="carts by tenths of the truth", xlabel="true probability", ylabel="share bought")
    axes[0].legend(frameon=False)
    _save(figure, "truth")


if __name__ == "__main__":
    main()
