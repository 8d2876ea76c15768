"""How fast one process answers which products come next, beside two servers as most would write them.

    python benchmarks/serving.py [--seconds 4] [--recommender hybrid_recommender] [--write]

66,000 products, top 20, the real command (``serve --bundle``) over loopback, load from a process of its own.
``--write`` puts the recommender's table into docs/performance.md. Server and load generator share the machine's cores.
Models are as large as trained ones at size full, their numbers random: speed does not depend on what they say, but the
hybrid's does on how many past sessions a product has, so products are in sessions and requests by their popularity.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from _measure import commit, machine, print_result

from bigger_boat.ml.bundle import Bundle, write_bundle
from bigger_boat.ml.golden import compare_golden
from bigger_boat.ml.hybrid_export import export_hybrid, export_lstm
from bigger_boat.ml.hybrid_recommender import CONTEXTS, PARTS, HybridConfig, HybridModel
from bigger_boat.ml.item_sequences import ItemVocabulary
from bigger_boat.ml.knn_recommender import KnnConfig, KnnModel
from bigger_boat.ml.lstm_recommender import LstmConfig, LstmModel, LstmWeights
from bigger_boat.ml.prod2vec import ProductEmbeddings
from bigger_boat.ml.ranking import Ranker
from bigger_boat.ml.recommender_export import export_knn
from bigger_boat.ml.repeats import REPEAT_CLASSES
from bigger_boat.ml.time_gaps import GAP_BUCKETS
from bigger_boat.serving import client
from bigger_boat.serving.published import replace_file

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parent / "docs" / "performance.md"
PRODUCTS, DIMENSIONS, K = 66_000, 48, 20
CLIENTS = (1, 8, 32, 128)
WAYS = {
    "ours": "this server",
    "one_by_one": "TensorFlow asked one request at a time",
    "naive": "every score returned, sorted in Python",
}
_START_TIMEOUT_S = 120


def make_bundle(root: Path, kind: str = "knn_recommender") -> Bundle:
    """Write a bundle over 66,000 products, its model at random."""
    generator = np.random.default_rng(1)
    skus = [f"{number:064x}" for number in range(PRODUCTS)]  # as long as the challenge's
    counts = popularity()
    make, export_of = MODELS[kind]
    model = make(skus, counts, generator)
    asked = requests(skus, counts, 16, 7)
    golden = [{"request": request, "predictions": offline(model, request)} for request in asked]
    export = lambda directory: export_of(model, directory)  # noqa: E731
    return write_bundle(root, name="recommendation", kind=kind, export=export, golden=golden, info={})


def random_knn(skus: list[str], counts: np.ndarray, generator: np.random.Generator) -> KnnModel:
    vectors = generator.normal(size=(len(skus), DIMENSIONS)).astype(np.float32)
    return KnnModel(ProductEmbeddings(skus, counts, vectors), KnnConfig())


def random_lstm(skus: list[str], counts: np.ndarray, generator: np.random.Generator) -> LstmModel:
    config, (v, d) = LstmConfig.full(), (len(skus), DIMENSIONS)
    u = config.units
    items = (v, d), (v,), (REPEAT_CLASSES,), (d,), (GAP_BUCKETS, d)
    shapes = *items, (d, 4 * u), (u, 4 * u), (4 * u,), (u, d), (d,)
    weights = LstmWeights(*((0.1 * generator.normal(size=shape)).astype(np.float32) for shape in shapes))
    return LstmModel(ItemVocabulary(skus, counts), weights, config.longest)


def random_hybrid(skus: list[str], counts: np.ndarray, generator: np.random.Generator) -> HybridModel:
    """As many past sessions as the index keeps, products by their counts: the popular ones are in very many."""
    lstm, config = random_lstm(skus, counts, generator), HybridConfig.full()
    lengths = generator.geometric(0.2, config.index.sessions).clip(2, config.index.items_per_session)
    shown = generator.choice(len(skus), lengths.sum(), p=counts / counts.sum())
    names = [skus[row] for row in shown]
    starts = np.cumsum(lengths) - lengths
    sessions = [names[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    return HybridModel.of(sessions, lstm, config, generator.uniform(0.1, 1, (CONTEXTS, len(PARTS))))


MODELS = {
    "knn_recommender": (random_knn, export_knn),
    "lstm_recommender": (random_lstm, export_lstm),
    "hybrid_recommender": (random_hybrid, export_hybrid),
}


def popularity() -> np.ndarray:
    """Return counts of the products, falling: a few are in very many sessions."""
    return np.sort(np.random.default_rng(1).zipf(1.6, PRODUCTS).clip(max=100_000))[::-1].copy()


def requests(skus: list[str], counts: np.ndarray, count: int, seed: int) -> list[dict]:
    """Return requests of one session each, of 1 to 17 products by their counts, 4 on average; every other one excludes
    them."""
    generator = np.random.default_rng(seed)
    lengths = generator.geometric(0.25, count).clip(max=17)
    share = counts / counts.sum()
    sessions = [[skus[row] for row in generator.choice(len(skus), length, p=share)] for length in lengths]
    return [{"sessions": [s], "k": K, "exclude_seen": bool(row % 2)} for row, s in enumerate(sessions)]


def offline(model: Ranker, request: dict) -> list[dict]:
    """Return the contract's predictions as the model computes them without the graph."""
    session = request["sessions"][0]
    recent = np.array([[model.vocabulary.rows[sku] for sku in reversed(session)]], dtype=np.int32)
    rows, scores = model.rank_rows(recent, K, request["exclude_seen"])
    skus = [model.vocabulary.skus[row] for row in rows[0]]
    return [{"skus": skus, "scores": scores[0].tolist(), "fallback": False, "unknown_skus": []}]


