"""A program that fits a small intent model with a checkpoint, to be killed; started again it goes on.

It prints each finished epoch. With a second folder it fits there too, from the beginning, and prints how far the two
models' predictions differ at most.
"""

import sys
from pathlib import Path

import numpy as np
import polars as pl

from bigger_boat.ml.intent_model import IntentConfig, fit_intent
from bigger_boat.ml.prod2vec import ProductEmbeddings

SKUS = [f"sku{number}" for number in range(30)]
CONFIG = IntentConfig(units=8, members=1, epochs=6, patience=6, batch_size=64, seed=1)


def sessions(count: int, seed: int) -> pl.DataFrame:
    """Sessions whose shopper buys if the first product's number is even, mostly."""
    chance = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        first = int(chance.integers(len(SKUS)))
        skus = [SKUS[first], "", SKUS[first], *chance.choice(SKUS, 2).tolist()]
        times = (1_700_000_000_000 + np.cumsum(chance.integers(1, 90_000, 5))).tolist()
        label = bool(first % 2 == 0) ^ bool(chance.random() < 0.1)
        rows.append((f"s{number}", 0, ["detail", "view", "add", "detail", "detail"], skus, times, label))
    frame = pl.DataFrame(rows, schema=["session_id", "cut", "actions", "skus", "timestamps_ms", "label"], orient="row")
    started = pl.from_epoch(pl.col("timestamps_ms").list.first(), time_unit="ms")
    return frame.with_columns(started.alias("started_at"), started.dt.date().alias("session_date"))


def main(checkpoints: str, apart: str | None = None) -> None:
    vectors = np.random.default_rng(0).normal(size=(len(SKUS), 8)).astype(np.float32)
    embeddings = ProductEmbeddings(SKUS, np.arange(len(SKUS), 0, -1), vectors)
    train, validation, test = sessions(600, 1), sessions(200, 2), sessions(100, 3)
    told = [train, validation, embeddings, CONFIG]
    model = fit_intent(
        *told, checkpoint_dir=Path(checkpoints), progress=lambda _what, done, _of: print(f"epoch {done}", flush=True)
    )
    if apart:
        undisturbed = fit_intent(*told, checkpoint_dir=Path(apart))
        difference = np.abs(model.predict(test) - undisturbed.predict(test)).max()
        print(f"difference {difference:.2e}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
