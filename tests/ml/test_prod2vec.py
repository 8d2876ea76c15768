"""Prod2Vec learns who stands beside whom, the same every time, for every product."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from bigger_boat.errors import TrainingError
from bigger_boat.ml.prod2vec import PRODUCTS_FILE, VECTORS_FILE, Prod2VecConfig, ProductEmbeddings, train_prod2vec

CONFIG = Prod2VecConfig(dim=16, epochs=12, negative=5)


def two_worlds(sessions=600, seed=0):
    """Sessions that stay among shoes or among hats; a SKU may hold blanks and line breaks."""
    generator = np.random.default_rng(seed)
    worlds = [[f"shoe {i}\n" for i in range(12)], [f"hat {i}" for i in range(12)]]
    return [list(generator.choice(worlds[n % 2], size=generator.integers(2, 7))) for n in range(sessions)]


@pytest.fixture(scope="module")
def embeddings():
    return train_prod2vec([*two_worlds(), ["alone"], []], CONFIG)


def test_every_training_product_has_a_vector_in_vocabulary_order(embeddings):
    counts = Counter(item for items in [*two_worlds(), ["alone"]] for item in items)
    assert embeddings.skus == sorted(counts, key=lambda sku: (-counts[sku], sku))
    assert embeddings.counts.tolist() == [counts[sku] for sku in embeddings.skus]
    assert embeddings.vectors.shape == (25, 16)
    assert embeddings.vectors.dtype == np.float32
    assert np.isfinite(embeddings.vectors).all()


def test_neighbours_are_from_the_same_world_and_never_the_product_itself(embeddings):
    for sku in ("shoe 3\n", "hat 5"):
        nearest = embeddings.neighbours(sku, n=8)
        assert {other[:3] for other, _ in nearest} == {sku[:3]}
        assert sku not in dict(nearest)
        assert [cosine for _, cosine in nearest] == sorted((cosine for _, cosine in nearest), reverse=True)
    assert len(embeddings.neighbours("hat 5", n=99)) == 24


def test_a_product_seen_only_alone_gets_the_mean_vector(embeddings):
    row = embeddings.vocabulary.rows["alone"]
    others = np.arange(25) != row
    mean = np.average(embeddings.vectors[others], axis=0, weights=embeddings.counts[others])
    assert embeddings.vectors[row] == pytest.approx(mean, abs=1e-5)


def test_the_map_has_the_largest_spreads_first(embeddings):
    points = embeddings.map_2d()
    unit = embeddings.unit_vectors.astype(np.float64)
    spreads = np.sort(np.linalg.eigvalsh(np.cov(unit.T)))[::-1]
    assert points.var(axis=0, ddof=1) == pytest.approx(spreads[:2])
    assert points.mean(axis=0) == pytest.approx([0, 0], abs=1e-6)


def test_the_map_of_a_single_dimension():
    embeddings = ProductEmbeddings(["a", "b"], np.array([2, 1]), np.array([[1.0], [-1.0]], dtype=np.float32))
    assert np.abs(embeddings.map_2d()).tolist() == [[1, 0], [1, 0]]


def test_what_is_saved_is_what_is_loaded(embeddings, tmp_path):
    digests = embeddings.save(tmp_path)
    loaded = ProductEmbeddings.load(tmp_path)
    assert loaded.skus == embeddings.skus
    assert (loaded.counts == embeddings.counts).all()
    assert (loaded.vectors == embeddings.vectors).all()
    assert embeddings.save(tmp_path / "again") == digests
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == sorted([*digests, "embeddings.json"])


@pytest.mark.parametrize("name", [VECTORS_FILE, PRODUCTS_FILE])
def test_an_altered_or_missing_file_is_refused(embeddings, tmp_path, name):
    embeddings.save(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainingError, match=f"digest of {name}"):
        ProductEmbeddings.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(TrainingError, match="Materialize product_embeddings again"):
        ProductEmbeddings.load(tmp_path)


def test_progress_is_told_after_each_epoch():
    seen = []
    train_prod2vec(two_worlds(40), Prod2VecConfig(dim=4, epochs=3), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_without_a_session_of_two_items_there_is_nothing_to_learn():
    with pytest.raises(TrainingError, match="two products or more"):
        train_prod2vec([["a"], ["b"]], CONFIG)
    with pytest.raises(TrainingError, match="found none"):
        train_prod2vec([], CONFIG)


DIGEST_OF_TRAINING = """
import hashlib, json, sys
from bigger_boat.ml.prod2vec import Prod2VecConfig, train_prod2vec
vectors = train_prod2vec(json.load(sys.stdin), Prod2VecConfig(dim=8, epochs=3, seed=int(sys.argv[1]))).vectors
print(hashlib.sha256(vectors.tobytes()).hexdigest())
"""


def test_the_same_seed_gives_the_same_bytes_in_any_process():
    sequences = two_worlds(80)

    def digest(seed, hash_seed):
        return subprocess.run(
            [sys.executable, "-c", DIGEST_OF_TRAINING, str(seed)],
            input=json.dumps(sequences),
            env={"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert digest(7, hash_seed=0) == digest(7, hash_seed=1234) != digest(8, hash_seed=0)