@contextmanager
def serving(way: str, bundle: Bundle, folder: Path) -> Iterator[tuple[int, float, psutil.Process]]:
    """Run a server; yields its port, the seconds from its start to its first answer, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if way == "ours":
        command = ["-m", "bigger_boat.cli", "serve", "--bundle", str(bundle.directory), "--port", str(port)]
    else:
        command = [str(HERE / "_serving_peers.py"), way, str(bundle.directory), str(port)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "TF_CPP_MIN_LOG_LEVEL": "2"}
    began = time.perf_counter()
    with (folder / f"{way}.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, *command], stdout=log, stderr=log, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        while not answers(url, bundle.golden[0]["request"]):
            if process.poll() is not None or time.perf_counter() - began > _START_TIMEOUT_S:
                raise RuntimeError(f"{way} did not start:\n{(folder / f'{way}.log').read_text()[-2000:]}")
            time.sleep(0.02)
        started_s = time.perf_counter() - began
        require_right(url, way, bundle)
        yield port, started_s, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def answers(url: str, request: dict) -> bool:
    try:
        client.post_invocations(url, None, request)
    except Exception:
        return False
    return True


def require_right(url: str, way: str, bundle: Bundle) -> None:
    """A fast wrong answer is worth nothing: every server has to answer the golden requests as offline."""
    for entry in bundle.golden:
        given = client.post_invocations(url, None, entry["request"])["predictions"]
        wanted = [{key: value for key, value in one.items() if key in given[0]} for one in entry["predictions"]]
        if differences := compare_golden(wanted, given):
            raise RuntimeError(f"{way} answers wrongly: {differences[0]}")


def measure(port: int, clients: int, seconds: float, bodies: Path, server: psutil.Process) -> dict:
    """Return what the load generator saw, and what the server used: CPU ms per request, and memory."""
    before = sum(server.cpu_times()[:2])
    asked = {"port": port, "path": "/invocations", "bodies": str(bodies), "clients": clients, "seconds": seconds}
    command = [sys.executable, str(HERE / "_load.py"), json.dumps(asked)]
    result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if result["failures"]:
        raise RuntimeError(f"Requests failed: {result['failures']}")
    used = sum(server.cpu_times()[:2]) - before
    answered = result["per_s"] * seconds  # the warm-up too, at about the same rate
    return {**result, "cpu_ms": used / answered * 1000, "memory_mib": server.memory_info().rss / 2**20}


def run(seconds: float, kind: str) -> list[dict]:
    """Return one row per way, exclusion and number of clients; of other recommenders than kNN without the naive way."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = make_bundle(folder / "bundles", kind)
        pool = requests([f"{number:064x}" for number in range(PRODUCTS)], popularity(), 1_024, 11)
        files = {}
        for exclude_seen in (False, True):
            files[exclude_seen] = folder / f"bodies-{exclude_seen}"
            bodies = [json.dumps({**request, "exclude_seen": exclude_seen}) for request in pool]
            files[exclude_seen].write_text("\n".join(bodies))
        for way in WAYS if kind == "knn_recommender" else ("ours", "one_by_one"):
            with serving(way, bundle, folder) as (port, started_s, process):
                for exclude_seen in (False, True) if way == "ours" else (False,):
                    for clients in CLIENTS if way != "naive" else (1, 32):
                        row = measure(port, clients, seconds, files[exclude_seen], process)
                        rows.append({**row, "way": way, "exclude_seen": exclude_seen, "start_s": started_s})
                        print(f"{way} exclude_seen={exclude_seen} {row}", file=sys.stderr, flush=True)
    return rows


