"""What a run has to do after something changed: nothing, a day and its neighbours, or what the size changes."""

from datetime import UTC, date, datetime

import dagster as dg
import polars as pl

from bigger_boat.data.dataset_manifest import read_manifest
from bigger_boat.data.landing import land
from bigger_boat.data.landing_index import files_for
from bigger_boat.demo import SELECTION

DAY, AROUND = "2026-10-10", ["2026-10-09", "2026-10-10", "2026-10-11"]
OF_THE_DAY = {"raw/browsing_train", "stg_browsing", "distinct_events"}
OF_NEIGHBOURS = {"session_stats", "sessions", "cart_sessions"}
OF_THE_CATALOG = {"raw/sku_to_content", "stg_products", "products"}


def reasons(plan):
    return {key.to_user_string(): reason for key, reason in plan.reasons.items()}


def test_a_second_run_has_nothing_to_do(shop):
    assert shop.plan(select=SELECTION).empty


def test_candidates_that_make_run_left_out_are_missing_in_a_plan_of_everything(shop):
    why = reasons(shop.plan())
    missing = [name for name, reason in why.items() if reason == "not made yet"]
    assert missing == ["lstm_recommender", "prodb_recommender", "hybrid_recommender"]
    assert why["recommender_leaderboard"] in [f"{name} changes" for name in missing]
    assert not {"knn_recommender", "intent_champion"} & set(why)


def test_another_size_trains_again_from_the_same_data(shop):
    plan = shop.plan(size="full")
    assert (plan.days, plan.partitioned) == ((), ())
    why = reasons(plan)
    trained = ("product_embeddings", "intent_model", "knn_recommender")
    assert {name: why[name] for name in trained} == dict.fromkeys(trained, "made at size quick")
    assert {"intent_champion", "recommendation_champion", "prediction_api"} <= set(why)
    assert not {"intent_dataset", "recommendation_dataset", *OF_THE_CATALOG} & set(why)


def test_a_corrected_day_is_made_again_with_its_neighbours(shop, tmp_path):
    correct_day(shop, tmp_path)
    plan = shop.plan()
    assert plan.days == tuple(AROUND)
    why = reasons(plan)
    by_day = {name: why[name] for name in [key.to_user_string() for key in plan.partitioned]}
    assert by_day == {
        **dict.fromkeys(OF_THE_DAY, "1 of 28 days"),
        **dict.fromkeys(OF_NEIGHBOURS, "3 of 28 days"),
    }
    assert not OF_THE_CATALOG & set(why)
    assert why["intent_dataset"] in ("sessions changes", "cart_sessions changes")

    before = {name: read_manifest(shop.folder(name)).inputs for name in ("intent_dataset", "recommendation_dataset")}
    assert shop.run(*by_day, days=plan.days).success
    assert shop.plan(select="group:raw or group:warehouse").empty
    assert shop.run(*before).success
    for name, inputs in before.items():
        after = read_manifest(shop.folder(name)).inputs
        changed = {input_name.split("/")[1] for input_name in inputs if inputs[input_name] != after[input_name]}
        assert changed == set(AROUND)
    why = reasons(shop.plan())
    assert why["product_embeddings"] == "recommendation_dataset is newer"
    assert not {"intent_dataset", "recommendation_dataset"} & set(why)


def test_a_day_that_was_written_and_not_checked_is_made_again(shop):
    """As after a kill between the two: nothing landed anew, and the data sets refuse the day."""
    key = dg.AssetKey("sessions")
    of_the_day = dg.AssetRecordsFilter(key, asset_partitions=[DAY])
    [record] = shop.instance.fetch_materializations(of_the_day, limit=1).records
    shop.instance.report_runless_asset_event(record.asset_materialization)
    plan = shop.plan(select="group:warehouse")
    assert (plan.days, reasons(plan)) == ((DAY,), {"sessions": "1 of 28 days", "cart_sessions": "1 of 28 days"})
    assert f"{DAY}: sessions:" in shop.run("recommendation_dataset").failures["recommendation_dataset"]
    assert shop.run("sessions", "cart_sessions", days=[DAY]).success
    assert shop.plan(select="group:warehouse").empty


def correct_day(shop, tmp_path):
    """Land a day's browsing again, every tenth session left out."""
    [file] = files_for(shop.settings.landing_dir, "browsing", DAY)
    rows = pl.read_parquet(file).filter(pl.col("session_id_hash").hash(seed=0) % 10 > 0)
    source = tmp_path / "correction"
    source.mkdir()
    rows.drop("event_id", "request_id").write_csv(source / "browsing_train.csv")
    day = date.fromisoformat(DAY)
    land(source, shop.settings.landing_dir, replace=(day, day), now=datetime(2026, 11, 1, tzinfo=UTC))
