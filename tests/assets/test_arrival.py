"""Checks of what arrives, in real runs: a warning stops nothing, a bad day stops whoever would learn from it."""

import sys
from pathlib import Path

import dagster as dg
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no test folder on the path
from warehouse_graph import DAILY, Graph, ms

from bigger_boat.assets import arrival, datasets, landing, raw, warehouse
from bigger_boat.assets.quality import refuse_unless_days_passed
from bigger_boat.automation.runner import failures_of
from bigger_boat.data.dataset_manifest import read_manifest
from bigger_boat.errors import DatasetError
from bigger_boat.resources.storage import AddressIOManager, LocalStorage

DAYS = ["2026-10-05", "2026-10-06", "2026-10-07"]
DATASET = dg.AssetKey("recommendation_dataset")
CATALOG = [dg.AssetKey(key) for key in (["raw", "sku_to_content"], ["stg_products"], ["products"])]
RAW = [key for key in DAILY if key.path[0] == "raw"]
BLOCKING = {"rejects_below_a_fifth", "durations_not_negative", "sessions_have_an_action"}


def build_graph(root):
    """Return the warehouse half of the graph, and the data sets behind it."""
    graph = Graph(root)
    graph.storage = LocalStorage(base_dir=str(root))
    stored = {"storage": graph.storage, "address_io_manager": AddressIOManager(base_dir=str(root / "addresses"))}
    graph.definitions = dg.Definitions(
        assets=dg.load_assets_from_modules([landing, raw, warehouse, datasets]),
        asset_checks=dg.load_asset_checks_from_modules([warehouse, arrival]),
        resources={**graph.definitions.resources, **stored},
    )
    graph.job = graph.definitions.resolve_implicit_global_asset_job_def()
    return graph


