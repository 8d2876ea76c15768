"""A sweep on a finished shop: configurations one by one in real runs, and as many side by side as are allowed."""

import threading

import dagster as dg
import pytest

from bigger_boat.assets import sweeps
from bigger_boat.automation import sweep
from bigger_boat.errors import DatasetError, SettingsError

FIRST, SECOND = list(sweeps.INTENT_CONFIGURATIONS)[:2]


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


def test_configurations_are_partitions_run_one_by_one_and_compared(shop):
    definitions = shop.definitions
    assert sweep.missing(shop.instance, "quick") == list(sweeps.INTENT_CONFIGURATIONS)
    for name in (FIRST, SECOND):
        assert sweep.run_one(definitions, shop.instance, name)
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
    assert shop.plan().empty, "a sweep changes nothing of the graph"


def test_a_sweep_needs_data_and_known_names(shop):
    with pytest.raises(SettingsError, match="no configuration 'units_1'") as error:
        sweep.run_one(shop.definitions, shop.instance, "units_1")
    assert FIRST in error.value.hint
    with dg.DagsterInstance.ephemeral() as empty, pytest.raises(DatasetError, match="no intent_dataset"):
        sweep.missing(empty, "quick")
    with pytest.raises(SettingsError, match="on demand"):
        shop.plan(select="intent_sweep")
