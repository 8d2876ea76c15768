"""The warehouse half through Dagster on a server that stands in for Snowflake, held against DuckDB."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pytest
from snowflake_graph import CATALOG, DAILY, DATA_SETS, DAYS, KEYS, Graph, duckdb_graph, failures

from bigger_boat.assets import parity, warehouse
from bigger_boat.data.dataset_manifest import read_manifest
from bigger_boat.data.parity import compare_tables
from bigger_boat.settings import get_settings

pytestmark = pytest.mark.slow

FIRST, LAST = DAYS[0], DAYS[-1]
SESSIONS = dg.AssetKey("sessions")


@pytest.fixture(scope="module")
def key_of_module(key_file) -> Iterator[None]:
    """The key in the settings of this process, for all tests of the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGGER_BOAT_SNOWFLAKE_PRIVATE_KEY_PATH", str(key_file))
        get_settings.cache_clear()
        yield
    get_settings.cache_clear()


def materialize(graph: Graph) -> dict[str, dg.ExecuteInProcessResult]:
    """Make the catalogue, all days in one run, and the data sets."""
    results = {}
    for name, keys, days in (("catalog", CATALOG, ()), ("days", DAILY, (FIRST, LAST)), ("datasets", DATA_SETS, ())):
        results[name] = graph.run(keys, *days)
        assert results[name].success, failures(results[name])
    return results


@pytest.fixture(scope="module")
def snow(server, key_of_module, landed, tmp_path_factory):
    """The graph made on the stand-in, and what its runs said."""
    graph = Graph(tmp_path_factory.mktemp("snow"), landed, server.warehouse("A_RANGE"))
    return graph, materialize(graph)


@pytest.fixture(scope="module")
def duck(landed, tmp_path_factory):
    """The graph made on DuckDB."""
    graph = duckdb_graph(tmp_path_factory.mktemp("duck"), landed)
    return graph, materialize(graph)


def assert_same_tables(one: Graph, other: Graph) -> None:
    left, right = one.tables(), other.tables()
    for name in KEYS:
        found = compare_tables(left[name], right[name], KEYS[name])
        assert found.same, f"{name}:\n{found.markdown('one', 'other')}"
        assert found.left_rows > 0


def checks(results: dict[str, dg.ExecuteInProcessResult]) -> dict[tuple[str, str], bool]:
    return {
        (each.asset_key.to_user_string(), each.check_name): each.passed
        for result in results.values()
        for each in result.get_asset_check_evaluations()
    }


def test_a_range_is_what_duckdb_makes_of_it(snow, duck):
    assert_same_tables(snow[0], duck[0])
    for key in DATA_SETS:
        one, other = (read_manifest(graph.dataset(key)) for graph in (snow[0], duck[0]))
        assert one.data_version == other.data_version
        assert one.rows == other.rows
        assert sum(one.rows.values()) > 0


def test_every_test_and_check_ran_and_passed_and_both_warehouses_agree(snow, duck):
    on_snowflake, on_duckdb = checks(snow[1]), checks(duck[1])
    same = {(table, parity.SAME): True for table in parity.KEYS}
    assert on_snowflake == on_duckdb | same
    nodes = warehouse.MANIFEST["nodes"].values()
    assert {node["name"] for node in nodes if node["resource_type"] == "test"} <= {name for _, name in on_duckdb}
    assert {node["name"] for node in nodes if node["resource_type"] == "model"} == KEYS.keys()


def test_materializations_say_the_same_and_what_was_done(snow, duck):
    for key in (dg.AssetKey(["raw", "browsing_train"]), SESSIONS):
        for day in DAYS:
            one, other = (graph.materialization(key, day) for graph in (snow[0], duck[0]))
            rows, source = "dagster/partition_row_count", "source_fingerprint"
            assert (one.metadata[rows], one.metadata[source]) == (other.metadata[rows], other.metadata[source])
    loaded = snow[0].materialization(dg.AssetKey(["raw", "browsing_train"]), FIRST).metadata["statements"].value
    rows = sum(snow[0].warehouse.row_counts(f"({BY_DAY})", "day", FIRST, LAST).values())
    assert f"| copy into raw.browsing_train | {rows} |" in loaded


BY_DAY = "select cast(to_timestamp_ntz(server_timestamp_epoch_ms, 3) as date) as day from raw.browsing_train"