@pytest.fixture
def graph(tmp_path):
    return build_graph(tmp_path)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Three days, a rejected row among them, and the run that made their tables and the data set."""
    graph = build_graph(tmp_path_factory.mktemp("judged"))
    land_and_make_the_catalogue(graph)
    graph.land(*events(DAYS[0]), *events(DAYS[1], bad=1), *events(DAYS[2]))
    return graph, graph.run(DAYS[0], DAYS[2], [*DAILY, DATASET])


def land_and_make_the_catalogue(graph):
    """Four products, of which the shop knows the category; they land with the first events."""
    header = "product_sku_hash,description_vector,category_hash,image_vector,price_bucket"
    (graph.root / "source").mkdir()
    (graph.root / "source" / "sku_to_content.csv").write_text(header + "".join(f"\np{n},,c,," for n in range(4)) + "\n")
    graph.land(*events(DAYS[0]))
    made = graph.job.execute_in_process(instance=graph.instance, asset_selection=CATALOG, raise_on_error=False)
    assert made.success, failures(made)


def events(day, bad=0):
    """12 rows that land, in three sessions, and rows without a product, which do not."""
    rows = [(f"{day}-{place % 3}", ms(day, 60 * place), "detail", f"p{place % 4}") for place in range(12)]
    return rows + [(f"lost-{place}", ms(day, place), "purchase", "") for place in range(bad)]


def results(run):
    return {check.check_name: check for check in run.get_asset_check_evaluations()}


def failures(run):
    data = [event.step_failure_data for event in run.all_events if event.is_step_failure]
    return " ".join(each.user_failure_data.description for each in data if each.user_failure_data)


def materialized(run):
    return {event.asset_key for event in run.get_asset_materialization_events()}


def only_data_set(graph):
    return graph.job.execute_in_process(instance=graph.instance, asset_selection=[DATASET], raise_on_error=False)


def test_a_day_with_a_fifth_of_rejects_stops_the_data_set_and_shows_five_examples(graph):
    land_and_make_the_catalogue(graph)
    graph.land(*events(DAYS[0]), *events(DAYS[1], bad=6), *events(DAYS[2]))

    together = graph.run(DAYS[0], DAYS[2], [*DAILY, DATASET])

    rejects = results(together)["rejects_below_a_fifth"]
    assert (rejects.passed, rejects.blocking, rejects.metadata["value"].value) == (False, True, 6 / 18)
    assert materialized(together) == set(DAILY), "the tables are there to be looked at"
    assert not together.success
    [(step, said)], _ = failures_of(graph.instance, together.run_id)
    assert (step, said.count("product_missing")) == ("arrival_checks", 5), "the run names the check and its examples"

    alone = only_data_set(graph)

    said = failures(alone)
    assert f"{DAYS[1]}: sessions:rejects_below_a_fifth failed: 6 of 18 rows (33.3%) were rejected, such as:" in said
    lines = range(14 + 12, 14 + 12 + 5)  # after the header, 12 rows of the first day and 12 of the second
    assert [f"browsing_train.csv line {line}: product_missing" in said for line in lines] == [True] * 5
    assert said.count("product_missing") == 5
    assert "land --replace" in said
    assert not list((graph.root / "datasets").glob("recommendation_dataset/*"))
    refuse_unless_days_passed(graph.instance, [DAYS[0], DAYS[2]])

    graph.land(*events(DAYS[1]), replace=(DAYS[1], DAYS[1]))
    healed = graph.run(DAYS[1], DAYS[1], [*DAILY, DATASET])

    assert healed.success, failures(healed)
    [address] = [event.metadata["address"].value for event in healed.asset_materializations_for_node(DATASET.path[0])]
    assert read_manifest(graph.storage.fetch(address)).days["count"] == 3


def test_a_day_of_which_every_row_was_rejected_is_missed(graph):
    lost = [("lost", ms(DAYS[1], second), "purchase", "") for second in range(9)]
    graph.land(*events(DAYS[0]), *lost, *events(DAYS[2]), *events("2026-10-08"))
    run = graph.run(DAYS[0], "2026-10-08", [*DAILY, DATASET])

    said = failures(only_data_set(graph))

    assert not run.success
    unknown = results(run)["products_have_metadata"]
    assert (unknown.passed, unknown.description[:23]) == (False, "No catalogue is loaded:")

    assert f"every row of {DAYS[1]} was rejected when it landed" in said
    assert said.count("product_missing") == 5


def test_warnings_stop_nothing_and_every_check_has_a_sentence_and_most_a_number(judged):
    _, run = judged

    assert run.success, failures(run)
    found = {spec.name: results(run)[spec.name] for spec in arrival.arrival_checks.check_specs}
    assert {name for name, check in found.items() if check.blocking} == BLOCKING
    assert {name for name, check in found.items() if not check.passed} == {
        "days_have_arrived",  # the days of this test are long over
        "few_rows_rejected",
    }
    severities = {check.severity for check in found.values() if not check.passed}
    assert severities == {dg.AssetCheckSeverity.WARN}
    assert found["few_rows_rejected"].description.startswith(
        f"{DAYS[1]}: 1 of 13 rows (7.7%) were rejected, such as:\n"
        "    browsing_train.csv line 26: product_missing (lost-0,event_product,purchase,,1"
    )
    assert found["session_length_is_usual"].description == "Sessions have 4 to 10 events in the mean. Measured: 4."
    numbers = {name: check.metadata["value"].value for name, check in found.items() if "value" in check.metadata}
    assert found.keys() - numbers.keys() == {"volume_is_usual"}, "there is no week before"
    by_day = found["session_length_is_usual"].metadata["days"].value
    assert {day: verdict["value"] for day, verdict in by_day.items()} == {
        "2026-10-04": None, **dict.fromkeys(DAYS, 4.0), "2026-10-08": None
    }  # fmt: skip


def test_a_session_that_ends_before_it_starts_is_refused_by_day(judged):
    graph, _ = judged
    refuse_unless_days_passed(graph.instance, DAYS)
    with graph.warehouse.connect() as connection:
        connection.execute(f"update sessions set duration_s = -1 where session_id = '{DAYS[1]}-2'")
    checks = graph.job.get_subset(asset_selection=set(), asset_check_selection=set(arrival.arrival_checks.check_keys))

    checks.execute_in_process(instance=graph.instance, raise_on_error=False)

    refuse_unless_days_passed(graph.instance, [DAYS[0], DAYS[2]])
    with pytest.raises(
        DatasetError, match=rf"sessions:durations_not_negative failed: 1 of 3 .*\n    session {DAYS[1]}-2"
    ):
        refuse_unless_days_passed(graph.instance, DAYS)


def test_raw_tables_alone_are_judged_by_the_landing_index_alone(graph):
    graph.land(*events(DAYS[0], bad=1))

    run = graph.run(DAYS[0], DAYS[0], RAW)

    assert run.success, failures(run)
    of_raw = {spec.name for spec in arrival.arrival_checks.check_specs if spec.asset_key in RAW}
    assert results(run).keys() == of_raw | {"rows_match_landing"}
