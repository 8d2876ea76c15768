"""How close the intent models come to what can be known, into docs/models.md: python docs/intent_quality.py

Simulates a shop of which 50,000 sessions have a cart and more, fits everything on its training days at size full, and
reads the truth that the simulator wrote beside the events. Nothing in bigger_boat/ml reads it. About half an hour.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bigger_boat.data.intent_dataset import intent_examples  # noqa: E402
from bigger_boat.data.simulator import SHOPS, calibration, simulate  # noqa: E402
from bigger_boat.data.splits import split_days  # noqa: E402
from bigger_boat.data.vocabulary import INTENT_CUTS, SPLITS  # noqa: E402
from bigger_boat.ml.intent_baselines import BOOSTING, BaseRate, gradient_boosting, logistic_regression  # noqa: E402
from bigger_boat.ml.intent_features import encode_sessions  # noqa: E402
from bigger_boat.ml.intent_metrics import auc, calibration_error, pr_auc, weighted_micro_f1  # noqa: E402
from bigger_boat.ml.intent_model import IntentConfig, fit_intent  # noqa: E402
from bigger_boat.ml.intent_training import last_wide  # noqa: E402
from bigger_boat.ml.intervals import Interval, statistic_interval  # noqa: E402
from bigger_boat.ml.prod2vec import Prod2VecConfig, ProductEmbeddings, train_prod2vec  # noqa: E402

PAGE = ROOT / "docs" / "models.md"
END = date(2026, 11, 22)
SAMPLES = 200
SESSION, TIME = "session_id_hash", "server_timestamp_epoch_ms"
LSTM, COUNTS, TREES, FEATURE_TREES, TRUTH = (
    "LSTM",
    "regression on counts",
    "boosting on counts",
    "boosting on the network's features",
    "truth",
)


def main() -> None:
    """Simulate, fit, judge, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shop", choices=sorted(SHOPS), default="yoochoose")
    parser.add_argument("--sessions", type=int, default=1_200_000)
    parser.add_argument("--days", type=int, default=56)
    parser.add_argument("--products", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--embedding-epochs", type=int, default=8, help="of Prod2Vec: a large shop needs few")
    parser.add_argument(
        "--keep", type=Path, help="folder for shop, examples and checkpoints, to go on from after a kill"
    )
    parser.add_argument("--write", action="store_true", help="put the table into docs/models.md")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary)
        frames, embeddings = prepared(folder, asked)
        test = frames["test"].with_columns(**probabilities(frames, embeddings, folder))
    result = judged(test) | {"carts": sum(frame["session_id"].n_unique() for frame in frames.values())}
    result |= {name: getattr(asked, name) for name in ("shop", "sessions", "days", "products", "seed")}
    print(json.dumps(result))
    if asked.write:
        write_page(asked.shop, page(result))


# -- the data, straight from the shop's files


def prepared(folder: Path, asked: argparse.Namespace) -> tuple[dict[str, pl.DataFrame], ProductEmbeddings]:
    """Return the examples of each split, with the truth of each, and embeddings of the training days."""
    shop = folder / "shop"
    if not (shop / "truth").exists():
        simulate(
            shop,
            sessions=asked.sessions,
            days=asked.days,
            products=asked.products,
            seed=asked.seed,
            end_date=END,
            parameters=SHOPS[asked.shop],
        )
    if not (folder / "examples.parquet").exists():
        true_examples(shop, folder).write_parquet(folder / "examples.parquet")
    examples = pl.read_parquet(folder / "examples.parquet")
    splits = split_days(examples["session_date"].unique().to_list())
    frames = {name: examples.filter(pl.col("session_date").is_between(*splits.range_of(name))) for name in SPLITS}
    kept = folder / "embeddings"
    if not kept.exists():
        config = replace(Prod2VecConfig.full(), epochs=asked.embedding_epochs)
        train_prod2vec(products_looked_at(shop, splits.validation[0]), config).save(kept)
    return frames, ProductEmbeddings.load(kept)