def test_every_session_names_the_run_and_its_assets(snow, server):
    tags = [
        json.loads(login["SESSION_PARAMETERS"]["QUERY_TAG"])
        for login in server.entries("login")
        if login["SESSION_PARAMETERS"].get("QUERY_TAG")
    ]
    run_id = snow[1]["days"].run_id
    of_run = [tag for tag in tags if tag.get("run_id") == run_id]
    assert {"raw/browsing_train"} in [set(tag["assets"]) for tag in of_run]
    by_dbt = [tag for tag in of_run if tag["app"] == "tests"]  # the graph's dbt has a tag of its own here
    assert by_dbt
    assert all("sessions" in tag["assets"] for tag in by_dbt)
    statements = server.entries("statement")
    session = "alter session set timezone = 'UTC', statement_timeout_in_seconds = 3600"
    assert any(each.startswith(session) for each in statements)
    replaced = [place for place, each in enumerate(statements) if each.lower().startswith("begin")]
    assert replaced  # dbt's days are replaced in explicit transactions
    assert all(statements[place + 1].lstrip().startswith("delete from") for place in replaced)
    assert all(statements[place + 3].lower().startswith("commit") for place in replaced)


def test_days_one_by_one_in_any_order_are_what_duckdb_makes_at_once(server, key_of_module, duck, landed, tmp_path):
    graph = Graph(tmp_path, landed, server.warehouse("DAY_BY_DAY"))
    for keys, days in ((CATALOG, ("",)), (DAILY, (DAYS[2], DAYS[0], DAYS[1]))):
        for day in days:
            result = graph.run(keys, day, day, more_checks=False)
            assert result.success, failures(result)
    assert_same_tables(graph, duck[0])


@contextmanager
def changed(server, database: str, table: str, *statements: str) -> Iterator[None]:
    """Change a table behind the graph's back, and put it back."""
    import snowflake.connector

    where = {"host": "127.0.0.1", "port": server.port, "protocol": "http", "network_timeout": 20}
    with snowflake.connector.connect(
        account="fakesnow", user="mallory", password="x", database=database, schema="MARTS", **where
    ) as connection:
        cursor = connection.cursor()
        cursor.execute(f"create transient table kept as select * from {table}")
        for statement in statements:
            cursor.execute(statement)
        yield
        cursor.execute(f"create or replace transient table {table} as select * from kept")
        cursor.execute("drop table kept")


def parity_of(graph: Graph, table: str, day: str) -> dg.AssetCheckEvaluation:
    result = graph.check(parity.SAME, (table,), {"ops": {"parity_checks": {"config": {"day": day}}}})
    assert result.success, failures(result)
    [evaluation] = result.get_asset_check_evaluations()
    return evaluation


def test_a_planted_difference_is_caught_and_shown(snow, server):
    graph = snow[0]
    of_day = f"session_date = '{LAST}'"
    with changed(
        server,
        "A_RANGE",
        "sessions",
        f"update sessions set event_count = event_count + 1 where session_id = '{LAST}-1' and {of_day}",
        f"update sessions set duration_s = null where session_id = '{LAST}-2' and {of_day}",
        f"update sessions set skus = parse_json('[\"x\"]')::array where session_id = '{LAST}-3' and {of_day}",
        f"delete from sessions where session_id = '{LAST}-4' and {of_day}",
        f"update sessions set duration_s = -1 where session_date = '{FIRST}'",  # another day: not looked at
    ):
        found = parity_of(graph, "sessions", LAST)
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.ERROR
    assert not found.blocking
    assert found.metadata["differences"].value == 4
    assert f"4 differences of {LAST}" in found.description
    head, _, *lines = found.metadata["table"].value.splitlines()
    assert head == "| row | column | Snowflake | DuckDB |"
    marks = ("no such row", "event_count", "duration_s", "skus")
    missing, count, duration, skus = (next(line for line in lines if mark in line) for mark in marks)
    assert missing == f"| {LAST}-4, {LAST} |  | no such row | a row |"
    assert count.startswith(f"| {LAST}-1, {LAST} | event_count |")
    assert "| null | " in duration
    assert skus.split(" | ")[2] == '["x"]'
    assert parity_of(graph, "sessions", LAST).passed


