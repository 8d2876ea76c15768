"""kill -9 and Ctrl-C anywhere from loading to serving: what is made afterwards is what would have been.

A kill comes at a random moment (seeded) after the first trace of a stage; killed while landing: ``data/landing``.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import duckdb
import numpy as np
import pytest
from forked_cli import ForkedRun
from whole_shop import Shop, free_port, make_source, open_instance

from bigger_boat.data.landing import land
from bigger_boat.demo import SELECTION
from bigger_boat.resources.duckdb_warehouse import DuckDBWarehouse
from bigger_boat.serving import client
from bigger_boat.settings import PROJECT_DIR

DATASETS = "+recommendation_dataset or +intent_dataset"
RAW = ("raw.browsing_train", "raw.search_train", "raw.sku_to_content")
MARTS = ("distinct_events", "session_stats", "sessions", "cart_sessions", "products")
OF_A_DATASET = ("days", "inputs", "rows", "schema", "checks", "files")
ENDED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
TRAIN_AGAIN = Path(__file__).with_name("train_again.py")


@pytest.fixture(scope="module")
def landed(tmp_path_factory) -> Path:
    """The data folder of a small shop, landed."""
    folder = tmp_path_factory.mktemp("landed")
    source = make_source(folder / "source", sessions=1_500, days=7, products=120)
    land(source, folder / "data" / "landing", now=datetime(2026, 11, 1, tzinfo=UTC))
    return folder / "data"


@pytest.fixture(scope="module")
def undisturbed(landed, forked, tmp_path_factory) -> Path:
    root = Path(shutil.copytree(landed, tmp_path_factory.mktemp("undisturbed") / "data"))
    code, said = forked.run(root, "run", "--select", DATASETS)
    assert code == 0, said
    return root


@pytest.mark.slow
def test_killed_in_loading_dbt_and_data_sets(landed, undisturbed, forked, tmp_path):
    """One data folder: three runs that are killed, each going on where the last one was, and one that ends."""
    root = Path(shutil.copytree(landed, tmp_path / "data"))
    chance = random.Random(3)
    killed = [
        forked.start(root, "run", "--select", DATASETS).kill_after(trace, at_most_s, chance)
        for trace, at_most_s in (
            (has_made("raw/sku_to_content"), 0.6),
            (has_made("raw/search_train"), 2),
            (lambda _: drafts(root), 0.5),
        )
    ]
    code, said = forked.run(root, "run", "--select", DATASETS)
    assert code == 0, said
    assert any(killed)
    assert said.count("had lost its process: marked failed, its slots freed.") == killed[-1]
    assert_same_tables_and_datasets(root, undisturbed)
    assert_nothing_hangs(root)
    code, said = forked.run(root, "run", "--select", DATASETS)
    assert code == 0
    assert "Everything selected is up to date" in said


@pytest.mark.slow
def test_killed_while_steps_run_in_processes_of_their_own(landed, undisturbed, forked, tmp_path):
    root = Path(shutil.copytree(landed, tmp_path / "data"))
    arguments = ("run", "--select", DATASETS, "--max-workers", "2")
    run = forked.start(root, *arguments)
    assert run.kill_after(has_made("raw/search_train"), 2, random.Random(5))
    code, said = forked.run(root, *arguments)
    assert code == 0, said
    assert_same_tables_and_datasets(root, undisturbed)
    assert_nothing_hangs(root)


def test_ctrl_c_stops_cleanly_and_lets_the_next_one_in(landed, undisturbed, forked, tmp_path):
    root = Path(shutil.copytree(landed, tmp_path / "data"))
    first = forked.start(root, "run", "--select", DATASETS, "--max-workers", "2")
    first.wait_for(has_made("raw/search_train"))
    second = forked.start(root, "run", "--select", DATASETS)
    second.wait_for(lambda run: "Waiting for " in run.said)
    os.kill(first.pid, signal.SIGINT)
    assert first.wait() == 130, first.said
    assert "Stopped. What is done stays done: the same command goes on from there." in first.said
    assert "Traceback" not in first.said
    assert second.wait() == 0, second.said
    assert f"Waiting for process {first.pid} since " in second.said
    assert "had lost its process" not in second.said
    assert_same_tables_and_datasets(root, undisturbed)
    assert_nothing_hangs(root)
    assert_no_process_left(root)


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_from_its_last_epoch(tmp_path):
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    first = start_training(checkpoints)
    heard = [first.stdout.readline().strip() for _ in range(2)]
    time.sleep(random.Random(7).uniform(0, 0.1))
    first.kill()
    heard += first.communicate(timeout=30)[0].split("\n")
    done = len([line for line in heard if line.startswith("epoch")])
    assert heard[:2] == ["epoch 1", "epoch 2"]
    assert done < 6, "it was killed too late"
    second = start_training(checkpoints, tmp_path / "apart")
    *epochs, difference = second.communicate(timeout=120)[0].splitlines()
    # an epoch that was saved may not have been told
    assert epochs in ([f"epoch {number}" for number in range(first_one, 7)] for first_one in (done + 1, done + 2))
    assert float(difference.split()[1]) <= 1e-6
    assert not list(checkpoints.iterdir())


def start_training(*folders: Path) -> subprocess.Popen:
    environ = {**os.environ, "PYTHONPATH": str(PROJECT_DIR), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(TRAIN_AGAIN), *map(str, folders)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ)


@pytest.mark.slow
def test_killed_in_training_publishing_and_serving(shop, snapshot, forked):
    """A champion is fitted again and published where nothing was published, beside a server that is killed as well."""
    shutil.rmtree(shop.root / "endpoints")
    before = golden(shop, "intent")
    arguments = ("run", "--select", "intent_champion or intent_endpoint", "--force")
    server = forked.start(shop.root, "serve", "--port", str(free_port()))
    chance = random.Random(11)
    training = forked.start(shop.root, *arguments)
    in_training = training.kill_after(lambda _: [*shop.root.glob("checkpoints/*/*")], 0.5, chance)
    publishing = forked.start(shop.root, *arguments)
    in_publishing = publishing.kill_after(lambda _: (shop.root / "endpoints/intent/versions").exists(), 0.1, chance)
    assert server.kill()
    assert in_training or in_publishing
    code, said = forked.run(shop.root, *arguments)
    assert code == 0, said

    assert_same_answers(golden(shop, "intent"), before)
    port = free_port()
    server = forked.start(shop.root, "serve", "--port", str(port))
    url = f"http://127.0.0.1:{port}"
    client.wait_until_up(url)
    served = [
        {**entry, "predictions": client.post_invocations(url, "intent", entry["request"])["predictions"]}
        for entry in before
    ]
    assert_same_answers(served, before)
    os.kill(server.pid, signal.SIGTERM)
    assert server.wait() == 0, server.said
    assert not [*shop.root.glob("checkpoints/*/*")]
    assert_nothing_hangs(shop.root)


@pytest.mark.slow
def test_killed_ten_times_on_the_way_through_the_whole_graph(snapshot, forked, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(snapshot / "landing", root / "landing")
    chance = random.Random(2026)
    made = ("run", "--select", SELECTION)
    killed = [forked.start(root, *made).kill_after(lambda run: "Graph" in run.said, 11, chance) for _ in range(10)]
    assert any(killed)
    code, said = forked.run(root, *made)
    assert code == 0, said
    assert_same_tables_and_datasets(root, snapshot)
    assert_nothing_hangs(root)
    ours, theirs = Shop(root), Shop(snapshot)
    for name in ("intent", "recommendation"):
        assert_same_answers(golden(ours, name), golden(theirs, name))
        assert ours.current(name)
    ours.instance.dispose()
    theirs.instance.dispose()


def has_made(asset: str) -> Callable[[ForkedRun], bool]:
    return lambda run: f"✓ {asset}" in run.said


def drafts(root: Path) -> list[Path]:
    return [*root.glob("*/*/.draft-*"), *root.glob("*/.draft-*")]


def golden(shop: Shop, name: str) -> list[dict]:
    return json.loads((shop.folder(f"{name}_champion") / "golden.json").read_text())


def assert_same_answers(ours: list[dict], theirs: list[dict]) -> None:
    assert [entry["request"] for entry in ours] == [entry["request"] for entry in theirs]
    for one, other in zip(ours, theirs, strict=True):
        for got, expected in zip(one["predictions"], other["predictions"], strict=True):
            assert got.keys() == expected.keys()
            for field in {"scores", "purchase_probability"} & got.keys():
                np.testing.assert_allclose(got[field], expected[field], atol=1e-3)


def assert_same_tables_and_datasets(root: Path, undisturbed: Path) -> None:
    assert tables(root) == tables(undisturbed)
    for name in ("intent_dataset", "recommendation_dataset"):
        ours, theirs = manifest(root, name), manifest(undisturbed, name)
        assert {field: ours[field] for field in OF_A_DATASET} == {field: theirs[field] for field in OF_A_DATASET}


def tables(root: Path) -> dict[str, tuple[int, str]]:
    """Return the number of rows of each table, and a digest of them, whatever their order."""
    query = "select count(*), md5(string_agg(row, chr(10) order by row)) from (select {0}::text as row from {1} as {0})"
    DuckDBWarehouse(path=str(root / "warehouse.duckdb")).prepare()  # a folder that was moved since: it finds its files
    with duckdb.connect(str(root / "warehouse.duckdb"), read_only=True) as connection:
        found = {name: connection.execute(query.format("t", name)).fetchone() for name in RAW + MARTS}
    assert all(rows for rows, _ in found.values())
    return found


def manifest(root: Path, name: str) -> dict:
    address = json.loads((root / "addresses" / f"{name}.json").read_text())["address"]
    return json.loads((root / address / "dataset.json").read_text())


def assert_nothing_hangs(root: Path) -> None:
    """No draft is left, no run looks alive, and the warehouse's slot is free."""
    assert not drafts(root)
    with open_instance(root) as instance:
        assert {run.status for run in instance.get_runs()} <= ENDED
        assert not instance.event_log_storage.get_concurrency_info("warehouse").active_slot_count


def assert_no_process_left(root: Path) -> None:
    """No process works on the data folder, ten seconds later at the latest."""
    deadline = time.monotonic() + 10
    while left := [pid for pid in Path("/proc").iterdir() if pid.name.isdigit() and works_on(root, pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def works_on(root: Path, process: Path) -> bool:
    try:
        return any(str(root) in os.readlink(handle) for handle in (process / "fd").iterdir())
    except OSError:
        return False
