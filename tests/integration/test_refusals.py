"""Quality travels with the data: what failed its checks goes no further, also when an asset is materialized alone."""

import duckdb
import polars as pl
import pytest

from bigger_boat.data.landing_index import files_for

DAY = "2026-10-10"
TABLES = ["stg_browsing", "stg_search", "distinct_events", "session_stats", "sessions", "cart_sessions"]


def assert_endpoint_stays(shop, name, version):
    """An endpoint alone publishes nothing new, and says so."""
    ran = shop.run(f"{name}_endpoint")
    assert ran.success
    assert ran.made[f"{name}_endpoint"]["sentence"] == f"Nothing new: version {version} of {name} stays."
    assert shop.current(name) == version


def test_a_champion_alone_after_a_failed_check_of_its_data_set(shop):
    version, address = shop.current("intent"), shop.address("intent_champion")
    with duckdb.connect(str(shop.settings.warehouse_path)) as connection:
        connection.execute("update cart_sessions set bought = not bought where session_date = '2026-10-05'")
    assert not shop.run("intent_dataset").success
    for alone in ("intent_model", "intent_report", "intent_champion"):
        ran = shop.run(alone)
        assert not ran.success
        assert "failed 1 of its 8 checks. labels_match_sessions: " in ran.failures[alone]
        assert "have a label that is not the session's" in ran.failures[alone]
    assert shop.address("intent_champion") == address
    assert_endpoint_stays(shop, "intent", version)


@pytest.mark.slow
def test_a_backfill_over_a_bad_day_and_then_the_data_sets(shop):
    [file] = files_for(shop.settings.landing_dir, "browsing", DAY)
    good = file.read_bytes()
    rows = pl.read_parquet(file)
    pl.concat([rows, rows.head(7)]).write_parquet(file)

    shop.run("raw/browsing_train", days=[DAY])
    assert shop.run(*TABLES, days=[DAY]).success  # a run of its own, as in a backfill: its day counts as made
    for name in ("intent_dataset", "recommendation_dataset"):
        address = shop.address(name)
        ran = shop.run(name)
        assert not ran.success
        reason = f"{rows.height + 7:,} rows were loaded, but {rows.height:,} are in force in the landing zone"
        assert f"{DAY}: raw/browsing_train:rows_match_landing failed: {reason}" in ran.failures[name]
        assert "land --replace" in ran.failures[name]
        assert shop.address(name) == address
    assert_endpoint_stays(shop, "recommendation", shop.current("recommendation"))

    file.write_bytes(good)
    assert shop.run("raw/browsing_train", *TABLES, days=[DAY]).success
    assert shop.run("recommendation_dataset").success
