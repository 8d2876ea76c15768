"""SnowflakeWarehouse against a server that really loads, deletes and answers."""

import json
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigger_boat.errors import WarehouseError
from bigger_boat.resources.duckdb_warehouse import DuckDBWarehouse
from bigger_boat.resources.warehouse import RAW_COLUMNS

DAY_1, DAY_2, DAY_3 = "2026-10-01", "2026-10-02", "2026-10-03"
MS_1 = 1_790_812_800_000  # 2026-10-01 00:00 UTC
DAY_MS = 86_400_000
COLUMNS = {
    "bigint": pa.int64(),
    "varchar": pa.string(),
    "float[]": pa.list_(pa.float32()),
    "varchar[]": pa.list_(pa.string()),
    "integer": pa.int64(),
}


@pytest.fixture
def warehouse(server, key, request):
    """A warehouse in a database of the test's own."""
    return server.warehouse(request.node.name.upper()[:60])


def write(path: Path, table: str, *rows: dict) -> str:
    schema = pa.schema([(name, COLUMNS[kind]) for name, kind in RAW_COLUMNS[table].items()])
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    return str(path)


def browsing(path: Path, *times: int) -> str:
    rows = [
        {"session_id_hash": f"s{time}", "event_type": "pageview", "server_timestamp_epoch_ms": time} for time in times
    ]
    return write(path, "browsing_train", *rows)


def times(warehouse) -> list[int]:
    with warehouse.read("select server_timestamp_epoch_ms as ms from raw.browsing_train order by ms") as reader:
        return reader.read_all()["ms"].to_pylist()


def test_a_load_replaces_exactly_its_days_and_records_what_it_loaded(warehouse, tmp_path):
    first = {
        DAY_1: [browsing(tmp_path / "1", MS_1, MS_1 + DAY_MS - 1)],
        DAY_2: [browsing(tmp_path / "2a", MS_1 + DAY_MS), browsing(tmp_path / "2b", MS_1 + DAY_MS)],
        DAY_3: [browsing(tmp_path / "3", MS_1 + 2 * DAY_MS)],
    }
    prints = {DAY_1: "one", DAY_2: "two", DAY_3: "three"}
    assert warehouse.load_days("browsing_train", first, prints) == {DAY_1: 2, DAY_2: 2, DAY_3: 1}
    statements = []
    assert warehouse.load_days("browsing_train", first, prints, statements) == {DAY_1: 2, DAY_2: 2, DAY_3: 1}
    assert [(each.sql, each.rows) for each in statements] == [
        ("delete from raw.browsing_train", 5),
        ("copy into raw.browsing_train", 5),
    ]
    assert all(each.query_id for each in statements)
    assert warehouse.count("raw.browsing_train") == 5

    changed = {DAY_1: [], DAY_3: [browsing(tmp_path / "3b", MS_1 + 2 * DAY_MS + 5)]}
    assert warehouse.load_days("browsing_train", changed, {DAY_3: "new"}) == {DAY_1: 0, DAY_3: 1}
    assert times(warehouse) == [MS_1 + DAY_MS, MS_1 + DAY_MS, MS_1 + 2 * DAY_MS + 5]
    assert warehouse.loaded_fingerprints() == {
        ("browsing_train", DAY_1): "",
        ("browsing_train", DAY_2): "two",
        ("browsing_train", DAY_3): "new",
    }


def test_a_load_that_fails_changes_nothing(warehouse, tmp_path, monkeypatch):
    warehouse.load_days("browsing_train", {DAY_1: [browsing(tmp_path / "1", MS_1)]}, {DAY_1: "one"})
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 not a file")
    with pytest.raises(WarehouseError, match=r"broken\.parquet.*Nothing was changed|Nothing was changed.*broken"):
        warehouse.load_days("browsing_train", {DAY_1: [], DAY_2: [str(broken)]})
    with pytest.raises(WarehouseError, match="landed files of 2026-10-02 hold rows of another day"):
        warehouse.load_days("browsing_train", {DAY_1: [], DAY_2: [browsing(tmp_path / "2", MS_1)]})

    from bigger_boat.resources import snowflake_warehouse

    def fail(*_):
        raise WarehouseError("the connection is gone")

    monkeypatch.setattr(snowflake_warehouse, "_record", fail)  # the rows are deleted and copied by then
    with pytest.raises(WarehouseError, match="the connection is gone"):
        warehouse.load_days("browsing_train", {DAY_1: [], DAY_2: [browsing(tmp_path / "2", MS_1 + DAY_MS)]})
    monkeypatch.undo()
    assert times(warehouse) == [MS_1]
    assert warehouse.loaded_fingerprints() == {("browsing_train", DAY_1): "one"}


