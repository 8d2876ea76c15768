"""DuckDBWarehouse on real files, with a real second process."""

import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigger_boat.errors import WarehouseError
from bigger_boat.resources.duckdb_warehouse import DATABASE_FILE, DuckDBWarehouse
from bigger_boat.resources.warehouse import RAW_COLUMNS, Statement

DAY_1, DAY_2, DAY_3 = "2026-10-01", "2026-10-02", "2026-10-03"
MS_1 = 1_790_812_800_000  # 2026-10-01 00:00 UTC
DAY_MS = 86_400_000
COLUMNS = {"bigint": pa.int64(), "varchar": pa.string(), "float[]": pa.list_(pa.float32()), "integer": pa.int64()}


@pytest.fixture
def warehouse(tmp_path: Path) -> DuckDBWarehouse:
    return DuckDBWarehouse(path=str(tmp_path / "warehouse.duckdb"), threads=1, lock_timeout_s=0.5)


def browsing(path: Path, *times: int) -> str:
    rows = [
        {"session_id_hash": f"s{time}", "event_type": "pageview", "server_timestamp_epoch_ms": time} for time in times
    ]
    schema = pa.schema([(name, COLUMNS[kind]) for name, kind in RAW_COLUMNS["browsing_train"].items()])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return str(path)


def catalog(path: Path, **prices: int) -> str:
    rows = [{"product_sku_hash": sku, "price_bucket": price} for sku, price in prices.items()]
    schema = pa.schema([(name, COLUMNS[kind]) for name, kind in RAW_COLUMNS["sku_to_content"].items()])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return str(path)


def raw_times(warehouse: DuckDBWarehouse) -> list[int]:
    query = "select server_timestamp_epoch_ms as ms from raw.browsing_train order by ms"
    with warehouse.read(query) as reader:
        return reader.read_all()["ms"].to_pylist()


def test_a_load_replaces_exactly_its_days(warehouse: DuckDBWarehouse, tmp_path: Path) -> None:
    first = {
        DAY_1: [browsing(tmp_path / "1", MS_1, MS_1 + DAY_MS - 1)],
        DAY_2: [browsing(tmp_path / "2a", MS_1 + DAY_MS), browsing(tmp_path / "2b", MS_1 + DAY_MS)],
        DAY_3: [browsing(tmp_path / "3", MS_1 + 2 * DAY_MS)],
    }
    assert warehouse.load_days("browsing_train", first) == {DAY_1: 2, DAY_2: 2, DAY_3: 1}
    assert warehouse.load_days("browsing_train", first) == {DAY_1: 2, DAY_2: 2, DAY_3: 1}
    assert warehouse.count("raw.browsing_train") == 5

    changed = {DAY_1: [], DAY_3: [browsing(tmp_path / "3b", MS_1 + 2 * DAY_MS + 5)]}
    assert warehouse.load_days("browsing_train", changed) == {DAY_1: 0, DAY_3: 1}
    assert raw_times(warehouse) == [MS_1 + DAY_MS, MS_1 + DAY_MS, MS_1 + 2 * DAY_MS + 5]


def test_a_load_changes_nothing_if_one_file_is_at_fault(warehouse: DuckDBWarehouse, tmp_path: Path) -> None:
    warehouse.load_days("browsing_train", {DAY_1: [browsing(tmp_path / "1", MS_1)]})
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 not a file")
    with pytest.raises(WarehouseError, match=r"broken\.parquet.*Nothing was changed"):
        warehouse.load_days("browsing_train", {DAY_1: [], DAY_2: [str(broken)]})
    with pytest.raises(WarehouseError, match="landed files of 2026-10-02 hold rows of another day"):
        warehouse.load_days("browsing_train", {DAY_1: [], DAY_2: [browsing(tmp_path / "2", MS_1)]})
    assert raw_times(warehouse) == [MS_1]


def test_the_catalog_is_replaced_as_a_whole_and_keeps_the_order_of_its_files(
    warehouse: DuckDBWarehouse, tmp_path: Path
) -> None:
    files = [catalog(tmp_path / "old", a=1, b=2), catalog(tmp_path / "new", a=9)]
    assert warehouse.load_catalog(files) == 3
    assert warehouse.load_catalog(files) == 3
    with warehouse.read(
        "select product_sku_hash, price_bucket, file_number from raw.sku_to_content order by all"
    ) as reader:
        assert [tuple(row.values()) for row in reader.read_all().to_pylist()] == [("a", 1, 0), ("a", 9, 1), ("b", 2, 0)]
    assert warehouse.load_catalog([]) == 0
    assert warehouse.count("raw.sku_to_content") == 0


