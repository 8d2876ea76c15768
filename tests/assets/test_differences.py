"""Two versions that are really loaded and asked, with the data sets behind them; and versions that cannot be found."""

import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))

from tiny_models import FOLLOWS, export_intent, export_recommender, intent_golden, recommendation_golden

from bigger_boat.assets.common import table
from bigger_boat.assets.differences import CHANGES, changes_metadata, compare, find_version
from bigger_boat.data.dataset_manifest import describe_dataset, write_manifest
from bigger_boat.data.recommendation_dataset import RECOMMENDATION_COLUMNS
from bigger_boat.data.splits import Splits
from bigger_boat.data.vocabulary import SPLITS
from bigger_boat.errors import BundleError
from bigger_boat.ml.bundle import write_bundle
from bigger_boat.resources.local_endpoint_host import LocalEndpointHost
from bigger_boat.resources.storage import LocalStorage


@pytest.fixture(scope="module")
def storage(tmp_path_factory) -> LocalStorage:
    return LocalStorage(base_dir=str(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def host(storage) -> LocalEndpointHost:
    return LocalEndpointHost(endpoints_dir=f"{storage.base_dir}/endpoints")


@pytest.fixture(scope="module")
def versions(storage) -> dict[str, Path]:
    """Two recommenders, of which the second follows other products, fitted on two data sets; an intent model."""
    folder = storage.folder("bundles/recommendation_champion")
    found = {}
    for name, follows in (("old", FOLLOWS), ("new", FOLLOWS[::-1].copy())):
        _dataset(storage, name, ["sku-a", "sku-b", *(["sku-c"] if name == "new" else [])])
        found[name] = write_bundle(
            folder,
            name="recommendation",
            kind="tiny",
            export=lambda path, follows=follows: export_recommender(path, follows),
            golden=recommendation_golden(follows),
            info={"data_versions": {"recommendation_dataset": name}, "configuration": {"kind": name}},
        ).directory
    intent = write_bundle(
        storage.folder("bundles/intent_champion"),
        name="intent",
        kind="tiny",
        export=export_intent,
        golden=intent_golden(),
        info={},
    )
    return {**found, "intent": intent.directory}


def _dataset(storage: LocalStorage, version: str, products: list[str]) -> None:
    """A data set of three days, one a split: a session over these products on each."""
    folder = storage.folder(f"datasets/recommendation_dataset/{version}")
    folder.mkdir(parents=True)
    days = [date(2026, 11, day) for day in (1, 2, 3)]
    for split, day in zip(SPLITS, days, strict=True):
        times = list(range(len(products)))
        row = ["s", day, datetime(2026, 11, day.day), products, times, ["detail"] * len(products)]
        columns = {name: [value] for name, value in zip(RECOMMENDATION_COLUMNS.names, row, strict=True)}
        pq.write_table(pa.table(columns, schema=RECOMMENDATION_COLUMNS), folder / f"{split}.parquet")
    manifest = describe_dataset(
        folder,
        name="recommendation_dataset",
        version=version,
        created_at=datetime(2026, 11, 4, tzinfo=UTC),
        splits=Splits(*((day,) for day in days)),
        inputs={},
        rows=dict.fromkeys(SPLITS, 1),
        schema=RECOMMENDATION_COLUMNS,
        checks=(),
    )
    write_manifest(folder, manifest)


def test_both_are_asked_the_same_and_data_and_configuration_are_held_side_by_side(storage, versions):
    found = compare(versions["old"], versions["new"], storage)
    # the validation session (a, b, and c to come), and the four golden sessions that both bundles have
    assert found.asked == 5
    assert found.changed == 4 / 5  # what sessions begin with answers the empty session, the same in both
    [slices] = [rows for title, rows in found.tables.items() if title.startswith("Slices")]
    assert {row["slice"] for row in slices} == {"all", "2 to 3 seen", "next one new to the session"}
    data = {row["what"]: (row["before"], row["after"]) for row in found.tables["Data"]}
    assert data["recommendation_dataset: products"] == (2, 3)
    assert data["recommendation_dataset: products that went, that came"] == (0, 1)
    assert data["recommendation_dataset: rows of train"] == (1, 1)
    assert found.tables["Configuration"] == [{"setting": "kind", "before": "old", "after": "new"}]


def test_a_data_set_that_was_swept_is_said_to_be_gone(storage, versions, tmp_path):
    elsewhere = LocalStorage(base_dir=str(tmp_path))
    found = compare(versions["old"], versions["new"], elsewhere)
    assert found.asked == 4  # the golden sessions are in the bundles
    assert not any("products" in row["what"] for row in found.tables["Data"])


def test_a_version_is_equal_to_itself(storage, versions):
    found = compare(versions["new"], versions["new"], storage)
    assert (found.changed, found.tables["Configuration"]) == (0.0, [])


def test_a_promotion_goes_on_where_there_is_nothing_to_compare(storage, versions):
    assert changes_metadata(None, versions["new"], storage) == {}
    told = changes_metadata(versions["intent"], versions["new"], storage)[CHANGES].value
    assert told.startswith("What changes could not be found out: Version")
    assert "answer different questions" in told
    shown = changes_metadata(versions["old"], versions["new"], storage)[CHANGES].value
    assert "changes the first product of 80.0% of 5 sessions" in shown
    assert table([{"setting": "kind", "before": "old", "after": "new"}]).value in shown


def test_a_promotion_goes_on_whatever_keeps_the_comparison_from_being_made(storage, versions, monkeypatch):
    def damaged(*_):
        raise pa.ArrowInvalid("Parquet magic bytes not found")

    monkeypatch.setattr("bigger_boat.assets.differences._data_rows", damaged)
    told = changes_metadata(versions["old"], versions["new"], storage)[CHANGES].value
    assert told == "What changes could not be found out: Parquet magic bytes not found"


def test_versions_are_found_where_they_are_published_or_written(storage, host, versions):
    written = versions["new"].parent.name
    assert find_version(written, storage, host) == versions["new"]
    with pytest.raises(BundleError, match=f"There is no version {written} of intent"):
        find_version(written, storage, host, "intent")
    host.publish("recommendation", versions["new"])
    assert find_version(written, storage, host, "recommendation") == host.versions("recommendation")[0]
    with pytest.raises(BundleError, match="swept away, or it is misspelt"):
        find_version("20200101T000000000Z-00000000", storage, host)