def true_examples(shop: Path, folder: Path) -> pl.DataFrame:
    """Return all examples of the intent task, with ``probability``: what is true of each."""
    rows = pl.scan_csv(shop / "browsing_train.csv")
    carts = rows.filter(pl.col("product_action") == "add").select(SESSION).unique()
    small = folder / "carts"
    small.mkdir(exist_ok=True)
    for name in ("browsing_train.csv", "search_train.csv"):
        pl.scan_csv(shop / name).join(carts, on=SESSION, how="semi").collect(engine="streaming").write_csv(small / name)
    examples = pl.from_arrow(pa.Table.from_batches([intent_examples(calibration.cart_sessions(small))]))
    truth = pl.read_parquet(shop / "truth" / "intent.parquet").rename({SESSION: "session_id"})
    joined = examples.join(truth, on=["session_id", "cut"], how="left", maintain_order="left")
    if len(joined) != len(truth) or joined["probability"].null_count() or (joined["bought"] != joined["label"]).any():
        raise ValueError("The examples are not those that the simulator wrote the truth of.")
    return joined.drop("bought")


def products_looked_at(shop: Path, before: date) -> list[list[str]]:
    """Return the products of each session's details, in order, of the days before one."""
    return (
        pl.scan_csv(shop / "browsing_train.csv")
        .filter(pl.col("product_action") == "detail")
        .with_columns(day=pl.from_epoch(TIME, "ms").dt.date())
        .filter(pl.col("day") < before)
        .sort(SESSION, TIME)
        .group_by(SESSION, maintain_order=True)
        .agg("product_sku_hash")
        .collect()["product_sku_hash"]
        .to_list()
    )


# -- the models


def probabilities(frames: dict[str, pl.DataFrame], embeddings: ProductEmbeddings, folder: Path) -> dict[str, pl.Series]:
    """Return the probability of a purchase for each test example, by model; all fitted on the training days."""
    train, validation, test = (frames[name].drop("probability") for name in SPLITS)
    started = time.perf_counter()
    model = fit_intent(
        train, validation, embeddings, IntentConfig.full(), checkpoint_dir=folder,
        on_epoch=lambda losses, epoch: print(epoch, losses, f"{time.perf_counter() - started:.0f} s", file=sys.stderr),
    )  # fmt: skip
    print(f"fitted in {time.perf_counter() - started:.0f} s, {model.choice.calibration}", file=sys.stderr)
    found = {
        LSTM: model.predict(test),
        COUNTS: logistic_regression(train).predict(test),
        TREES: gradient_boosting(train).predict(test),
        FEATURE_TREES: feature_trees(model, train, test),
        "base rate": BaseRate.fit(train).predict(test),
        TRUTH: frames["test"]["probability"].to_numpy(),
    }
    return {name: pl.Series(name, values) for name, values in found.items()}


