"""The data set assets in real runs: a DuckDB file, a landing index, a storage folder, and an instance with verdicts."""

import json
from datetime import UTC, datetime, timedelta

import dagster as dg
import duckdb
import pytest

from bigger_boat.data.dataset_manifest import read_manifest, require_passed
from bigger_boat.errors import DatasetError
from bigger_boat.resources.dbt_manifest import ensure_manifest
from bigger_boat.resources.duckdb_warehouse import DuckDBWarehouse
from bigger_boat.resources.landing_zone import LandingZone
from bigger_boat.resources.storage import AddressIOManager, LocalStorage

DAYS = ["2026-10-01", "2026-10-02", "2026-10-03", "2026-10-04"]
DATA_SETS = ["intent_dataset", "recommendation_dataset"]


@pytest.fixture(scope="module")
def datasets():
    ensure_manifest()
    from bigger_boat.assets import datasets

    return datasets


@pytest.fixture(scope="module")
def graph(datasets):
    """Both data sets with their checks, and an asset behind each."""

    def probe(name):
        @dg.asset(name=f"after_{name}", ins={"address": dg.AssetIn(name)}, io_manager_key="address_io_manager")
        def after(address: str) -> str:
            return address

        return after

    assets = [datasets.intent_dataset, datasets.recommendation_dataset, *map(probe, DATA_SETS)]
    return [*assets, datasets.intent_dataset_checks, datasets.recommendation_dataset_checks]


def landed(root, days):
    root.mkdir(parents=True, exist_ok=True)
    rows = {"browsing": 5, "search": 0, "rejected": 0}
    parts = {day: {"version": 1, "fingerprint": f"print-of-{day}", "rows": rows} for day in days}
    (root / "index.json").write_text(json.dumps({"format": 1, "parts": parts, "shifts": []}))


def write_sessions(path, buyers):
    """Each day three sessions: one looks at A and B, one leaves its cart, and one buys (on the days ``buyers``)."""
    rows = []
    for day in DAYS:
        midnight = datetime.fromisoformat(day).replace(tzinfo=UTC)
        stories = {"looks": "detail:A detail:B", "leaves": "detail:B add:B view view"}
        stories["buys"] = "click:A detail:A add:A " + ("purchase:A" if day in buyers else "view")
        for hour, (name, story) in enumerate(stories.items()):
            actions, skus = zip(*(word.partition(":")[::2] for word in story.split()), strict=True)
            start = midnight + timedelta(hours=hour)
            times = [int(start.timestamp() * 1000) + 1000 * place for place in range(len(actions))]
            counts = (actions.count("detail"), actions.count("click"))
            rows.append((name, day, start.replace(tzinfo=None), list(actions), list(skus), times, *counts))
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "create or replace table sessions (session_id text, session_date date, started_at timestamp,"
            " actions text[], skus text[], timestamps_ms bigint[], detail_count int, click_count int)"
        )
        connection.executemany("insert into sessions values (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        connection.execute(
            "create or replace table products as select 'A' as sku, 'bags' as category, 3 as price_bucket"
        )
        connection.execute(
            "create or replace table cart_sessions as"
            " select *, (list_position(actions, 'add') - 1)::int as first_add_index,"
            " list_contains(actions, 'purchase') as bought from sessions where list_contains(actions, 'add')"
        )


@pytest.fixture
def shop(tmp_path, datasets):
    """Four landed days in the warehouse, all of whose checks passed."""

    class Shop:
        def __init__(self):
            self.storage = LocalStorage(base_dir=str(tmp_path))
            self.warehouse = tmp_path / "warehouse.duckdb"
            self.landing = tmp_path / "landing"
            self.instance = dg.DagsterInstance.ephemeral()

        def resources(self):
            return {
                "landing_zone": LandingZone(path=str(self.landing)),
                "warehouse": DuckDBWarehouse(path=str(self.warehouse)),
                "storage": self.storage,
                "address_io_manager": AddressIOManager(base_dir=str(tmp_path / "addresses")),
            }

        def report(self, passed=True, first=DAYS[0], last=DAYS[-1], only=""):
            """Report every blocking check (or those named ``only``) for a range of days."""
            from bigger_boat.assets.quality import blocking_checks
            from bigger_boat.assets.verdicts import range_metadata

            for key in blocking_checks():
                if only in key.name:
                    metadata, why = range_metadata(first, last), "" if passed else "3 sessions go back in time"
                    evaluation = dg.AssetCheckEvaluation(key.asset_key, key.name, passed, metadata, description=why)
                    self.instance.report_runless_asset_event(evaluation)

        def run(self, graph, selection=None):
            defs = dg.Definitions(assets=graph[:4], asset_checks=graph[4:], resources=self.resources())
            keys = [dg.AssetKey(name) for name in selection] if selection else None
            job = defs.resolve_implicit_global_asset_job_def()
            return job.execute_in_process(instance=self.instance, raise_on_error=False, asset_selection=keys)

        def address(self, name):
            path = tmp_path / "addresses" / f"{name}.json"
            return json.loads(path.read_text())["address"] if path.exists() else None

        def versions(self, name):
            return sorted(path.name for path in (tmp_path / "datasets" / name).glob("*"))

    made = Shop()
    landed(made.landing, DAYS)
    write_sessions(made.warehouse, buyers=DAYS)
    made.report()
    return made


