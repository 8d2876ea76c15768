"""From a published data set to the champion's bundle, through Dagster: four candidates, one chosen, fitted again."""

import json
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest

from bigger_boat.assets import champions, embeddings, evaluation, models
from bigger_boat.data.dataset_manifest import CheckOutcome, describe_dataset, write_manifest
from bigger_boat.data.recommendation_dataset import RECOMMENDATION_COLUMNS
from bigger_boat.data.splits import split_days
from bigger_boat.ml.bundle import read_bundle, write_bundle
from bigger_boat.resources.batch_launcher import HereCompute
from bigger_boat.resources.local_endpoint_host import LocalEndpointHost
from bigger_boat.resources.storage import AddressIOManager, LocalStorage
from bigger_boat.resources.tracking import Tracking
from bigger_boat.resources.training import Training

DAYS = [date(2026, 10, 1) + timedelta(days=n) for n in range(6)]
PLACES = 30
SMALL = {
    "lstm_recommender": {"units": 8, "epochs": 2},
    "prodb_recommender": {"units": 8, "epochs": 2},
    "hybrid_recommender": {"judged_predictions": 300},
}
CHAIN = [
    embeddings.product_embeddings,
    models.knn_recommender,
    models.lstm_recommender,
    models.prodb_recommender,
    models.hybrid_recommender,
    evaluation.recommender_leaderboard,
    champions.recommendation_champion,
]


def publish(storage: LocalStorage) -> str:
    """Write a small ``recommendation_dataset``: walks around a ring of products, with returns."""
    generator, splits = np.random.default_rng(0), split_days(DAYS)
    with storage.draft("datasets/recommendation_dataset") as draft:
        rows = {"train": 0, "validation": 0, "test": 0}
        for split in rows:
            sessions = []
            for day in splits.days_of(split):
                for number in range(50):
                    place, items = int(generator.integers(PLACES)), []
                    for _ in range(generator.integers(1, 7)):
                        items.append(f"p{place:02d}" if len(items) < 2 or generator.random() < 0.8 else items[-2])
                        place = (place + int(generator.integers(1, 3))) % PLACES
                    started = datetime(day.year, day.month, day.day, number % 24, tzinfo=UTC)
                    times = [int(started.timestamp() * 1000) + 30_000 * step for step in range(len(items))]
                    actions = ["detail"] * len(items)
                    sessions.append((f"s{number}", day, started.replace(tzinfo=None), items, times, actions))
            sessions.sort(key=lambda row: (row[1], row[2], row[0]))
            frame = pl.DataFrame(sessions, schema=RECOMMENDATION_COLUMNS.names, orient="row")
            frame.write_parquet(draft.path / f"{split}.parquet")
            rows[split] = len(frame)
        products = {
            "sku": [f"p{n:02d}" for n in range(PLACES + 1)],
            "category": [f"c{n // 5}" for n in range(PLACES + 1)],
        }
        pl.DataFrame({**products, "price_bucket": list(range(PLACES + 1))}).write_parquet(
            draft.path / "products.parquet"
        )
        manifest = describe_dataset(
            draft.path,
            name="recommendation_dataset",
            version=draft.version,
            created_at=datetime.now(UTC),
            splits=splits,
            inputs={},
            rows=rows,
            schema=RECOMMENDATION_COLUMNS,
            checks=[CheckOutcome("rows_match_schema", passed=True, blocking=True, description="They do.")],
        )
        write_manifest(draft.path, manifest)
    return draft.address


def materialize(storage: LocalStorage, addresses: Path, *chosen: dg.AssetsDefinition) -> dg.ExecuteInProcessResult:
    """Make the ``chosen`` assets of the chain from what ``addresses`` points at."""
    names = {asset.key.to_user_string() for asset in chosen}
    return dg.materialize(
        [*CHAIN, dg.AssetSpec("recommendation_dataset").with_io_manager_key("address_io_manager")],
        selection=chosen,
        resources={
            "storage": storage,
            "training": Training(size="quick"),
            "cpu_compute": HereCompute(),
            "gpu_compute": HereCompute(),
            "tracking": Tracking(kind="off"),
            "endpoint_host": LocalEndpointHost(endpoints_dir=f"{storage.base_dir}/endpoints"),
            "address_io_manager": AddressIOManager(base_dir=str(addresses)),
        },
        run_config={"ops": {name: {"config": SMALL[name]} for name in SMALL.keys() & names}},
        raise_on_error=False,
    )


def point(addresses: Path, asset: str, address: str) -> None:
    (addresses / f"{asset}.json").write_text(json.dumps({"address": address, "run_id": ""}))


