"""How fast the intent LSTM and Prod2Vec train, against padding every session to the longest at batch 128.

python benchmarks/training.py [--backend tensorflow|jax|torch] [--device cpu|gpu] [--precision mixed_float16]

Both sides run the same network, loss and optimizer through the same loop, in this process, and count whole sessions.
The first pass over each side's shapes is compilation and is timed apart. With --memory it measures the peak of training
at two sizes, each a process of its own, and says how it grows.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
from _measure import measure, print_result

END = date(2026, 11, 22)
PEER_BATCH, PEER_BATCHES = 128, 8
PEER = "every session padded to the longest, batch 128"
VECTOR_SIZE = 48


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=["tensorflow", "jax", "torch"], default="tensorflow")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--precision", default="float32", help="a Keras policy for the LSTMs")
    parser.add_argument("--sessions", type=int, default=200_000, help="of the simulated shop; 1 in 20 has a cart")
    parser.add_argument("--memory", action="store_true", help="measure peaks of memory instead")
    parser.add_argument("--train", choices=["prod2vec", "intent"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    os.environ["KERAS_BACKEND"] = asked.backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if asked.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if asked.train:
        train_once(asked.train, asked.sessions)
    elif asked.memory:
        measure_memory(asked.sessions)
    else:
        measure_lstm(asked)


# -- speed


def measure_lstm(asked: argparse.Namespace) -> None:
    """Print sessions per second of one epoch, and of the peer on a part of the same sessions."""
    from bigger_boat.ml.intent_model import IntentConfig
    from bigger_boat.ml.intent_training import Examples, epoch_batches

    examples, table = cart_examples(asked.sessions)
    config = replace(IntentConfig.full(), precision=asked.precision)
    ours = list(epoch_batches(examples, config, 1))
    longest = int(examples.encoded.lengths.max())
    some = Examples(examples.encoded, examples.labels).some(PEER_BATCH * PEER_BATCHES, seed=0)
    theirs = list(all_padded(some, longest, config))
    compile_s, own_s, own_cpu_s = timed(ours, table, config)
    peer_compile_s, peer_s, peer_cpu_s = timed(theirs, table, replace(config, batch_size=PEER_BATCH))
    own, peer = len(examples.labels) / own_s, len(some.labels) / peer_s
    cpu_ratio = (peer_cpu_s / len(some.labels)) / (own_cpu_s / len(examples.labels))
    print_result(
        "intent_lstm_training", own, "sessions/s", PEER, own / peer,
        peer_value=round(peer, 1), cpu_ratio=round(cpu_ratio, 2), sessions=len(examples.labels), longest=longest,
        batch=config.batch_size,
        mean_length=round(float(examples.encoded.lengths.mean()), 1), compile_s=round(compile_s, 1),
        peer_compile_s=round(peer_compile_s, 1), backend=asked.backend, device=asked.device,
        precision=config.precision,
    )  # fmt: skip


def timed(batches: list, table, config) -> tuple[float, float, float]:
    """Return the seconds that compiling every shape took, those of one pass over all batches after it, and the CPU
    seconds of that pass: on a machine with others at work their ratio is the one to believe."""
    from bigger_boat.ml.intent_network import derive
    from bigger_boat.ml.intent_training import LinearPart, compiled, keras_data, new_network

    features = np.asarray(derive(batches[0][0], table.vectors, table.popularity)[0]).shape[-1]
    nothing, ones = np.zeros(features, np.float32), np.ones(features, np.float32)
    network = new_network(table, LinearPart(nothing, ones, nothing, 0.0), config)
    compiled(network, config)
    shapes = {batch[1].shape: batch for batch in batches}

    def fit(some: list) -> tuple[float, float]:
        started = time.perf_counter(), time.process_time()
        network.fit(keras_data(lambda: iter(some), len(some)), shuffle=False, verbose=0)
        return time.perf_counter() - started[0], time.process_time() - started[1]

    return fit(list(shapes.values()))[0], *fit(batches)


def all_padded(examples, width: int, config) -> Iterator:
    """Yield batches in the order of the sessions, each padded to ``width``."""
    for first in range(0, len(examples.labels), PEER_BATCH):
        rows = np.arange(first, min(first + PEER_BATCH, len(examples.labels)))
        inputs = examples.encoded.padded(rows, width)
        weights = examples.weights(inputs["actions"], config.between_cuts_weight)
        yield inputs, np.stack([np.broadcast_to(examples.labels[rows, None], weights.shape), weights], axis=-1)


def cart_examples(sessions: int):
    """Return the sessions with a cart of a simulated shop, encoded, and a table of random vectors for its products."""
    import polars as pl
    import pyarrow as pa

    from bigger_boat.data.intent_dataset import intent_examples
    from bigger_boat.data.simulator import calibration, simulate
    from bigger_boat.ml.intent_features import FIRST_SKU_ID
    from bigger_boat.ml.intent_network import ProductTable
    from bigger_boat.ml.intent_training import Examples

    with tempfile.TemporaryDirectory() as folder:
        simulate(Path(folder), sessions=sessions, days=28, products=5_000, seed=1, end_date=END)
        carts = calibration.cart_sessions(Path(folder))
    frame = pl.from_arrow(pa.Table.from_batches([intent_examples(carts)]))
    skus = sorted({sku for row in frame["skus"].to_list() for sku in row if sku})
    vectors = np.random.default_rng(0).normal(size=(len(skus), VECTOR_SIZE)).astype(np.float32)
    ids = {sku: number for number, sku in enumerate(skus, FIRST_SKU_ID)}
    return Examples.longest(frame, ids, 100), ProductTable.of(vectors, np.ones(len(skus)))


# -- memory


def measure_memory(sessions: int) -> None:
    """Print the peak of training on ``sessions`` and on a quarter of them, and the growth per million."""
    for what in ("prod2vec", "intent"):
        peaks = []
        for size in (sessions // 4, sessions):
            command = [sys.executable, __file__, "--train", what, "--sessions", str(size)]
            peaks.append(measure(command).peak_mib)
        growth = (peaks[1] - peaks[0]) / (sessions - sessions // 4) * 1e6
        print_result(
            f"{what}_memory", peaks[1], "MiB", f"{sessions // 4} sessions", peaks[1] / peaks[0],
            sessions=sessions, mib_per_million_sessions=round(growth),
        )  # fmt: skip


def train_once(what: str, sessions: int) -> None:
    """Train on made-up sessions as long as real ones, of 66,000 products: for ``measure_memory``.

    Prod2Vec sees one session in three (the others show no product), the intent model one in twenty.
    """
    import polars as pl

    from bigger_boat.ml.intent_model import IntentConfig, fit_intent
    from bigger_boat.ml.prod2vec import Prod2VecConfig, ProductEmbeddings, train_prod2vec

    generator = np.random.default_rng(0)
    products = np.array([f"{number:064x}" for number in range(66_000)])
    if what == "prod2vec":
        lengths = np.minimum(generator.geometric(1 / 6, sessions // 3), 50)
        rows = pl.Series(np.repeat(np.arange(len(lengths)), lengths))
        shown = pl.Series(products)[generator.zipf(1.3, lengths.sum()) % len(products)]
        items = pl.DataFrame({"row": rows, "items": shown}).group_by("row", maintain_order=True).agg("items")["items"]
        train_prod2vec(items.to_list(), Prod2VecConfig(dim=VECTOR_SIZE, epochs=1, seed=None))
        return
    frame = made_up_carts(generator, products, sessions // 20)
    vectors = generator.normal(size=(len(products), VECTOR_SIZE)).astype(np.float32)
    embeddings = ProductEmbeddings(products.tolist(), np.ones(len(products), np.int64), vectors)
    cut = len(frame) * 4 // 5
    fit_intent(frame[:cut], frame[cut:], embeddings, replace(IntentConfig.full(), epochs=1))


def made_up_carts(generator: np.random.Generator, products: np.ndarray, count: int):
    """Return rows of ``intent_dataset``: each session at its longest cut."""
    import polars as pl

    lengths = np.minimum(8 + generator.geometric(1 / 7, count), 100)
    ends, total = np.cumsum(lengths), int(lengths.sum())
    actions = generator.choice(np.array(["view", "detail", "remove", "search"]), total, p=[0.45, 0.45, 0.05, 0.05])
    actions[ends - 6] = "add"
    rows = np.repeat(np.arange(count), lengths)
    events = pl.DataFrame(
        {
            "row": rows,
            "actions": actions,
            "skus": np.where(actions == "view", "", products[generator.zipf(1.3, total) % len(products)]),
            "timestamps_ms": 1_700_000_000_000 + np.cumsum(generator.integers(1, 90_000, total)),
        }
    )
    frame = events.group_by("row", maintain_order=True).agg("actions", "skus", "timestamps_ms")
    started = pl.from_epoch(pl.col("timestamps_ms").list.first(), "ms")
    return frame.with_columns(
        pl.col("row").cast(pl.String).alias("session_id"),
        started.alias("started_at"),
        started.dt.date().alias("session_date"),
        pl.lit(4, pl.Int8).alias("cut"),
        pl.Series("label", generator.random(count) < 0.24),
    )


if __name__ == "__main__":
    main()
