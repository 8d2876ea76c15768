"""A batch of events leaves Dagster's history as the same events one by one do."""

import sqlite3

import dagster as dg
import pytest

from bigger_boat.resources.history import BatchedEventLog

DAYS = dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-02-10")
FIRST, LAST = "2026-01-01", "2026-02-09"


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def table() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"rows": 3}, tags={"colour": "blue"})


@dg.asset_check(asset=table)
def whole() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@dg.asset(deps=[table])
def total() -> None: ...


def history(folder, batch_size, monkeypatch):
    """Run the graph in a new instance and give back what its storage tells, without times, ids and the run's id."""
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", str(batch_size))
    folder.mkdir()
    (folder / "dagster.yaml").write_text(
        "storage:\n  custom:\n    module: bigger_boat.resources.history\n    class: BatchedStorage\n"
        f"    config: {{base_dir: {folder}}}\ntelemetry: {{enabled: false}}\n"
    )
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        assert isinstance(instance.event_log_storage, BatchedEventLog)
        days = {"dagster/asset_partition_range_start": FIRST, "dagster/asset_partition_range_end": LAST}
        for _ in range(2):  # the second run finds rows to replace
            assert dg.materialize([table, whole], instance=instance, tags=days).success
        result = dg.materialize([total, table], selection=[total], instance=instance)
        assert result.success
        told = [(e.event_type_value, str(e.asset_key), e.partition) for e in result.all_events]
        days = instance.get_latest_storage_id_by_partition(table.key, dg.DagsterEventType.ASSET_MATERIALIZATION)
        (record,) = instance.get_asset_records([table.key])
        latest = record.asset_entry.last_materialization.asset_materialization
        planned = instance.event_log_storage.get_asset_check_execution_history(whole.check_key, limit=9)
        runs = {
            run.run_id: sorted(
                str((e.dagster_event_type, e.dagster_event.asset_key, e.dagster_event.partition))
                for e in instance.all_logs(run.run_id)
                if e.is_dagster_event
            )
            for run in instance.get_runs()
        }
        kept = [day for day, _ in sorted(days.items(), key=lambda pair: pair[1])]
        state = instance.event_log_storage.get_latest_asset_partition_materialization_attempts_without_materializations
        return {
            "told": told,
            "days in the order they were made": kept,
            "last": (latest.partition, latest.metadata["rows"].value, latest.tags["colour"]),
            "checks": [record.status for record in planned],
            "runs": sorted(runs.values()),
            "unfinished": state(table.key),
            "index": index(folder),
        }


def index(folder):
    with sqlite3.connect(folder / "history" / "runs" / "index.db") as connection:
        events = "SELECT dagster_event_type, asset_key, partition FROM event_logs ORDER BY id"
        tags = "SELECT event_id, asset_key, key, value FROM asset_event_tags ORDER BY 1, 3"
        unique = [row for row in connection.execute(tags) if row[2] == "colour"]
        return connection.execute(events).fetchall(), unique


@pytest.mark.parametrize("batch_size", [pytest.param(1_000, marks=pytest.mark.slow), 7])
def test_a_batch_leaves_what_single_events_leave(tmp_path, monkeypatch, batch_size):
    singly = history(tmp_path / "singly", 0, monkeypatch)
    batched = history(tmp_path / "batched", batch_size, monkeypatch)
    assert len(singly["days in the order they were made"]) == 40
    assert singly == batched


def test_a_batch_is_one_transaction_in_each_file(tmp_path, monkeypatch):
    def opened(batch_size):
        shards = []
        with monkeypatch.context() as patched:
            patched.setattr(
                BatchedEventLog, "_connect", lambda self, shard: shards.append(shard) or connect(self, shard)
            )
            history(tmp_path / str(batch_size), batch_size, monkeypatch)
        return len(shards)

    connect = BatchedEventLog._connect
    # of two runs: 40 days planned and 40 made, each a transaction in the run's file and one in the index
    assert opened(0) - opened(1_000) >= 2 * (2 * 80 - 4)