def feature_trees(model, train: pl.DataFrame, test: pl.DataFrame) -> np.ndarray:
    """Boosted trees on what the network sums up of a session: the strongest peer that knows no order of its own."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    wide = [last_wide(encode_sessions(frame, model.sku_ids, 100), model.table) for frame in (train, test)]
    trees = HistGradientBoostingClassifier(**BOOSTING, early_stopping=False).fit(wide[0], train["label"].to_numpy())
    return trees.predict_proba(wide[1])[:, 1]


# -- the judgement


def judged(test: pl.DataFrame) -> dict:
    """Return per model its scores over all cuts and per cut, and how much of the gap it closes, with its interval."""
    labels, cuts = test["label"].to_numpy(), test["cut"].to_numpy()
    names = [LSTM, FEATURE_TREES, TREES, COUNTS, TRUTH]
    values = {name: test[name].to_numpy() for name in (*names, "base rate")}
    models = {
        name: {
            "auc": auc(labels, each),
            "pr_auc": pr_auc(labels, each),
            "micro_f1": weighted_micro_f1(labels, each >= 0.5, cuts),
            "by_cut": {
                int(cut): {
                    "auc": auc(labels[cuts == cut], each[cuts == cut]),
                    "calibration_error": calibration_error(labels[cuts == cut], each[cuts == cut]),
                    "calibration_error_from_truth": calibration_error(values[TRUTH][cuts == cut], each[cuts == cut]),
                }
                for cut in INTENT_CUTS
            },
        }
        for name, each in values.items()
    }
    sessions = test.select(pl.struct("session_id", "session_date").rank("dense")).to_series().to_numpy()

    def closed(model: str, rows: np.ndarray) -> float:
        low, own, high = (auc(labels[rows], values[name][rows]) for name in (COUNTS, model, TRUTH))
        return (own - low) / (high - low)

    def above(rows: np.ndarray, peer: str) -> float:
        return auc(labels[rows], values[LSTM][rows]) - auc(labels[rows], values[peer][rows])

    return {
        "test_sessions": len(np.unique(sessions)),
        "models": models,
        "gap_closed": {
            m: statistic_interval(lambda rows, m=m: closed(m, rows), sessions, samples=SAMPLES) for m in names[:3]
        },
        "above": {
            p: statistic_interval(lambda rows, p=p: above(rows, p), sessions, samples=SAMPLES)
            for p in (TREES, FEATURE_TREES)
        },
    }


def page(result: dict) -> str:
    """Return the result as the page's tables."""
    models, closed = result["models"], result["gap_closed"]
    lines = [
        f"{result['sessions']:,} sessions of the shop `{result['shop']}`, {result['days']} days, "
        f"{result['products']:,} products, seed {result['seed']}: {result['carts']:,} sessions with a cart, "
        f"{result['test_sessions']:,} of them on the test days.",
        "",
        "| test days, all cuts | AUC | of the gap closed (95 %) | PR-AUC | weighted micro-F1 |",
        "|---|---|---|---|---|",
    ]
    for name, each in models.items():
        share = _share(Interval(*closed[name])) if name in closed else {COUNTS: "0", TRUTH: "1"}.get(name, "")
        lines.append(f"| {name} | {each['auc']:.4f} | {share} | {each['pr_auc']:.3f} | {each['micro_f1']:.3f} |")
    lines += [
        "",
        f"| events after the add | {' | '.join(map(str, INTENT_CUTS))} |",
        "|---" * (len(INTENT_CUTS) + 1) + "|",
    ]
    everybody = (LSTM, FEATURE_TREES, TREES, COUNTS, TRUTH)
    rows = (
        ("auc", "AUC", everybody),
        ("calibration_error", "calibration error", everybody),
        ("calibration_error_from_truth", "calibration error, from the truth", everybody[:-1]),
    )
    for score, shown, names in rows:
        for name in names:
            cells = " | ".join(f"{models[name]['by_cut'][cut][score]:.3f}" for cut in INTENT_CUTS)
            lines.append(f"| {shown}: {name} | {cells} |")
    told = [
        f"{peer}: {value.value:+.4f} ({value.low:+.4f} to {value.high:+.4f})"
        for peer, value in ((peer, Interval(*given)) for peer, given in result["above"].items())
    ]
    return "\n".join([*lines, "", f"AUC of the LSTM above {'; above '.join(told)}, paired, by whole sessions."])


def _share(interval: Interval) -> str:
    return f"{interval.value:.1%} ({interval.low:.1%} to {interval.high:.1%})"


def write_page(shop: str, text: str) -> None:
    """Put the tables between the shop's markers."""
    begin, end = f"<!-- intent, {shop}: written by docs/intent_quality.py -->", f"<!-- end of intent, {shop} -->"
    before, rest = PAGE.read_text().split(begin)
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")


if __name__ == "__main__":
    main()