def test_row_counts_name_every_day(warehouse: DuckDBWarehouse) -> None:
    with warehouse.connect() as connection:
        connection.execute("create table t as select date '2026-10-02' as day from range(3)")
    assert warehouse.row_counts("t", "day", date(2026, 10, 1), DAY_3) == {DAY_1: 0, DAY_2: 3, DAY_3: 0}


def test_a_missing_table_is_a_sentence_with_what_to_do(warehouse: DuckDBWarehouse) -> None:
    with (
        pytest.raises(WarehouseError, match="Materialize the raw and warehouse assets first"),
        warehouse.read("from sessions"),
    ):
        pass


def test_another_file_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match=r"must be called warehouse\.duckdb"):
        DuckDBWarehouse(path=str(tmp_path / "shop.db")).prepare()


def test_a_damaged_file_is_a_sentence(warehouse: DuckDBWarehouse) -> None:
    Path(warehouse.path).write_bytes(b"not a database" * 1000)
    with pytest.raises(WarehouseError, match="cannot be opened"):
        warehouse.prepare()


def holder(path: str, seconds: float) -> subprocess.Popen:
    code = f"import duckdb, time; c = duckdb.connect({path!r}); print('open', flush=True); time.sleep({seconds})"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "open\n"
    return process


def test_a_locked_file_is_waited_for_and_then_reported_with_its_holder(warehouse: DuckDBWarehouse) -> None:
    warehouse.prepare()
    process = holder(warehouse.path, 60)
    try:
        with pytest.raises(WarehouseError) as refused:
            warehouse.prepare()
        assert f"(process {process.pid})" in str(refused.value)
        assert "wait until that process ends" in str(refused.value)
    finally:
        process.kill()
        process.wait()
    warehouse.prepare()


def test_a_file_that_is_let_go_in_time_is_opened(warehouse: DuckDBWarehouse) -> None:
    warehouse.prepare()
    process = holder(warehouse.path, 1)
    patient = DuckDBWarehouse(path=warehouse.path, threads=1, lock_timeout_s=60)
    patient.prepare()
    assert process.wait() == 0


def test_purging_leaves_no_byte_of_deleted_rows_and_all_others(tmp_path):
    path = tmp_path / DATABASE_FILE
    warehouse = DuckDBWarehouse(path=str(path), threads=1)
    with warehouse.connect() as connection:
        rows = "select 'gone-' || (i % 3), 'view', null, null, i, 'u', null, null from range(9000) as t(i)"
        connection.execute(f"insert into raw.browsing_train_copied {rows}")
        connection.execute("create view main.stg as select session_id_hash as session_id from raw.browsing_train")
        connection.execute("checkpoint")
        connection.execute("delete from raw.browsing_train_copied where session_id_hash = 'gone-1'")
    assert b"gone-1" in path.read_bytes()
    warehouse.purge()
    assert b"gone-1" not in path.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == [DATABASE_FILE]
    with warehouse.read("select session_id, count(*) as n from main.stg group by 1 order by 1") as reader:
        assert reader.read_all().to_pylist() == [{"session_id": f"gone-{i}", "n": 3000} for i in (0, 2)]
    DuckDBWarehouse(path=str(tmp_path / "none" / DATABASE_FILE)).purge()
    assert not (tmp_path / "none").exists()


# -- raw days that are read where they landed, beside copied ones

LARGE = [MS_1 + second for second in range(5)]


def warehouse_in(folder: Path) -> DuckDBWarehouse:
    folder.mkdir(exist_ok=True)
    return DuckDBWarehouse(path=str(folder / DATABASE_FILE), threads=1, in_place_rows=5)


def copied(warehouse: DuckDBWarehouse) -> int:
    return warehouse.count("raw.browsing_train_copied")


