"""A sweep on a small data set: configurations one by one in real runs, and as many side by side as are allowed."""

import json
import threading
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from bigger_boat.assets import sweeps
from bigger_boat.assets.common import EMBEDDINGS_CONFIG
from bigger_boat.automation import sweep
from bigger_boat.automation.selection import select_assets
from bigger_boat.data.dataset_manifest import CheckOutcome, describe_dataset, write_manifest
from bigger_boat.data.intent_dataset import INTENT_COLUMNS, SESSION_COLUMNS, build_intent_dataset
from bigger_boat.data.splits import split_days
from bigger_boat.definitions import build_definitions
from bigger_boat.errors import DatasetError, SettingsError
from bigger_boat.ml.prod2vec import ProductEmbeddings
from bigger_boat.resources.storage import LocalStorage
from bigger_boat.settings import Settings

FIRST, SECOND = list(sweeps.INTENT_CONFIGURATIONS)[:2]
SKUS = ["a", "b", "c"]


@pytest.fixture
def shop(tmp_path):
    """The graph over a data folder that holds a published intent data set and embeddings, and nothing else."""
    settings = Settings(_env_file=None, data_dir=tmp_path, size="quick", max_workers=1)
    storage = LocalStorage(base_dir=str(tmp_path))
    dataset = publish_dataset(storage)
    with storage.draft("embeddings/product_embeddings") as draft:
        vectors = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
        ProductEmbeddings(SKUS, np.array([3, 2, 1]), vectors).save(draft.path)
        described = {"configuration": {"dim": 4}, "recommendation_dataset": "items-1"}
        (draft.path / EMBEDDINGS_CONFIG).write_text(json.dumps(described))
    (tmp_path / "addresses").mkdir()
    for asset, address in (("intent_dataset", dataset.address), ("product_embeddings", draft.address)):
        (tmp_path / "addresses" / f"{asset}.json").write_text(json.dumps({"address": address, "run_id": ""}))
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path / "instance")) as instance:
        tags = {"dagster/data_version": dataset.manifest.data_version}
        instance.report_runless_asset_event(dg.AssetMaterialization("intent_dataset", tags=tags))
        yield SimpleNamespace(instance=instance, definitions=build_definitions(settings))


def publish_dataset(storage: LocalStorage) -> SimpleNamespace:
    """Sessions of a week, a third of which buy, through the data set's own builder."""
    generator = np.random.default_rng(1)
    rows = []
    for number in range(280):
        start = datetime(2026, 10, 1) + timedelta(days=number // 40, seconds=number)
        actions = ["detail", "add", *generator.choice(["view", "detail"], 3), *(["purchase"] * (number % 3 == 0))]
        skus = [str(generator.choice(SKUS)) if action in ("detail", "add") else "" for action in actions]
        first_ms = int(start.replace(tzinfo=UTC).timestamp() * 1000)
        times = [first_ms + 20_000 * place for place in range(len(actions))]
        rows.append((f"s{number:04}", start.date(), start, [str(action) for action in actions], skus, times))
    batch = pa.RecordBatch.from_arrays(
        [pa.array(c, f.type) for c, f in zip(zip(*rows, strict=True), SESSION_COLUMNS, strict=True)],
        schema=SESSION_COLUMNS,
    )
    splits = split_days([date(2026, 10, day) for day in range(1, 8)])
    with storage.draft("datasets/intent_dataset") as draft:
        counted = build_intent_dataset([batch], splits, draft.path)
        manifest = describe_dataset(
            draft.path, name="intent_dataset", version=draft.version, created_at=datetime.now(UTC), splits=splits,
            inputs={}, rows=counted, schema=INTENT_COLUMNS, checks=[CheckOutcome("planted", True, True, "Made here.")],
        )  # fmt: skip
        write_manifest(draft.path, manifest)
    return SimpleNamespace(address=draft.address, manifest=manifest)


def test_no_more_run_side_by_side_than_allowed():
    running, most, done, both = 0, 0, [], threading.Barrier(2, timeout=30)
    lock = threading.Lock()

    def run(name: str) -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait()  # passes only where two are inside at once
        with lock:
            running -= 1
        return name != "c"

    failed = sweep.run_all(["a", "b", "c", "d"], 2, run, lambda name, good: done.append((name, good)))
    assert most == 2
    assert failed == ["c"]
    assert done == [("a", True), ("b", True), ("c", False), ("d", True)]


@pytest.mark.slow
def test_configurations_are_partitions_run_one_by_one_and_compared(shop):
    assert sweep.missing(shop.instance, "quick") == list(sweeps.INTENT_CONFIGURATIONS)
    for name in (FIRST, SECOND):
        assert sweep.run_one(shop.definitions, shop.instance, name)
    assert sweep.missing(shop.instance, "quick") == list(sweeps.INTENT_CONFIGURATIONS)[2:]
    assert sweep.missing(shop.instance, "full") == list(sweeps.INTENT_CONFIGURATIONS), "quick is not full"
    made = shop.instance.get_materialized_partitions(sweeps.intent_sweep.key)
    assert made == {FIRST, SECOND}

    event = shop.instance.get_latest_materialization_event(sweeps.intent_sweep_table.key).asset_materialization
    assert event.metadata["summary"].value.startswith(f"2 of {len(sweeps.INTENT_CONFIGURATIONS)} configurations tried")
    lines = event.metadata["comparison"].value.splitlines()
    head = [cell.strip() for cell in lines[0].strip("|").split("|")]
    rows = [dict(zip(head, (c.strip() for c in line.strip("|").split("|")), strict=True)) for line in lines[2:]]
    assert {row["configuration"] for row in rows} == {FIRST, SECOND}
    assert rows == sorted(rows, key=lambda row: float(row["log_loss"]))
    assert event.metadata["best"].value == rows[0]["configuration"]
    of_first = shop.instance.fetch_materializations(
        dg.AssetRecordsFilter(sweeps.intent_sweep.key, asset_partitions=[FIRST]), limit=1
    ).records[0]
    told = next(row for row in rows if row["configuration"] == FIRST)
    assert float(told["auc"]) == pytest.approx(of_first.asset_materialization.metadata["auc"].value, abs=1e-4)


def test_a_sweep_needs_data_and_known_names(shop):
    with pytest.raises(SettingsError, match="no configuration 'units_1'") as error:
        sweep.run_one(shop.definitions, shop.instance, "units_1")
    assert FIRST in error.value.hint
    with dg.DagsterInstance.ephemeral() as empty, pytest.raises(DatasetError, match="no intent_dataset"):
        sweep.missing(empty, "quick")


def test_no_plan_makes_a_sweep_by_itself(shop):
    graph = shop.definitions.resolve_asset_graph()
    everything = {key.to_user_string() for key in select_assets("*", graph)}
    assert "intent_model" in everything
    assert {"intent_sweep", "intent_sweep_table"}.isdisjoint(everything)
    with pytest.raises(SettingsError, match="on demand"):
        select_assets("intent_sweep", graph)
