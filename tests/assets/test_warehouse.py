"""The warehouse half through Dagster: counts, versions, verdicts by day, and what may be read afterwards."""

import sys
from pathlib import Path

import dagster as dg
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no test folder on the path
from warehouse_graph import DAILY, Graph, ms

from bigger_boat.assets.quality import blocking_checks, refuse_unless_days_passed
from bigger_boat.assets.verdicts import read_verdict
from bigger_boat.errors import DatasetError
from bigger_boat.resources.duckdb_warehouse import DuckDBWarehouse

DAY_1, DAY_2, DAY_3, DAY_4 = "2026-10-05", "2026-10-06", "2026-10-07", "2026-10-08"
BROWSING, SESSIONS = dg.AssetKey(["raw", "browsing_train"]), dg.AssetKey("sessions")


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    """Three landed days: one session over midnight, one with a purchase, one exact duplicate."""
    graph = Graph(tmp_path)
    graph.land(
        ("over-midnight", ms(DAY_1, 86_399), "view", ""),
        ("over-midnight", ms(DAY_2, 1), "detail", "p"),
        ("buyer", ms(DAY_2), "add", "p"),
        ("buyer", ms(DAY_2) + 1, "purchase", "p"),
        ("buyer", ms(DAY_2) + 1, "purchase", "p"),
        ("late", ms(DAY_3), "view", ""),
    )
    return graph


def failures(result: dg.ExecuteInProcessResult) -> str:
    ended = [event.event_specific_data for event in result.all_events if event.is_step_failure]
    return "\n".join(
        str(data.user_failure_data.description if data.user_failure_data else data.error) for data in ended
    )


def spoil(graph: Graph) -> None:
    """Break one session of the second day behind dbt's back, as a fault of the code would."""
    with graph.warehouse.connect() as connection:
        connection.execute("update sessions set skus = ['p', ''] where session_id = 'buyer'")


def test_a_range_is_one_run_with_counts_versions_and_verdicts_by_day(graph: Graph) -> None:
    result = graph.run(DAY_1, DAY_3)
    assert result.success, failures(result)

    rows = {
        key: [
            graph.materialization(dg.AssetKey(key), day).metadata["dagster/partition_row_count"].value for day in days
        ]
        for key, days in {
            ("raw", "browsing_train"): (DAY_1, DAY_2, DAY_3),
            ("distinct_events",): (DAY_1, DAY_2, DAY_3),
            ("sessions",): (DAY_1, DAY_2, DAY_3),
            ("cart_sessions",): (DAY_1, DAY_2, DAY_3),
        }.items()
    }
    assert list(rows.values()) == [[1, 4, 1], [1, 3, 1], [1, 1, 1], [0, 1, 0]]

    checks = {(check.asset_key, check.check_name): check for check in result.get_asset_check_evaluations()}
    blocking = {(key.asset_key, key.name) for key in blocking_checks()}
    assert all(checks[key].passed for key in blocking)
    assert {key for key, check in checks.items() if check.blocking} == blocking
    schema = checks[SESSIONS, "sessions_match_schema"]
    assert {day: verdict["rows"] for day, verdict in schema.metadata["days"].value.items()} == {
        "2026-10-04": 0, DAY_1: 1, DAY_2: 1, DAY_3: 1, DAY_4: 0,
    }  # fmt: skip
    unique = checks[SESSIONS, "sessions_are_unique"]
    assert read_verdict(unique.metadata, True, "", DAY_4).passed
    assert read_verdict(unique.metadata, True, "", "2026-10-09") is None

    refuse_unless_days_passed(graph.instance, [DAY_1, DAY_2, DAY_3])
    with pytest.raises(DatasetError, match=r"2026-10-09: .* has never looked at this day"):
        refuse_unless_days_passed(graph.instance, [DAY_3, "2026-10-09"])

    one_day = graph.run(DAY_2, DAY_2, [BROWSING])
    assert one_day.success
    index = graph.landing_zone.index()
    tags = graph.materialization(BROWSING, DAY_2).tags
    assert tags["dagster/data_version"] == index.days[DAY_2].fingerprints["browsing"]


def test_a_failed_day_is_refused_until_it_is_healed(graph: Graph) -> None:
    assert graph.run(DAY_1, DAY_3).success
    spoil(graph)
    check_only = graph.job.get_subset(
        asset_check_selection={dg.AssetCheckKey(SESSIONS, "sessions_match_schema")}, asset_selection=set()
    )
    result = check_only.execute_in_process(instance=graph.instance, raise_on_error=False)
    [verdict] = result.get_asset_check_evaluations()
    assert not verdict.passed
    assert [day for day, found in verdict.metadata["days"].value.items() if not found["passed"]] == [DAY_2]

    refuse_unless_days_passed(graph.instance, [DAY_1, DAY_3])
    with pytest.raises(
        DatasetError, match=rf"{DAY_2}: sessions:sessions_match_schema failed: 1 failures|{DAY_2}: sessions"
    ):
        refuse_unless_days_passed(graph.instance, [DAY_1, DAY_2, DAY_3])

    assert graph.run(DAY_3, DAY_3).success  # a run of the day after rebuilds the day, and looks at it
    refuse_unless_days_passed(graph.instance, [DAY_1, DAY_2, DAY_3])