def test_a_large_day_of_one_file_is_read_where_it_landed(tmp_path):
    warehouse, statements = warehouse_in(tmp_path), []
    days = {
        DAY_1: [browsing(tmp_path / "large", *LARGE)],
        DAY_2: [browsing(tmp_path / f"many{i}", *[at + DAY_MS for at in LARGE]) for i in range(2)],
        DAY_3: [browsing(tmp_path / "small", MS_1 + 2 * DAY_MS)],
    }
    assert warehouse.load_days("browsing_train", days, statements=statements) == {DAY_1: 5, DAY_2: 10, DAY_3: 1}
    assert statements == [
        Statement("delete from raw.browsing_train", 0),
        Statement("insert into raw.browsing_train", 11),
        Statement("create view raw.browsing_train: landed files of 1 days", 5),
    ]
    assert (warehouse.count("raw.browsing_train"), copied(warehouse)) == (16, 11)

    statements.clear()
    now_small = {DAY_1: [browsing(tmp_path / "less", LARGE[0])], DAY_2: []}
    assert warehouse.load_days("browsing_train", now_small, statements=statements) == {DAY_1: 1, DAY_2: 0}
    assert statements[:2] == [
        Statement("delete from raw.browsing_train", 15),
        Statement("insert into raw.browsing_train", 1),
    ]
    assert raw_times(warehouse) == [LARGE[0], MS_1 + 2 * DAY_MS]
    (tmp_path / "large").unlink()  # nobody reads it any more
    assert copied(warehouse) == warehouse.count("raw.browsing_train") == 2


def test_a_large_file_at_fault_changes_nothing(tmp_path):
    warehouse = warehouse_in(tmp_path)
    warehouse.load_days("browsing_train", {DAY_1: [browsing(tmp_path / "1", *LARGE)]})
    with duckdb.connect() as connection:
        connection.sql(f"select * exclude (hashed_url) from read_parquet('{tmp_path / '1'}')").write_parquet(
            str(tmp_path / "2")
        )
    with pytest.raises(WarehouseError, match=r"hashed_url.*Nothing was changed"):
        warehouse.load_days("browsing_train", {DAY_1: [str(tmp_path / "2")]})
    assert raw_times(warehouse) == LARGE


def test_a_landed_file_that_is_gone_is_a_sentence_and_loading_the_day_again_mends_it(tmp_path):
    warehouse = warehouse_in(tmp_path)
    warehouse.load_days("browsing_train", {DAY_1: [browsing(tmp_path / "1", *LARGE)]})
    (tmp_path / "1").unlink()
    with pytest.raises(WarehouseError, match=r"cannot be read: .*/1") as refused:
        warehouse.count("raw.browsing_train")
    assert "land its source again" in refused.value.hint
    warehouse.load_days("browsing_train", {DAY_1: [browsing(tmp_path / "2", *LARGE)]})
    assert raw_times(warehouse) == LARGE


def test_a_data_directory_that_was_moved_reads_its_own_files(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    warehouse = warehouse_in(old)
    (old / "landing").mkdir()
    warehouse.load_days("browsing_train", {DAY_1: [browsing(old / "landing" / "1", *LARGE)]})
    shutil.copytree(old, new)
    shutil.rmtree(old)
    assert raw_times(warehouse_in(new)) == LARGE
    warehouse_in(new).prepare()
    assert raw_times(warehouse_in(new)) == LARGE


def test_the_file_of_an_earlier_version_keeps_its_rows(tmp_path):
    day = browsing(tmp_path / "1", MS_1)
    with duckdb.connect(str(tmp_path / DATABASE_FILE)) as connection:
        connection.execute("create schema raw")
        connection.execute(f"create table raw.browsing_train as from read_parquet('{day}')")
        connection.execute("create table raw.loaded_days (name varchar, day varchar, fingerprint varchar)")
        connection.execute(f"insert into raw.loaded_days values ('browsing_train', '{DAY_1}', 'f')")
        connection.execute("create view stg as select session_id_hash as session_id from raw.browsing_train")
    warehouse = warehouse_in(tmp_path)
    warehouse.prepare()
    assert raw_times(warehouse) == [MS_1]
    assert warehouse.loaded_fingerprints() == {("browsing_train", DAY_1): "f"}
    warehouse.load_days("browsing_train", {DAY_2: [browsing(tmp_path / "2", *[at + DAY_MS for at in LARGE])]})
    assert (warehouse.count("stg"), copied(warehouse)) == (6, 1)


def test_purging_keeps_what_is_read_in_place(tmp_path):
    warehouse = warehouse_in(tmp_path)
    warehouse.load_days("browsing_train", {DAY_1: [browsing(tmp_path / "1", *LARGE)]}, {DAY_1: "f"})
    warehouse.purge()
    assert raw_times(warehouse) == LARGE
    assert warehouse.loaded_fingerprints() == {("browsing_train", DAY_1): "f"}