def table(rows: list[dict]) -> str:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg()[:2])
    lines = [
        f"Measured at commit {commit()} on {machine()}; load of the last 1 and 5 minutes at the end: {load}.",
        "",
        "| server | `exclude_seen` | clients | requests/s | p50, ms | p90, ms | p99, ms | server CPU per request, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [WAYS[row["way"]], "yes" if row["exclude_seen"] else "no", row["clients"]]
        cells += [f"{row['per_s']:,.0f}", *(f"{row[p]:.1f}" for p in ("p50", "p90", "p99")), f"{row['cpu_ms']:.2f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "| server | start to first answer, s | resident memory under load, MiB |", "|---|---|---|"]
    for way, last in {row["way"]: row for row in rows}.items():
        lines.append(f"| {WAYS[way]} | {last['start_s']:.1f} | {last['memory_mib']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--recommender", choices=MODELS, default="knn_recommender")
    parser.add_argument("--write", action="store_true", help="write the table into docs/performance.md")
    asked = parser.parse_args()
    rows = run(asked.seconds, asked.recommender)
    name = asked.recommender.removesuffix("_recommender")
    by = {(row["way"], row["exclude_seen"], row["clients"]): row for row in rows}
    for clients in CLIENTS:
        ours, peer = by["ours", False, clients], by["one_by_one", False, clients]
        more = {name: ours[name] for name in ("p50", "p90", "p99")}
        ratio = ours["per_s"] / peer["per_s"]
        print_result(
            f"serving_{name}_{clients}_clients", ours["per_s"], "requests/s", WAYS["one_by_one"], ratio, **more
        )
    if naive := by.get(("naive", False, 32)):
        ours = by["ours", False, 32]
        ratio = ours["per_s"] / naive["per_s"]
        print_result("serving_32_clients_naive", ours["per_s"], "requests/s", WAYS["naive"], ratio)
    if asked.write:
        begin, end = f"<!-- serving {name}: written by benchmarks/serving.py -->", f"<!-- end of serving {name} -->"
        before, rest = DOCUMENT.read_text().split(begin, 1)
        replace_file(DOCUMENT, f"{before}{begin}\n{table(rows)}\n{end}{rest.split(end, 1)[1]}".encode())


if __name__ == "__main__":
    main()