def test_a_backfill_without_its_checks_makes_their_verdicts_too_old(graph: Graph) -> None:
    assert graph.run(DAY_1, DAY_3).success
    graph.instance.report_runless_asset_event(dg.AssetMaterialization(SESSIONS, partition=DAY_2))
    refuse_unless_days_passed(graph.instance, [DAY_1, DAY_3])
    with pytest.raises(DatasetError, match=rf"{DAY_2}: sessions:\w+ is older than the day's data"):
        refuse_unless_days_passed(graph.instance, [DAY_2])
    refuse_unless_days_passed(graph.instance, [DAY_2], [BROWSING])


def test_a_run_that_died_while_it_wrote_leaves_its_days_unread(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert graph.run(DAY_1, DAY_3).success
    models = [key for key in DAILY if key.path[0] != "raw"]
    monkeypatch.setattr(DuckDBWarehouse, "row_counts", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
    assert not graph.run(DAY_3, DAY_3, models).success
    monkeypatch.undo()
    refuse_unless_days_passed(graph.instance, [DAY_1])
    refuse_unless_days_passed(graph.instance, [DAY_2, DAY_3], [BROWSING])
    with pytest.raises(DatasetError, match=rf"{DAY_2}: run \w+ began to write the day and has not checked it"):
        refuse_unless_days_passed(graph.instance, [DAY_2])
    assert graph.run(DAY_3, DAY_3, models).success
    refuse_unless_days_passed(graph.instance, [DAY_2, DAY_3])


def test_a_failed_model_surfaces_in_the_steps_error(graph: Graph) -> None:
    assert graph.run(DAY_1, DAY_3).success
    with graph.warehouse.connect() as connection:
        connection.execute(
            "insert into raw.browsing_train_copied select * replace ('' as product_sku_hash) from raw.browsing_train"
        )
    result = graph.run(DAY_2, DAY_2, [key for key in DAILY if key.path[0] != "raw"])
    assert not result.success
    assert "test distinct_events_are_complete failed (models/marts/distinct_events.yml): Got 3 results" in failures(
        result
    )
    with pytest.raises(
        DatasetError, match=rf"{DAY_2}: distinct_events:distinct_events_are_complete failed: 3 rows fail"
    ):
        refuse_unless_days_passed(graph.instance, [DAY_2])


def test_a_day_emptied_at_the_source_is_empty_in_every_table(graph: Graph) -> None:
    assert graph.run(DAY_1, DAY_3).success
    graph.land(("elsewhere", ms("2026-10-20"), "view", ""), replace=(DAY_2, DAY_2))
    result = graph.run(DAY_2, DAY_2)
    assert result.success, failures(result)
    for table, column in {
        "distinct_events": "event_date",
        "sessions": "session_date",
        "cart_sessions": "session_date",
    }.items():
        counts = graph.warehouse.row_counts(table, column, DAY_1, DAY_3)
        assert counts[DAY_2] == 0
    with graph.warehouse.read("select session_id, event_count from sessions order by 1") as reader:
        assert reader.read_all().to_pylist() == [
            {"session_id": "late", "event_count": 1},
            {"session_id": "over-midnight", "event_count": 1},
        ]


def test_assets_are_described(graph: Graph) -> None:
    assets = {node.key.to_user_string(): node for node in graph.definitions.resolve_asset_graph().asset_nodes}
    for name in ("raw/browsing_train", "raw/search_train", "raw/sku_to_content"):
        assert (assets[name].group_name, assets[name].owners) == ("raw", ["team:data"])
    for name in ("stg_browsing", "distinct_events", "session_stats", "sessions", "cart_sessions", "products"):
        assert (assets[name].group_name, assets[name].owners) == ("warehouse", ["team:data"])
        assert "One row per" in assets[name].description
        assert assets[name].kinds >= {"dbt", "duckdb"}
    assert {key.to_user_string() for key in assets["sessions"].parent_keys} == {"distinct_events", "session_stats"}


def test_the_catalog_is_loaded_and_built(graph: Graph) -> None:
    header = "product_sku_hash,description_vector,category_hash,image_vector,price_bucket\n"
    (graph.root / "source" / "sku_to_content.csv").write_text(header + "p,,a/b,,3\nq,,,,\n")
    graph.land(("x", ms(DAY_1), "view", ""))
    keys = [dg.AssetKey(["raw", "sku_to_content"]), dg.AssetKey("stg_products"), dg.AssetKey("products")]
    result = graph.job.execute_in_process(instance=graph.instance, asset_selection=keys, raise_on_error=False)
    assert result.success, failures(result)
    counted = [event.metadata for event in result.asset_materializations_for_node("warehouse_catalog")]
    assert [metadata["dagster/row_count"].value for metadata in counted if "dagster/row_count" in metadata] == [2]
    with graph.warehouse.read("select sku, category, price_bucket from products order by 1") as reader:
        assert [tuple(row.values()) for row in reader.read_all().to_pylist()] == [("p", "a/b", 3), ("q", None, None)]
