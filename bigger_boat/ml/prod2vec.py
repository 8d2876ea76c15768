"""Prod2Vec: products as vectors, learned by gensim's skip-gram from the order in which shoppers look at them.

What belongs here: the configuration, training, and the vectors with their files. What does not: recommendations made
from them (``knn_recommender.py``), pictures of them (``recommendation_plots.py``).
Sources: Grbovic et al. 2015 (prod2vec); Caselles-Dupre et al. 2018 (its hyper-parameters).
"""

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bigger_boat.errors import TrainingError
from bigger_boat.ml.item_sequences import ItemSequences, ItemVocabulary
from bigger_boat.ml.ranking import top_k

VECTORS_FILE, PRODUCTS_FILE, MANIFEST_FILE = "vectors.npy", "products.parquet", "embeddings.json"

Progress = Callable[[int, int], None]
"""Called with (epochs done, epochs in all)."""


@dataclass(frozen=True)
class Prod2VecConfig:
    """How to train. ``seed`` set: the same vectors every time, by one worker; ``seed`` None: ``workers`` threads.

    ``sample`` is gensim's downsampling of frequent products (0: none), ``ns_exponent`` the power of the counts by
    which negatives are drawn. There is no minimum count: every training product gets a vector.
    """

    dim: int = 48
    window: int = 5
    epochs: int = 30
    negative: int = 10
    ns_exponent: float = 0.75
    sample: float = 0.0
    learning_rate: float = 0.05
    seed: int | None = 0
    workers: int = 2

    @classmethod
    def quick(cls) -> "Prod2VecConfig":
        """Small and short, for a first run."""
        return cls(dim=32, epochs=10, negative=5)

    @classmethod
    def full(cls) -> "Prod2VecConfig":
        """The size that is deployed."""
        return cls()