def test_rows_that_snowflake_did_not_load_are_noticed(warehouse, tmp_path, monkeypatch):
    from bigger_boat.resources import snowflake_warehouse

    write_days = snowflake_warehouse._write_days
    claimed = lambda *args: {day: rows + 1 for day, rows in write_days(*args).items()}  # noqa: E731
    monkeypatch.setattr(snowflake_warehouse, "_write_days", claimed)
    with pytest.raises(WarehouseError, match=f"loaded other rows than were sent .*, for {DAY_1}"):
        warehouse.load_days("browsing_train", {DAY_1: [browsing(tmp_path / "1", MS_1)]})
    monkeypatch.undo()
    assert warehouse.count("raw.browsing_train") == 0


def test_lists_text_and_nulls_come_back_as_they_were(warehouse, tmp_path):
    full = {"query_vector": [0.1, -2.5e-7], "clicked_skus_hash": ["x", 'q"u\\o'], "product_skus_hash": []}
    bare = {"query_vector": None, "clicked_skus_hash": None, "product_skus_hash": ["null"]}
    rows = [
        {"session_id_hash": session, "server_timestamp_epoch_ms": MS_1 + place, **lists}
        for place, (session, lists) in enumerate({"a": full, "é, '": bare}.items())
    ]
    file = write(tmp_path / "search", "search_train", *rows)
    duck = DuckDBWarehouse(path=str(tmp_path / "warehouse.duckdb"), threads=1)
    found = []
    for each in (warehouse, duck):
        each.load_days("search_train", {DAY_1: [file]})
        with each.read("select * from raw.search_train order by server_timestamp_epoch_ms") as reader:
            found.append(reader.read_all())
    assert found[0].to_pylist() == found[1].to_pylist()
    assert found[0]["clicked_skus_hash"].to_pylist() == [["x", 'q"u\\o'], None]
    assert [field.type for field in found[0].schema] == [field.type for field in found[1].schema]


def test_the_catalog_is_replaced_as_a_whole_and_keeps_the_order_of_its_files(warehouse, tmp_path):
    old = write(tmp_path / "old", "sku_to_content", *({"product_sku_hash": sku, "price_bucket": 1} for sku in "ab"))
    new = write(tmp_path / "new", "sku_to_content", {"product_sku_hash": "a", "image_vector": [1.0], "price_bucket": 9})
    assert warehouse.load_catalog([old, new]) == 3
    assert warehouse.load_catalog([old, new]) == 3
    sql = "select product_sku_hash, price_bucket, file_number, image_vector from raw.sku_to_content order by 1, 3"
    with warehouse.read(sql) as reader:
        assert [tuple(row.values()) for row in reader.read_all().to_pylist()] == [
            ("a", 1, 0, None),
            ("a", 9, 1, [1.0]),
            ("b", 1, 0, None),
        ]
    assert warehouse.load_catalog([]) == 0
    assert warehouse.count("raw.sku_to_content") == 0


def test_types_are_those_that_duckdb_gives(warehouse):
    warehouse.prepare()
    sql = """
        select cast('2026-10-01' as date) as day, to_timestamp_ntz(1790812800123, 3) as at, 0.5::double as number,
            count(*) as row_count, sum(1) as total, 'x' as text, true as flag, ? as given
    """
    with warehouse.read(sql, [date(2026, 1, 2)]) as reader:
        assert [str(field.type) for field in reader.schema] == [
            "date32[day]", "timestamp[us]", "double", "int64", "int64", "string", "bool", "date32[day]",
        ]  # fmt: skip
        assert reader.read_all().to_pylist() == [
            {
                "day": date(2026, 10, 1),
                "at": datetime(2026, 10, 1, 0, 0, 0, 123_000),
                "number": 0.5,
                "row_count": 1,
                "total": 1,
                "text": "x",
                "flag": True,
                "given": date(2026, 1, 2),
            }
        ]