def test_a_product_that_differs_is_caught_without_any_day(snow, server):
    with changed(server, "A_RANGE", "products", "update products set price_bucket = 99 where sku = 'p3'"):
        found = parity_of(snow[0], "products", "")
    assert not found.passed
    assert "| p3 | price_bucket | 99 | 3 |" in found.metadata["table"].value


@pytest.fixture
def bucket(monkeypatch) -> Iterator[Any]:
    """A bucket of a server that answers as S3 does."""
    import boto3
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    keys = {"AWS_ACCESS_KEY_ID": "made-up", "AWS_SECRET_ACCESS_KEY": "made-up", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**keys, "AWS_ENDPOINT_URL": "http://{}:{}".format(*running.get_host_and_port())}.items():
        monkeypatch.setenv(name, value)
    found = boto3.resource("s3").create_bucket(Bucket="shop-by-command")
    yield found
    running.stop()


@pytest.fixture
def aws(server, bucket, key_file, landed, tmp_path) -> dict[str, str]:
    """The environment of a process of the aws profile, with a data folder in which the shop has landed."""
    shutil.copytree(landed, tmp_path / "landing")
    snowflake = {"ACCOUNT": "fakesnow", "USER": "loader", "WAREHOUSE": "LOADING", "DATABASE": "BY_COMMAND"}
    snowflake |= {"HOST": "127.0.0.1", "PORT": str(server.port), "PROTOCOL": "http"}
    snowflake |= {"PRIVATE_KEY_PATH": str(key_file)}
    return {
        **os.environ,
        "BIGGER_BOAT_PROFILE": "aws",
        "BIGGER_BOAT_DATA_DIR": str(tmp_path),
        "BIGGER_BOAT_START_DATE": FIRST,
        "BIGGER_BOAT_STORAGE": f"s3://{bucket.name}/boat",
        "BIGGER_BOAT_ENDPOINT_ROLE": "arn:aws:iam::123456789012:role/endpoint",
        "BIGGER_BOAT_SERVING_IMAGE": "serving:1",
        **{f"BIGGER_BOAT_SNOWFLAKE_{name}": value for name, value in snowflake.items()},
    }


def test_the_aws_profile_by_the_command_line(aws, bucket, server, key_file, duck, tmp_path):
    command = [sys.executable, "-m", "bigger_boat.cli", "run", "--select", "+intent_dataset,+recommendation_dataset"]
    ended = subprocess.run(command, env=aws, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for key in DATA_SETS:
        handed = bucket.Object(f"boat/addresses/{key.path[-1]}.json").get()["Body"].read()
        address = json.loads(handed)["address"]
        assert bucket.Object(f"boat/{address}/_files.json").get()["ContentLength"]
        assert read_manifest(tmp_path / address).data_version == read_manifest(duck[0].dataset(key)).data_version
    [commit] = bucket.objects.filter(Prefix="boat/landing/_commits/")
    landed = {manifest["part"] for manifest in json.loads(commit.get()["Body"].read())["manifests"]}
    assert {FIRST, LAST, "catalog"} <= landed, "what had landed here is shared with other machines"
    assert not (tmp_path / "warehouse.duckdb").exists()
    assert not [login["QUERY"] for login in server.entries("login") if "roleName" in login["QUERY"]]  # none was set
    secret = key_file.read_text().splitlines()[1].encode()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert not [found.key for found in bucket.objects.all() if secret in found.get()["Body"].read()]

    look = """
import json, sys
from bigger_boat.definitions import defs
graph = defs.resolve_asset_graph()
print(json.dumps({
    "kinds": {key.to_user_string(): sorted(graph.get(key).kinds) for key in graph.get_all_asset_keys()},
    "checks": sorted(f"{key.asset_key.to_user_string()}:{key.name}" for key in graph.asset_check_keys),
    "heavy": sorted({"snowflake.connector", "dagster_snowflake", "tensorflow", "boto3"} & set(sys.modules)),
}))
"""
    shown = subprocess.run([sys.executable, "-c", look], env=aws, capture_output=True, text=True, check=True)
    graph = json.loads(shown.stdout.splitlines()[-1])
    assert graph["heavy"] == []
    assert {"dbt", "snowflake"} <= set(graph["kinds"]["sessions"])
    assert graph["kinds"]["raw/browsing_train"] == ["parquet", "snowflake"]
    assert not [name for name, kinds in graph["kinds"].items() if "duckdb" in kinds]
    assert f"sessions:{parity.SAME}" in graph["checks"]