@dataclass(frozen=True)
class ProductEmbeddings:
    """A vector per training product, rows by falling count, ties by SKU. counts int64 (V,), vectors float32 (V, D)."""

    skus: list[str]
    counts: np.ndarray
    vectors: np.ndarray

    @cached_property
    def vocabulary(self) -> ItemVocabulary:
        return ItemVocabulary(self.skus, self.counts)

    @cached_property
    def digest(self) -> str:
        """Return what tells these embeddings from others: a hash of products and vectors."""
        return hashlib.sha256("\n".join(self.skus).encode() + self.vectors.tobytes()).hexdigest()[:16]

    @cached_property
    def unit_vectors(self) -> np.ndarray:
        """Vectors of length 1, float32 (V, D)."""
        return unit(self.vectors)

    def neighbours(self, sku: str, n: int = 10) -> list[tuple[str, float]]:
        """Return the ``n`` products nearest to ``sku`` by cosine, without itself; ``KeyError`` if it has no vector."""
        row = self.vocabulary.rows[sku]
        cosines = self.unit_vectors @ self.unit_vectors[row]
        cosines[row] = -np.inf
        rows = top_k(cosines[None], min(n, len(self.skus) - 1))[0]
        return [(self.skus[other], float(cosines[other])) for other in rows]

    def map_2d(self) -> np.ndarray:
        """Return float64 (V, 2): the first two principal components of the unit vectors, signs fixed."""
        centred = self.unit_vectors.astype(np.float64) - self.unit_vectors.mean(axis=0)
        _, _, axes = np.linalg.svd(centred.T @ centred)
        axes = axes[:2] * np.sign(axes[:2][np.arange(len(axes[:2])), np.abs(axes[:2]).argmax(axis=1)])[:, None]
        points = np.zeros((len(centred), 2))
        points[:, : len(axes)] = centred @ axes.T
        return points

    def save(self, directory: Path) -> dict[str, str]:
        """Write vectors, products and, last, a manifest into ``directory``; return the sha256 of each data file."""
        import polars as pl

        directory.mkdir(parents=True, exist_ok=True)
        vectors, products = io.BytesIO(), io.BytesIO()
        np.save(vectors, self.vectors, allow_pickle=False)
        pl.DataFrame({"sku": self.skus, "count": self.counts}).write_parquet(products)
        files = {VECTORS_FILE: vectors.getvalue(), PRODUCTS_FILE: products.getvalue()}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        manifest = {"products": len(self.skus), "dim": int(self.vectors.shape[1]), "files": digests}
        for name, content in (*files.items(), (MANIFEST_FILE, json.dumps(manifest, indent=2).encode())):
            _write_atomically(directory / name, content)
        return digests

    @classmethod
    def load(cls, directory: Path) -> "ProductEmbeddings":
        """Read what ``save`` wrote. Raises ``TrainingError`` if a file is missing or altered."""
        import polars as pl

        try:
            manifest = json.loads((directory / MANIFEST_FILE).read_text())
            contents = {name: (directory / name).read_bytes() for name in (VECTORS_FILE, PRODUCTS_FILE)}
        except (OSError, ValueError) as error:
            raise _damaged(directory, str(error)) from error
        for name, content in contents.items():
            if hashlib.sha256(content).hexdigest() != manifest.get("files", {}).get(name):
                raise _damaged(directory, f"the digest of {name} differs from its manifest")
        products = pl.read_parquet(io.BytesIO(contents[PRODUCTS_FILE]))
        vectors = np.load(io.BytesIO(contents[VECTORS_FILE]), allow_pickle=False)
        return cls(products["sku"].to_list(), products["count"].to_numpy(), vectors)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale each row to length 1; a zero row stays zero."""
    squares = np.sum(np.square(vectors, dtype=np.float32), axis=-1, keepdims=True)
    return vectors / np.sqrt(np.maximum(squares, np.float32(1e-12)))


def train_prod2vec(
    sequences: Iterable[Sequence[str]], config: Prod2VecConfig, progress: Progress | None = None
) -> ProductEmbeddings:
    """Train on the items of sessions. Any SKU is safe (gensim sees row numbers); same seed, same bytes.

    A product never seen beside another has nothing to learn from and gets the mean vector, weighted by counts.
    Raises ``TrainingError`` if no session has two items.
    """
    sessions = [items for items in sequences if len(items)]
    vocabulary = ItemVocabulary.of(sessions)
    encoded = vocabulary.encode(sessions)
    beside_another = np.repeat(np.diff(encoded.offsets) > 1, np.diff(encoded.offsets))
    if not beside_another.any():
        raise TrainingError("Expected training sessions with two products or more and found none.", "Land more days.")
    learned = np.zeros(len(vocabulary), dtype=bool)
    learned[encoded.rows[beside_another]] = True
    vectors = _skip_gram(encoded, vocabulary.counts, config, progress)
    vectors[~learned] = np.average(vectors[learned], axis=0, weights=vocabulary.counts[learned])
    return ProductEmbeddings(vocabulary.skus, vocabulary.counts, vectors)


def _skip_gram(
    encoded: ItemSequences, counts: np.ndarray, config: Prod2VecConfig, progress: Progress | None
) -> np.ndarray:
    """Return float32 (V, D), rows as in ``encoded``. gensim's fast path reads a file of one sentence per line."""
    from gensim.models import Word2Vec

    model = Word2Vec(
        vector_size=config.dim,
        window=config.window,
        negative=config.negative,
        ns_exponent=config.ns_exponent,
        sample=config.sample,
        alpha=config.learning_rate,
        sg=1,
        min_count=1,
        seed=config.seed or 0,
        workers=1 if config.seed is not None else config.workers,
        hashfxn=_stable_hash,
        epochs=config.epochs,
    )
    model.build_vocab_from_freq({str(row): int(count) for row, count in enumerate(counts)}, corpus_count=len(encoded))
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.txt"
        lines, words = _write_corpus(encoded, corpus)
        model.train(
            corpus_file=str(corpus),
            total_examples=lines,
            total_words=words,
            epochs=config.epochs,
            callbacks=[_epoch_callback(progress, config.epochs)] if progress else (),
        )
    order = np.array([model.wv.key_to_index[str(row)] for row in range(len(counts))])
    return model.wv.vectors[order].astype(np.float32)


def _write_corpus(encoded: ItemSequences, path: Path) -> tuple[int, int]:
    lines = words = 0
    with path.open("w") as file:
        for start, end in zip(encoded.offsets[:-1].tolist(), encoded.offsets[1:].tolist(), strict=True):
            if end - start > 1:
                file.write(" ".join(map(str, encoded.rows[start:end].tolist())) + "\n")
                lines, words = lines + 1, words + end - start
    return lines, words


def _epoch_callback(progress: Progress, epochs: int):
    from gensim.models.callbacks import CallbackAny2Vec

    class ReportEpoch(CallbackAny2Vec):
        done = 0

        def on_epoch_end(self, model) -> None:  # noqa: ARG002
            self.done += 1
            progress(self.done, epochs)

    return ReportEpoch()


def _stable_hash(text: str) -> int:
    """Python's own hash of a string differs between processes."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def _write_atomically(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)


def _damaged(directory: Path, reason: str) -> TrainingError:
    return TrainingError(
        f"Expected product embeddings in {directory}: {reason}.", "Materialize product_embeddings again."
    )