def test_row_counts_name_every_day_and_nothing_is_a_table_of_the_right_columns(warehouse, tmp_path):
    warehouse.load_days("browsing_train", {DAY_2: [browsing(tmp_path / "2", MS_1 + DAY_MS, MS_1 + DAY_MS + 1)]})
    table = "(select cast(to_timestamp_ntz(server_timestamp_epoch_ms, 3) as date) as day from raw.browsing_train)"
    assert warehouse.row_counts(table, "day", date(2026, 10, 1), DAY_3) == {DAY_1: 0, DAY_2: 2, DAY_3: 0}
    with warehouse.read("select * from raw.browsing_train where server_timestamp_epoch_ms < 0") as reader:
        nothing = reader.read_all()
    assert (nothing.num_rows, nothing.schema.names) == (0, list(RAW_COLUMNS["browsing_train"]))


def test_a_missing_table_and_a_refused_statement_are_sentences(warehouse):
    warehouse.prepare()
    with (
        pytest.raises(WarehouseError, match=r"(?s)SESSIONS does not exist.*Materialize the raw and warehouse assets"),
        warehouse.read("select * from sessions"),
    ):
        pass
    twice = "create stage raw.twice"
    with warehouse.read(twice):
        pass
    refused = r"Snowflake \(fakesnow, user loader\) refused: .*already exists"
    with pytest.raises(WarehouseError, match=refused), warehouse.read(twice):
        pass


def test_a_server_that_does_not_answer_is_a_sentence(server, key):
    nobody = server.warehouse("NOBODY", port=9, network_timeout_s=1, login_timeout_s=1)
    with pytest.raises(WarehouseError, match=r"Snowflake \(fakesnow, user loader\) refused"):
        nobody.prepare()


def test_sessions_carry_tag_time_limit_and_time_zone_and_the_size_is_set(server, key):
    server.warehouse("PARAMETERS", statement_timeout_s=77, tag="shop", compute_size="SMALL").prepare()
    parameters = server.entries("login")[-1]["SESSION_PARAMETERS"]
    assert json.loads(parameters["QUERY_TAG"]) == {"app": "shop"}
    assert (parameters["STATEMENT_TIMEOUT_IN_SECONDS"], parameters["TIMEZONE"]) == (77, "UTC")
    assert server.entries("statement")[-1] == "alter warehouse LOADING set warehouse_size = 'SMALL'"


def test_raw_tables_are_transient_and_clustered_by_day(server, warehouse):
    warehouse.prepare()
    created = [each for each in server.entries("statement")[-6:] if each.startswith("create transient table")]
    [browsing_train] = [each for each in created if "raw.browsing_train" in each]
    assert browsing_train.endswith(f"cluster by (floor(server_timestamp_epoch_ms / {DAY_MS}))")
    asked = len(server.entries("statement"))
    warehouse.prepare()  # a role need not have the right to create a schema that is there
    assert not [each for each in server.entries("statement")[asked:] if each.startswith("create")]


def test_what_the_role_may_make_is_made_and_dropped_again(warehouse):
    assert warehouse.try_grants() == "it answers, and lets tables be made in RAW and MARTS"
    with warehouse.read(
        "select table_name as t from information_schema.tables where table_name ilike 'doctor%'"
    ) as left:
        assert left.read_all().num_rows == 0


def test_what_snowflake_refuses_is_told(warehouse, monkeypatch):
    """The stand-in has no grants: here a table of that name is there already."""
    monkeypatch.setattr("secrets.token_hex", lambda _: "taken")
    warehouse.prepare()
    with warehouse._connect() as connection:
        connection.cursor().execute("create table MARTS.doctor_taken (a integer)")
    with pytest.raises(WarehouseError, match="already exists") as refused:
        warehouse.try_grants()
    assert "docs/snowflake.md has the grants" in refused.value.hint
