"""Tiny hand-made SavedModels with the contract's signature, bundles made of them, and the real server as a process."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bigger_boat.ml.bundle import Bundle, write_bundle

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

PRODUCTS = ["sku-a", "sku-b", "sku-c", "sku-d", "sku-é"]
FOLLOWS = np.array(
    [
        [0.1, 0.9, 0.5, 0.3, 0.2],
        [0.7, 0.1, 0.6, 0.2, 0.4],
        [0.2, 0.3, 0.1, 0.8, 0.5],
        [0.6, 0.4, 0.3, 0.1, 0.9],
        [0.5, 0.2, 0.8, 0.4, 0.1],
    ],
    dtype=np.float32,
)
POPULARITY = np.array([0.5, 0.4, 0.3, 0.2, 0.1], dtype=np.float32)

SERVER = """
import json, sys
from pathlib import Path
from bigger_boat.errors import BiggerBoatError
from bigger_boat.serving.collect import CollectOptions
from bigger_boat.serving.guard import Guards, ServerOptions
from bigger_boat.serving.logs import log_as_json
from bigger_boat.serving.server import run_server
mode, directory, port, told = sys.argv[1:5]
where = {"bundle_dir": Path(directory)} if mode == "bundle" else {"endpoints_dir": Path(directory)}
try:
    announce = lambda url: print(url, flush=True)
    log_as_json()
    told = json.loads(told)
    guards = Guards(**told.pop("guards", {}))
    if mode == "endpoints":
        root = Path(directory + "-events")
        told["collect"] = CollectOptions(root / "collect", root / "landing", **told.pop("collect", {}))
    options = ServerOptions(allowed_origins=("https://shop.example",), guards=guards, **told)
    run_server(**where, port=int(port), options=options, announce=announce)
except BiggerBoatError as error:
    sys.exit(f"refused: {error}")