def failure(result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(event.step_failure_data.error.to_string() for event in result.all_events if event.is_step_failure)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What materializing the chain left: its result, and the storage."""
    base = tmp_path_factory.mktemp("data")
    storage, addresses = LocalStorage(base_dir=str(base)), base / "addresses"
    addresses.mkdir()
    point(addresses, "recommendation_dataset", publish(storage))
    result = materialize(storage, addresses, *CHAIN)
    assert result.success, failure(result)
    return result, storage


@pytest.fixture
def addresses(made, tmp_path) -> Path:
    """A copy of the addresses, to point elsewhere."""
    return Path(shutil.copytree(Path(made[1].base_dir) / "addresses", tmp_path / "addresses"))


def metadata(result, asset):
    return {k: v.value for k, v in result.asset_materializations_for_node(asset)[0].metadata.items()}


def test_the_leaderboard_names_the_chosen_and_shows_the_ladder(made):
    result, storage = made
    shown = metadata(result, "recommender_leaderboard")
    report = evaluation.read_report(storage, result.output_for_node("recommender_leaderboard"))
    assert shown["chosen"] == report["chosen"]["asset"]
    assert report["chosen"]["reason"] == shown["reason"]
    for name in (
        "knn",
        "lstm",
        "prodb",
        "hybrid",
        "popularity",
        "session_popularity",
        "sequential_rules",
        "vsknn",
        "vstan",
    ):
        assert f"| {name} |" in shown["test"]
        assert f"| {name} |" in shown["test_without_repeats"]
    assert {row["by"] for row in report["test_slices"]} == {
        "items seen",
        "popularity of the target",
        "hour",
        "category",
    }
    answers = report["test_without_a_product_yet"]
    assert [row["answer"] for row in answers] == ["first products of late", "popularity"]
    assert {row["predictions"] for row in answers} == {50}  # every session of the test day


def test_each_candidate_says_how_it_behaves(made):
    result, storage = made
    for kind in ("knn", "lstm", "prodb", "hybrid"):
        bundle = read_bundle(storage.fetch(result.output_for_node(f"{kind}_recommender")))
        assert bundle.kind == kind
        assert 0 <= bundle.info["metrics"]["behaviour"]["overlap_repeated"] <= 1


def test_the_champion_is_the_chosen_configuration_on_all_days(made):
    result, storage = made
    champion = read_bundle(storage.fetch(result.output_for_node("recommendation_champion")))
    report = evaluation.read_report(storage, result.output_for_node("recommender_leaderboard"))
    candidate = read_bundle(storage.fetch(report["chosen"]["bundle"]))
    assert report["chosen"]["asset"] == f"{champion.kind}_recommender"
    assert champion.info["configuration"] == candidate.info["configuration"]
    assert champion.info["chosen"] == candidate.info["chosen"]
    assert champion.info["refit"] == {"first": "2026-10-01", "last": "2026-10-06", "count": 6}
    checks = {evaluation.check_name: evaluation.passed for evaluation in result.get_asset_check_evaluations()}
    assert checks
    assert all(checks.values())


def test_the_leaderboard_compares_what_was_made(made, addresses):
    _, storage = made
    for name in ("lstm_recommender", "prodb_recommender", "hybrid_recommender"):
        (addresses / f"{name}.json").unlink()
    result = materialize(storage, addresses, evaluation.recommender_leaderboard)
    assert result.success, failure(result)
    assert metadata(result, "recommender_leaderboard")["reason"] == (
        "It is the only candidate. lstm_recommender is left out: It has not been made. "
        "prodb_recommender is left out: It has not been made. hybrid_recommender is left out: It has not been made."
    )


def test_candidates_of_other_data_are_not_compared(made, addresses):
    _, storage = made
    point(addresses, "recommendation_dataset", publish(storage))
    result = materialize(storage, addresses, evaluation.recommender_leaderboard)
    assert not result.success
    assert "hybrid_recommender is left out: The model was fitted on other data: " in failure(result)


def test_a_hybrid_needs_an_lstm_of_its_own_data(made, addresses):
    result, storage = made
    trained = read_bundle(storage.fetch(result.output_for_node("lstm_recommender")))
    other = write_bundle(
        storage.folder("bundles/lstm_recommender"),
        name=trained.name,
        kind=trained.kind,
        export=lambda directory: shutil.copytree(trained.saved_model, directory),
        golden=trained.golden,
        info={**trained.info, "data_versions": {"recommendation_dataset": "older"}},
    )
    point(addresses, "lstm_recommender", storage.address(other.directory))
    result = materialize(storage, addresses, models.hybrid_recommender)
    assert not result.success
    assert "Materialize lstm_recommender again, then hybrid_recommender." in failure(result)
