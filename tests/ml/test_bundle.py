"""Bundles: whole or not at all, and every way of altering one is noticed. No TensorFlow: digests know no models."""

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from bigger_boat.errors import BundleError
from bigger_boat.ml import bundle as bundle_module
from bigger_boat.ml.bundle import CONTRACT_VERSION, Bundle, new_version, read_bundle, write_bundle

NOW = datetime(2026, 11, 23, 9, 30, 12, 123456, tzinfo=UTC)
GOLDEN = [{"request": {"sessions": [[]]}, "predictions": [{"skus": ["a"], "scores": [0.5], "fallback": True}]}]


def export(directory: Path) -> None:
    (directory / "variables").mkdir(parents=True)
    (directory / "assets").mkdir()
    (directory / "saved_model.pb").write_bytes(b"a graph" * 100)
    (directory / "variables" / "variables.index").write_bytes(bytes(range(256)))


def write(root: Path, **changes) -> Bundle:
    arguments = {"name": "intent", "kind": "lstm", "export": export, "golden": GOLDEN, "now": NOW}
    return write_bundle(
        root, **{**arguments, "info": {"metrics": {"PR-AUC": np.float32(0.5)}, "day": NOW.date()}, **changes}
    )


def rewrite_description(directory: Path, **changes) -> None:
    """Change bundle.json and seal it again, as an older or newer program would have written it."""
    described = json.loads((directory / "bundle.json").read_text())
    described.pop("digest")
    (directory / "bundle.json").write_bytes(bundle_module._sealed({**described, **changes}))


def test_what_is_written_is_read_back(tmp_path):
    written = write(tmp_path)
    again = read_bundle(written.directory)
    assert again == written
    assert written.directory == tmp_path / written.version / "bundle"
    assert (again.name, again.kind, again.contract_version) == ("intent", "lstm", CONTRACT_VERSION)
    assert again.info == {"metrics": {"PR-AUC": 0.5}, "day": "2026-11-23"}
    assert again.golden == GOLDEN
    assert set(again.files) == {"1/saved_model.pb", "1/variables/variables.index", "golden.json"}
    assert again.files["1/saved_model.pb"] == hashlib.sha256(b"a graph" * 100).hexdigest()
    described = json.loads((written.directory / "bundle.json").read_text())
    assert {"python", "numpy", "tensorflow"} <= set(described["library_versions"])


def test_versions_sort_by_time_and_differ_by_content(tmp_path):
    assert new_version(NOW, "ab12cd34ef") == "20261123T093012123Z-ab12cd34"
    moments = [NOW + timedelta(milliseconds=step) for step in (0, 1, 900, 60_000, 86_400_000)]
    versions = [write(tmp_path, now=moment).version for moment in moments]
    assert versions == sorted(versions)
    assert write(tmp_path, kind="other").version != versions[0]


def test_writing_the_same_again_changes_nothing(tmp_path):
    first = write(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert write(tmp_path).version == first.version
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_archive_holds_the_same_files_and_is_deterministic(tmp_path):
    first, second = write(tmp_path / "one"), write(tmp_path / "two")
    assert first.archive.read_bytes() == second.archive.read_bytes()
    unpacked = tmp_path / "unpacked"
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(first.archive.read_bytes()))) as tar:
        tar.extractall(unpacked, filter="data")
    assert read_bundle(unpacked).version == first.version


def test_a_failed_export_leaves_nothing(tmp_path):
    def fail(directory: Path) -> None:
        export(directory)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        write(tmp_path, export=fail)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"golden": []}, "golden"),
        ({"golden": [{"request": {}}]}, "golden"),
        ({"name": "ranking"}, "one of recommendation, intent"),
        ({"export": lambda directory: directory.mkdir()}, "wrote no SavedModel"),
        ({"info": {"metrics": float("nan")}}, "cannot be written as JSON"),
    ],
)
def test_what_would_be_no_bundle_is_not_written(tmp_path, changes, reason):
    with pytest.raises(BundleError, match=reason):
        write(tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["1/saved_model.pb", "1/variables/variables.index", "golden.json", "bundle.json"])
def test_one_flipped_bit_anywhere_is_noticed(tmp_path, file):
    directory = write(tmp_path).directory
    content = (directory / file).read_bytes()
    step = max(1, len(content) // 40)
    for position in [*range(0, len(content), step), len(content) - 1]:
        altered = bytearray(content)
        altered[position] ^= 1
        (directory / file).write_bytes(altered)
        with pytest.raises(BundleError, match="was altered"):
            read_bundle(directory)
    (directory / file).write_bytes(content)
    read_bundle(directory)


def test_missing_and_extra_files_are_noticed(tmp_path):
    directory = write(tmp_path).directory
    (directory / "1" / "variables" / "variables.index").unlink()
    with pytest.raises(BundleError, match=r"lacks 1/variables/variables\.index"):
        read_bundle(directory)
    shutil.rmtree(tmp_path)
    directory = write(tmp_path).directory
    (directory / "1" / "notes.txt").write_text("hello")
    with pytest.raises(BundleError, match=r"holds 1/notes\.txt"):
        read_bundle(directory)
    (directory / "1" / "notes.txt").unlink()
    (directory / "link").symlink_to(directory / "golden.json")
    with pytest.raises(BundleError, match="a link"):
        read_bundle(directory)


def test_a_missing_golden_file_or_description_is_noticed(tmp_path):
    directory = write(tmp_path).directory
    (directory / "golden.json").unlink()
    with pytest.raises(BundleError, match=r"lacks golden\.json"):
        read_bundle(directory)
    files = json.loads((directory / "bundle.json").read_text())["files"]
    files.pop("golden.json")
    rewrite_description(directory, files=files)
    with pytest.raises(BundleError, match="no golden answers"):
        read_bundle(directory)
    (directory / "bundle.json").unlink()
    with pytest.raises(BundleError, match=r"no bundle\.json"):
        read_bundle(directory)


@pytest.mark.parametrize(
    ("version", "age"), [(CONTRACT_VERSION + 1, "newer"), (0, "older"), ("1", "older"), (None, "older")]
)
def test_other_contract_versions_are_not_read(tmp_path, version, age):
    directory = write(tmp_path).directory
    rewrite_description(directory, contract_version=version)
    with pytest.raises(BundleError, match=age):
        read_bundle(directory)


def test_the_version_before_is_read(tmp_path, monkeypatch):
    directory = write(tmp_path).directory
    monkeypatch.setattr(bundle_module, "CONTRACT_VERSION", 2)
    monkeypatch.setattr(bundle_module, "OLDEST_CONTRACT_VERSION", 1)
    assert read_bundle(directory).contract_version == 1