"""


def export_recommender(directory: Path, follows: np.ndarray = FOLLOWS, popularity: np.ndarray = POPULARITY) -> None:
    """The mean of what follows each detailed product; popular products for an empty session."""
    import tensorflow as tf

    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(PRODUCTS), tf.range(len(PRODUCTS))), -1
    )
    strings = tf.TensorSpec([None, None], tf.string)

    class Recommender(tf.Module):
        def __init__(self):
            self.table = table
            self.follows = tf.Variable(follows)
            self.popularity = tf.Variable(popularity)

        @tf.function(
            input_signature=[
                strings,
                strings,
                tf.TensorSpec([None, None], tf.int64),
                tf.TensorSpec([], tf.int32),
                tf.TensorSpec([], tf.bool),
            ]
        )
        def serve(self, actions, skus, timestamps_ms, k, exclude_seen):
            ids = self.table.lookup(skus)  # (B, T)
            seen = tf.one_hot(tf.where(actions == "detail", ids, -1), len(PRODUCTS))  # (B, T, V), zero rows for -1
            counts = tf.reduce_sum(seen, axis=1)  # (B, V)
            total = tf.reduce_sum(counts, axis=1, keepdims=True)
            fallback = total[:, 0] == 0.0
            scores = tf.where(
                fallback[:, None], self.popularity[None, :], counts @ self.follows / tf.maximum(total, 1.0)
            )
            scores = tf.where(exclude_seen & (counts > 0.0), -np.float32(1e9), scores)
            top, order = tf.math.top_k(scores, tf.minimum(k, len(PRODUCTS)))
            names = tf.where(top > -1e8, tf.gather(tf.constant(PRODUCTS), order), "")
            return {"skus": names, "scores": top, "fallback": fallback, "unknown": (ids < 0) & (skus != "")}

    model = Recommender()
    tf.saved_model.save(model, str(directory), signatures={"serving_default": model.serve})


def export_intent(directory: Path, slope: float = 0.5) -> None:
    """Sigmoid of (adds - removes) * slope - 1."""
    import tensorflow as tf

    strings = tf.TensorSpec([None, None], tf.string)
    known = tf.constant(["", "view", "detail", "add", "remove", "purchase", "search", "click"])

    class Intent(tf.Module):
        @tf.function(input_signature=[strings, strings, tf.TensorSpec([None, None], tf.int64)])
        def serve(self, actions, skus, timestamps_ms):
            signs = tf.cast(actions == "add", tf.float32) - tf.cast(actions == "remove", tf.float32)
            unknown = tf.reduce_all(actions[:, :, None] != known, axis=-1)
            return {
                "purchase_probability": tf.sigmoid(tf.reduce_sum(signs, axis=1) * slope - 1.0),
                "unknown": unknown,
            }

    model = Intent()
    tf.saved_model.save(model, str(directory), signatures={"serving_default": model.serve})


def rank_offline(
    skus: list[str], k: int = 20, exclude_seen: bool = False, follows: np.ndarray = FOLLOWS
) -> dict[str, Any]:
    """The recommender in plain Python, apart from the graph."""
    seen = [PRODUCTS.index(sku) for sku in skus if sku in PRODUCTS]
    scores = POPULARITY if not seen else follows[seen].mean(axis=0)
    order = [index for index in np.argsort(-scores, kind="stable") if not (exclude_seen and index in seen)][:k]
    return {
        "skus": [PRODUCTS[index] for index in order],
        "scores": [float(scores[index]) for index in order],
        "fallback": not seen,
        "unknown_skus": list(dict.fromkeys(sku for sku in skus if sku not in PRODUCTS)),
    }


def recommendation_golden(follows: np.ndarray = FOLLOWS) -> list[dict[str, Any]]:
    sessions = [["sku-a", "sku-d"], ["sku-é"], [], ["nobody", "sku-b"]]
    return [
        {
            "request": {"sessions": sessions, "k": k, "exclude_seen": exclude},
            "predictions": [rank_offline(session, k, exclude, follows) for session in sessions],
        }
        for k, exclude in ((3, False), (5, True))
    ]


def purchase_probability(adds: int, removes: int = 0, slope: float = 0.5) -> float:
    return 1 / (1 + np.exp(1 - (adds - removes) * slope))


def intent_golden(slope: float = 0.5) -> list[dict[str, Any]]:
    events = [{"action": action} for action in ("view", "add", "hover", "add", "remove")]
    predictions = [{"purchase_probability": purchase_probability(2, 1, slope), "unknown_actions": ["hover"]}]
    return [{"request": {"sessions": [events]}, "predictions": predictions}]


def make_bundle(
    root: Path, name: str, export: Callable[[Path], object], golden: list[dict[str, Any]], **info: Any
) -> Bundle:
    told = {"metrics": {"MRR@20": 0.3}, **info}
    return write_bundle(root, name=name, kind="tiny", export=export, golden=golden, info=told)


def knn_bundle(root: Path, seed: int, *, products: int, dimensions: int, k: int = 10) -> Bundle:
    """A real recommender with random vectors: what a swap forgets to free is megabytes, and shows."""
    from bigger_boat.ml.knn_recommender import KnnConfig, KnnModel
    from bigger_boat.ml.prod2vec import ProductEmbeddings
    from bigger_boat.ml.recommender_export import export_knn

    generator = np.random.default_rng(seed)
    skus = [f"{number:064d}" for number in range(products)]
    counts = np.arange(products, 0, -1, dtype=np.int64)
    vectors = generator.normal(size=(products, dimensions)).astype(np.float32)
    model = KnnModel(ProductEmbeddings(skus, counts, vectors), KnnConfig())
    sessions = np.random.default_rng(0).integers(0, products, (4, 3)).astype(np.int32)
    rows, scores = model.rank_rows(sessions[:, ::-1].copy(), k, False)
    golden = [
        {
            "request": {"sessions": [[skus[row] for row in session]], "k": k},
            "predictions": [
                {"skus": [skus[row] for row in ranked], "scores": s, "fallback": False, "unknown_skus": []}
            ],
        }
        for session, ranked, s in zip(sessions, rows, scores.tolist(), strict=True)
    ]

    def export(directory: Path) -> None:
        export_knn(model, directory)

    return write_bundle(root, name="recommendation", kind="knn_recommender", export=export, golden=golden, info={})


class Server:
    """The real server in a process of its own. ``told`` are ServerOptions, ``guards`` among them; ``log`` its log."""

    def __init__(self, mode: str, directory: Path, port: int = 0, **told: Any):
        self.directory = directory
        self._log = tempfile.NamedTemporaryFile("w+", prefix="server-log-")  # noqa: SIM115  (it lives as long as the server)
        command = [sys.executable, "-c", SERVER, mode, str(directory), str(port), json.dumps(told)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        self.url = self.process.stdout.readline().strip()
        self.port = int(self.url.rpartition(":")[2] or 0)

    def log(self) -> str:
        """Return what the server has written so far."""
        return Path(self._log.name).read_text()

    def memory_mib(self) -> float:
        return psutil.Process(self.process.pid).memory_info().rss / 2**20

    def open_files_at_rest(self, timeout_s: float = 60.0) -> int:
        """Return how many files and sockets the process holds, once no client is connected and the number stays."""
        process, end, counts = psutil.Process(self.process.pid), time.monotonic() + timeout_s, []
        while len(counts) < 5 or len(set(counts[-5:])) > 1:
            assert time.monotonic() < end, f"connections stay open, or files come and go: {counts[-5:]}"
            time.sleep(0.2)
            connected = [one for one in process.net_connections("tcp") if one.status != psutil.CONN_LISTEN]
            counts = [] if connected else [*counts, process.num_fds()]
        return counts[-1]

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def wait_for_log_lines(self, timeout_s: float = 30.0, **having: Any) -> list[dict[str, Any]]:
        """Return the lines with these values; a line is written after its request is answered."""
        end = time.monotonic() + timeout_s
        while True:
            lines = [line for line in self.log_lines() if having.items() <= line.items()]
            if lines or time.monotonic() > end:
                return lines
            time.sleep(0.05)

    def stop(self) -> int:
        self.process.terminate()
        return self.wait()

    def wait(self, timeout_s: float = 30.0) -> int:
        try:
            return self.process.wait(timeout_s)
        finally:
            if self.process.poll() is None:
                self.process.kill()


@contextmanager
def serve_tiny_models(folder: Path, **told: Any) -> Iterator[Server]:
    """Serve a recommender and an intent model from a data directory under ``folder``."""
    from bigger_boat.resources.local_endpoint_host import LocalEndpointHost
    from bigger_boat.serving import client

    host = LocalEndpointHost(endpoints_dir=str(folder / "endpoints"))
    recommender = make_bundle(folder / "bundles", "recommendation", export_recommender, recommendation_golden())
    host.publish("recommendation", recommender.directory)
    host.publish("intent", make_bundle(folder / "bundles", "intent", export_intent, intent_golden()).directory)
    server = Server("endpoints", folder / "endpoints", **told)
    try:
        client.wait_until_up(server.url)
        yield server
    finally:
        server.stop()


def copy_bundle(bundle: Bundle, directory: Path) -> Path:
    return Path(shutil.copytree(bundle.directory, directory))


def flip_byte(path: Path, position: int = 100) -> None:
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1
    path.write_bytes(content)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
