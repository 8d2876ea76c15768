"""Two landings at once, kills and full disks: the landing zone is as before or complete, never between."""

import errno
import json
import os
import signal
import zipfile

import polars as pl
import pytest
from landing_children import die_landing, land_with_little_room, start_landing
from landing_source import DAY_MS, DAY_ONE_MS, NOW, browsing, only_browsing, product

from bigger_boat.data import landing_store
from bigger_boat.data.landing import land
from bigger_boat.data.landing_index import read_index
from bigger_boat.errors import LandingError


def state(root):
    """All files but the lock, with their content; the index is the commit."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def source(tmp_path):
    rows = [product(f"s{i}", "add", f"p{i % 7}", DAY_ONE_MS + i * DAY_MS // 10) for i in range(40)]
    return only_browsing(tmp_path / "source", [*rows, browsing(ms="bad")])


@pytest.fixture
def undisturbed(tmp_path, source):
    land(source, tmp_path / "undisturbed", now=NOW)
    return state(tmp_path / "undisturbed")


def test_two_landings_at_once_both_land(tmp_path, root):
    rows = {name: [browsing(f"{name}{i}", ms=DAY_ONE_MS + i) for i in range(2000)] for name in "ab"}
    with landing_store.landing_lock(root):
        waiting = [start_landing(only_browsing(tmp_path / name, rows[name]), root) for name in rows]
        told = [hear.recv() for _, hear in waiting]
    for process, _ in waiting:
        process.join(60)

    assert [process.exitcode for process, _ in waiting] == [0, 0]
    assert told == [f"waiting for another landing (process {os.getpid()})"] * 2
    assert read_index(root).days["2026-01-05"].rows["browsing"] == 4000


def test_killed_at_any_write_and_landed_again_equals_undisturbed(tmp_path, source, undisturbed):
    writes = 26
    for write in (1, 2, 5, 9, 14, 18, writes):
        root = tmp_path / f"killed-{write}"
        assert die_landing(source, root, write) == -signal.SIGKILL
        assert not (root / "index.json").exists() or state(root)["index.json"] == undisturbed["index.json"]

        land(source, root, now=NOW)

        assert state(root) == undisturbed, write


def test_killed_while_reading_and_landed_again_equals_undisturbed(tmp_path, root):
    rows = [browsing(f"{i:064x}", ms=DAY_ONE_MS + i * 1000) for i in range(200_000)]
    source = only_browsing(tmp_path / "source", rows)
    land(source, tmp_path / "undisturbed", now=NOW)
    process, hear = start_landing(source, root)
    hear.recv()
    process.kill()
    process.join()
    assert list((root / "_staging").iterdir()), "it was killed too late to leave anything"
    assert not (root / "index.json").exists()

    land(source, root, now=NOW)

    assert state(root) == state(tmp_path / "undisturbed")


def test_a_kill_while_adding_leaves_the_old_state_in_force(tmp_path, source, root):
    land(only_browsing(tmp_path / "first", [browsing("old")]), root, now=NOW)
    before = read_index(root)

    assert die_landing(source, root, 8) == -signal.SIGKILL

    assert read_index(root) == before


@pytest.mark.parametrize("nth", [1, 3, 6, 10])
def test_a_full_disk_is_named_and_nothing_is_lost(tmp_path, source, root, monkeypatch, nth):
    land(only_browsing(tmp_path / "first", [browsing("old")]), root, now=NOW)
    before, calls, fsync = state(root), [], os.fsync

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LandingError, match="No space left on device") as caught:
        land(source, root, now=NOW)

    assert "Make room" in caught.value.hint
    assert {path: content for path, content in state(root).items() if path in before} == before
    assert read_index(root).days["2026-01-05"].rows["browsing"] == 1
    monkeypatch.setattr(os, "fsync", fsync)
    assert land(source, root, now=NOW).landed == 40


@pytest.mark.parametrize("packing", ["csv", "parquet in a zip"])
def test_a_file_that_cannot_be_written_to_its_end_is_named_and_nothing_is_lost(tmp_path, source, root, packing):
    """The system itself refuses the write, in the midst of a file: of a day, or of what a .zip is unpacked to."""
    land(only_browsing(tmp_path / "first", [browsing("old")]), root, now=NOW)
    before = state(root)
    if packing != "csv":
        pl.read_csv(source / "browsing_train.csv", infer_schema=False).write_parquet(tmp_path / "table.parquet")
        source = tmp_path / "challenge.zip"
        with zipfile.ZipFile(source, "w") as archive:
            archive.write(tmp_path / "table.parquet", "browsing_train.parquet")

    said = land_with_little_room(source, root, largest_bytes=1000)

    assert f"The landing zone {root} cannot be written: " in said
    assert "File too large" in said
    assert "Make room" in said
    assert state(root) == before
    assert land_with_little_room(source, root, largest_bytes=1 << 20) == "landed"
    assert read_index(root).days["2026-01-05"].rows["browsing"] > 1


def test_manifests_are_append_only(tmp_path, root):
    seen = {}
    for i in range(3):
        land(only_browsing(tmp_path / str(i), [browsing(f"s{i}")]), root, now=NOW)
        manifests = {path: json.loads(path.read_text()) for path in (root / "_manifests").rglob("*.json")}
        assert seen.items() <= manifests.items()
        seen = manifests

    assert sorted(path.name for path in seen) == ["000001.json", "000002.json", "000003.json"]
    assert [len(manifest["files"]["browsing"]) for _, manifest in sorted(seen.items())] == [1, 2, 3]