def check_events(result):
    return {(each.asset_key.path[-1], each.check_name): each for each in result.get_asset_check_evaluations()}


def failures(result):
    return " ".join(
        event.step_failure_data.user_failure_data.description or ""
        for event in result.all_events
        if event.is_step_failure and event.step_failure_data.user_failure_data
    )


def test_a_run_publishes_both_with_the_results_of_their_checks(graph, shop):
    result = shop.run(graph)
    assert result.success
    evaluations = check_events(result)
    for name in DATA_SETS:
        manifest = read_manifest(shop.storage.fetch(shop.address(name)))
        require_passed(manifest)
        assert shop.address(f"after_{name}") == shop.address(name) == f"datasets/{name}/{manifest.version}"
        shown = {key[1]: (each.passed, each.description) for key, each in evaluations.items() if key[0] == name}
        assert shown == {check.name: (check.passed, check.description) for check in manifest.checks}
        assert manifest.days["count"] == 4
    # a day: "looks" has A and B, "leaves" has B, "buys" has A, which it clicked; cuts 0 of both carts, 2 of "leaves"
    items = result.asset_materializations_for_node("recommendation_dataset")[0].metadata
    examples = result.asset_materializations_for_node("intent_dataset")[0].metadata
    assert [items[f"rows_{split}"].value for split in ("train", "validation", "test")] == [6, 3, 3]
    assert [examples[f"rows_{split}"].value for split in ("train", "validation", "test")] == [6, 3, 3]
    assert examples["class_balance"].value == pytest.approx(1 / 3)
    assert examples["plot"].value.startswith("![plot](data:image/png;base64,")
    assert examples["days_train"].value == "2026-10-01 to 2026-10-02"


def test_the_same_sessions_have_the_same_data_version(graph, shop):
    versions = []
    for _ in range(2):
        assert shop.run(graph, DATA_SETS).success
        manifests = [read_manifest(shop.storage.fetch(shop.address(name))) for name in DATA_SETS]
        versions.append([manifest.data_version for manifest in manifests])
        for name, version in zip(DATA_SETS, versions[-1], strict=True):
            event = shop.instance.get_latest_materialization_event(dg.AssetKey(name))
            assert event.asset_materialization.tags["dagster/data_version"] == version
    assert versions[0] == versions[1]
    assert len(shop.versions("intent_dataset")) == 2


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_day_whose_check_failed_is_refused_with_the_reason(graph, shop, name):
    assert shop.run(graph, [name]).success
    before = shop.address(name)
    shop.report(passed=False, first=DAYS[2], last=DAYS[2], only="sessions_match_schema")
    result = shop.run(graph, [name])
    assert not result.success
    assert "2026-10-03: sessions:sessions_match_schema failed: 3 sessions go back in time" in failures(result)
    assert shop.address(name) == before  # what was published stays, and nothing is added
    assert shop.versions(name) == [before.split("/")[-1]]


def test_only_the_days_that_are_read_count(graph, shop):
    """A bad day that has not landed, or is not in the warehouse, is not asked about."""
    shop.report(passed=False, first="2026-10-05", last="2026-10-05")
    landed(shop.landing, [*DAYS, "2026-10-05"])
    assert shop.run(graph, ["intent_dataset"]).success
    assert read_manifest(shop.storage.fetch(shop.address("intent_dataset"))).days["last"] == "2026-10-04"


def test_a_data_set_that_fails_its_check_is_published_with_it_and_stops_the_run(graph, shop):
    write_sessions(shop.warehouse, buyers=DAYS[:3])  # nobody buys on the last day: cut 0 twice, cut 2 once
    result = shop.run(graph)
    assert not result.success
    evaluation = check_events(result)["intent_dataset", "class_balance"]
    assert (evaluation.passed, evaluation.blocking) == (False, True)
    assert "test has 3 examples, and none with a purchase" in evaluation.description
    assert shop.address("after_intent_dataset") is None  # blocked within the run
    manifest = read_manifest(shop.storage.fetch(shop.address("intent_dataset")))
    with pytest.raises(DatasetError, match="class_balance: test has 3 examples"):
        require_passed(manifest)  # and for whoever reads it alone, later


def test_files_altered_after_publishing_fail_the_checks_step(graph, shop):
    assert shop.run(graph, ["intent_dataset"]).success
    (shop.storage.fetch(shop.address("intent_dataset")) / "test.parquet").write_bytes(b"other")
    checks = dg.AssetSelection.checks_for_assets("intent_dataset")
    job = dg.define_asset_job("checks_job", selection=checks)
    defs = dg.Definitions(assets=graph[:4], asset_checks=graph[4:], jobs=[job], resources=shop.resources())
    result = defs.resolve_job_def("checks_job").execute_in_process(instance=shop.instance, raise_on_error=False)
    assert not result.success
    assert "test.parquet is not the file that was checked" in failures(result)


def test_nothing_landed_is_said_in_words(graph, shop):
    landed(shop.landing, [])
    result = shop.run(graph, ["intent_dataset"])
    assert "Nothing has landed yet." in failures(result)


def test_two_days_are_too_few(graph, shop):
    landed(shop.landing, DAYS[:2])
    result = shop.run(graph, ["recommendation_dataset"])
    assert "at least 3 days, one each to train, validate and test; found 2" in failures(result)
    assert shop.versions("recommendation_dataset") == []
