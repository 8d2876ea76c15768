"""The simulated shop: the challenge's format to the letter, same bytes for a seed, shares close to the real data."""

import json
from dataclasses import replace
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bigger_boat.data import simulator
from bigger_boat.data.simulator import YOOCHOOSE_LIKE, ShopParameters, simulate, writer
from bigger_boat.data.simulator.identifiers import PRODUCT, SESSION, hashed_ids
from bigger_boat.data.simulator.parameters import PACES, PRODUCT_MODES, STATES, STEP_ACTIONS
from bigger_boat.data.simulator.shoppers import (
    ADD,
    DETAIL,
    PURCHASE,
    VIEW,
    action_probabilities,
    gaps_ms,
    transition_tables,
)

END = date(2026, 11, 22)  # a Sunday
SHOP = {"sessions": 27_000, "days": 28, "products": 2_000, "seed": 1, "end_date": END}
SMALL = {"sessions": 1_500, "days": 5, "products": 200, "seed": 7, "end_date": END}
TIME = "server_timestamp_epoch_ms"


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    """The default shop, about 200 k browsing rows."""
    out = tmp_path_factory.mktemp("shop")
    simulate(out, **SHOP)
    return out


@pytest.fixture(scope="module")
def browsing(shop) -> pl.DataFrame:
    return pl.read_csv(shop / "browsing_train.csv")


@pytest.fixture(scope="module")
def distinct(browsing) -> pl.DataFrame:
    """Browsing rows in time order without the pageviews that double a detail."""
    details = browsing.filter(pl.col("product_action") == "detail").select("session_id_hash", TIME, "hashed_url")
    views = browsing.filter(pl.col("event_type") == "pageview")
    alone = views.join(details, on=["session_id_hash", TIME, "hashed_url"], how="anti")
    products = browsing.filter(pl.col("event_type") == "event_product")
    return pl.concat([alone, products]).sort("session_id_hash", TIME, "product_action", maintain_order=True)


@pytest.fixture(scope="module")
def clicks(distinct) -> pl.DataFrame:
    """Details with the detail before it, and whether the session saw the product before."""
    details = distinct.filter(pl.col("product_action") == "detail")
    return details.with_columns(
        previous=pl.col("product_sku_hash").shift(1).over("session_id_hash"),
        seen=~pl.struct("session_id_hash", "product_sku_hash").is_first_distinct(),
    )


@pytest.fixture(scope="module")
def carts(distinct) -> pl.DataFrame:
    """One row per session with an add: ``bought``, and ``after``, the events between first add and purchase."""
    added = (pl.col("product_action") == "add").fill_null(False).cum_sum().over("session_id_hash") > 0
    bought = (pl.col("product_action") == "purchase").fill_null(False)
    events = distinct.with_columns(added=added, bought=bought, paid=bought.cum_sum().over("session_id_hash") > 0)
    return (
        events.filter(pl.col("added"))
        .group_by("session_id_hash")
        .agg(pl.col("bought").any(), after=(~pl.col("paid")).sum() - 1)
    )


# -- format


def test_header_and_empty_values_are_those_of_the_challenge(shop):
    header, *lines = (shop / "browsing_train.csv").read_text().splitlines()
    assert header == "session_id_hash,event_type,product_action,product_sku_hash,server_timestamp_epoch_ms,hashed_url"
    view = next(line for line in lines if ",pageview," in line).split(",")
    assert view[2:4] == ["", ""]
    assert [len(view[0]), len(view[4]), len(view[5])] == [64, 13, 64]
    assert set(view[0] + view[5]) <= set("0123456789abcdef")


def test_rows_hold_what_their_type_says(browsing):
    views = browsing.filter(pl.col("event_type") == "pageview")
    products = browsing.filter(pl.col("event_type") == "event_product")
    assert len(views) + len(products) == len(browsing)
    assert views["product_action"].null_count() == views["product_sku_hash"].null_count() == len(views)
    assert set(products["product_action"]) == {"detail", "add", "remove", "purchase"}
    assert products["product_sku_hash"].str.len_bytes().eq(64).all()
    assert browsing["hashed_url"].null_count() == 0


def test_every_detail_comes_with_a_pageview_of_the_same_page_and_time(browsing):
    keys = ["session_id_hash", TIME, "hashed_url"]
    details = browsing.filter(pl.col("product_action") == "detail").select(keys)
    views = browsing.filter(pl.col("event_type") == "pageview").select(keys)
    assert len(details) > 30_000
    assert len(details.join(views, on=keys, how="semi")) == len(details)
    assert len(details.unique()) == len(details)


def test_file_is_not_in_time_order(browsing):
    """Neighbouring rows come from anywhere: their mean distance in time is a third of the period, as if drawn apart."""
    distance = np.abs(np.diff(browsing[TIME].to_numpy())).mean()
    assert distance / (28 * 86_400_000) == pytest.approx(1 / 3, abs=0.02)


def test_urls_and_products_are_not_one_to_one(browsing):
    pairs = browsing.filter(pl.col("product_action") == "detail").select("product_sku_hash", "hashed_url").unique()
    assert pairs["product_sku_hash"].n_unique() < len(pairs)
    assert pairs["hashed_url"].n_unique() < len(pairs)


def test_searches_hold_vectors_and_text_lists(shop, browsing):
    searches = pl.read_csv(shop / "search_train.csv")
    assert searches.columns == ["session_id_hash", "query_vector", "clicked_skus_hash", "product_skus_hash", TIME]
    for vector in searches["query_vector"].head(50):
        assert len(json.loads(vector)) == 50
    assert searches["product_skus_hash"][0].startswith("['")
    shown = searches["product_skus_hash"].str.replace_all("'", '"').str.json_decode(pl.List(pl.String))
    clicked = searches["clicked_skus_hash"].str.replace_all("'", '"').str.json_decode(pl.List(pl.String))
    assert 0.1 < clicked.is_not_null().mean() < 0.4
    frame = searches.with_columns(shown=shown, clicked=clicked).filter(pl.col("clicked").is_not_null())
    assert frame.select(pl.col("shown").list.contains(pl.col("clicked").list.first())).to_series().all()
    opened = frame.select("session_id_hash", pl.col("clicked").list.first().alias("product_sku_hash"))
    details = browsing.filter(pl.col("product_action") == "detail")
    keys = ["session_id_hash", "product_sku_hash"]
    assert len(opened.join(details, on=keys, how="semi")) == len(opened)


def test_catalogue_has_every_product_once_with_some_metadata_missing(shop, browsing):
    catalogue = pl.read_csv(shop / "sku_to_content.csv")
    fields = ["description_vector", "category_hash", "image_vector", "price_bucket"]
    assert catalogue.columns == ["product_sku_hash", *fields]
    assert catalogue["product_sku_hash"].n_unique() == len(catalogue) == 2_000
    assert set(browsing["product_sku_hash"].drop_nulls()) <= set(catalogue["product_sku_hash"])
    present = catalogue.select(pl.any_horizontal(pl.col(fields).is_not_null())).to_series()
    assert present.mean() == pytest.approx(0.6, abs=0.04)
    complete = catalogue.select(pl.all_horizontal(pl.col(fields).is_not_null())).to_series()
    assert complete.sum() < present.sum()
    assert set(catalogue["price_bucket"].drop_nulls()) == set(range(1, 11))
    assert catalogue["category_hash"].drop_nulls().str.contains(r"^[0-9a-f]{64}/[0-9a-f]{64}$").all()


def test_vectors_tell_the_category(shop):
    catalogue = pl.read_csv(shop / "sku_to_content.csv").drop_nulls(["description_vector", "category_hash"])
    vectors = np.array([json.loads(text) for text in catalogue["description_vector"]])
    category = catalogue["category_hash"].to_numpy()
    cosine = vectors @ vectors.T
    same = category[:, None] == category[None, :]
    np.fill_diagonal(same, False)
    assert vectors.shape[1] == 50
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-4)
    assert cosine[same].mean() > 0.5 > 0.1 > cosine[~same].mean()


# -- the same shop again


def _bytes(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_same_seed_same_bytes_other_seed_other_ids(tmp_path):
    for name, seed in (("one", 7), ("again", 7), ("other", 8)):
        simulate(tmp_path / name, **SMALL | {"seed": seed})
    one, again, other = (_bytes(tmp_path / name) for name in ("one", "again", "other"))
    assert list(one) == ["browsing_train.csv", "search_train.csv", "sku_to_content.csv", "intent.parquet"]
    assert one == again
    assert all(one[name] != other[name] for name in one)
    ids = [set(pl.read_csv(tmp_path / name / "browsing_train.csv")["session_id_hash"]) for name in ("one", "other")]
    assert not ids[0] & ids[1]


def test_rows_do_not_depend_on_the_size_of_the_buckets(tmp_path, monkeypatch):
    simulate(tmp_path / "one", **SMALL)
    monkeypatch.setattr(writer, "BUCKET_ROWS", 1_000)
    monkeypatch.setattr(writer, "SEARCH_BUCKET_ROWS", 50)
    simulate(tmp_path / "many", **SMALL)
    for name in ("browsing_train.csv", "search_train.csv"):
        one, many = ((tmp_path / shop / name).read_text().splitlines() for shop in ("one", "many"))
        assert one != many
        assert sorted(one) == sorted(many)


def test_blocks_add_up(tmp_path, monkeypatch):
    monkeypatch.setattr(simulator, "BLOCK_SESSIONS", 500)
    steps = []
    report = simulate(tmp_path, **SMALL, progress=lambda what, done, total: steps.append((what, done, total)))
    assert [step for step in steps if step[0] == "sessions"] == [
        ("sessions", done, 1_500) for done in (500, 1_000, 1_500)
    ]
    assert steps[-1] == ("rows", report.events, report.events)
    ids = [pl.read_csv(tmp_path / name)["session_id_hash"] for name in ("browsing_train.csv", "search_train.csv")]
    assert pl.concat(ids).n_unique() == 1_500


def test_report_counts_what_was_written(tmp_path):
    report = simulate(tmp_path, **SMALL)
    for path in report.files:
        assert len(pl.read_csv(path)) == report.rows[path.name]
    frame = pl.read_csv(tmp_path / "browsing_train.csv")
    sessions = {
        action: frame.filter(pl.col("product_action") == action)["session_id_hash"].n_unique()
        for action in ("add", "purchase")
    }
    assert (report.carts, report.purchases) == (sessions["add"], sessions["purchase"])
    assert (report.sessions, report.events) == (1_500, len(frame))


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    simulate(tmp_path, **SMALL)
    before = _bytes(tmp_path)

    def full_disk(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(simulator, "write_search", full_disk)
    with pytest.raises(OSError, match="No space left"):
        simulate(tmp_path, **SMALL | {"seed": 9})
    assert _bytes(tmp_path) == before


@pytest.mark.parametrize("size", [{"sessions": 0}, {"days": 0}, {"products": 9}])
def test_impossible_sizes_are_refused(tmp_path, size):
    with pytest.raises(ValueError, match="at least 1 session, 1 day and 10 products"):
        simulate(tmp_path, **SMALL | size)


def test_negative_seed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="from 0 up; got -1"):
        simulate(tmp_path, **SMALL | {"seed": -1})


def test_smallest_shop(tmp_path):
    report = simulate(tmp_path, sessions=1, days=1, products=10, seed=0, end_date=END)
    assert report.sessions == 1
    assert report.events >= 1


def test_ids_are_distinct_by_number_kind_and_seed():
    numbers = np.arange(20_000)
    ids = [
        set(hashed_ids(numbers, kind, seed).to_pylist()) for kind, seed in ((SESSION, 1), (PRODUCT, 1), (SESSION, 2))
    ]
    assert [len(part) for part in ids] == [20_000] * 3
    assert len(set.union(*ids)) == 60_000


# -- the probabilities


def test_rows_of_probabilities_sum_to_one_and_have_the_right_shape():
    parameters = YOOCHOOSE_LIKE
    assert np.array(parameters.product_modes).shape == (len(STATES), len(PRODUCT_MODES))
    assert np.array(parameters.pace_shares).shape == (len(STATES), len(PACES))
    for rows in (parameters.product_modes, parameters.pace_shares, parameters.first_state, parameters.first_action):
        assert np.array(rows).sum(axis=-1) == pytest.approx(1)
    assert transition_tables(parameters).sum(axis=-1) == pytest.approx(1)
    table = action_probabilities(parameters)
    assert table.shape == (len(STATES), len(STEP_ACTIONS), 2, 2, 2, len(STEP_ACTIONS))
    assert table.sum(axis=-1) == pytest.approx(1)


def test_action_factors_by_hand():
    """One state's row worked out on paper: view after view, and no add with a full cart."""
    row = (0.3, 0.4, 0.1, 0.0, 0.1, 0.0, 0.1)
    rows = (row,) * len(STATES)
    parameters = replace(
        YOOCHOOSE_LIKE, cart_actions=rows, repeat_factor=(2.0,) * len(STATES), add_elsewhere_factor=0.5
    )
    table = action_probabilities(parameters)
    after_view = table[2, VIEW, 1, 1, 0]
    assert after_view == pytest.approx(np.array([0.6, 0.4, 0.05, 0, 0.1, 0, 0.1]) / 1.25)
    after_detail = table[2, DETAIL, 1, 1, 0]
    assert after_detail == pytest.approx(np.array([0.3, 0.8, 0.1, 0, 0.1, 0, 0.1]) / 1.4)
    assert table[2, DETAIL, 1, 1, 1, ADD] == table[2, DETAIL, 1, 0, 0, ADD] == 0


def test_gaps_follow_their_pace():
    draws = gaps_ms(YOOCHOOSE_LIKE, np.ones(50_000, dtype=int), np.random.default_rng(0)) / 1000
    assert np.median(draws) == pytest.approx(YOOCHOOSE_LIKE.pace_medians_s[1], rel=0.03)
    assert draws.max() <= YOOCHOOSE_LIKE.longest_gap_s


def test_nobody_buys_or_removes_what_is_not_in_the_cart(distinct):
    """Replays every cart: the purchase takes all of it."""
    events = distinct.filter(pl.col("product_action").is_in(["add", "remove", "purchase"])).filter(
        (pl.col("product_action") == "add").any().over("session_id_hash")
    )
    assert (
        events["session_id_hash"].n_unique()
        == distinct.filter(pl.col("product_action").is_in(["add", "purchase"]))["session_id_hash"].n_unique()
    )
    for _, session in events.group_by("session_id_hash"):
        cart: list[str] = []
        rows = session.sort(TIME).select(TIME, "product_action", "product_sku_hash").rows()
        for place, (time, action, sku) in enumerate(rows):
            if action == "add":
                cart.append(sku)
            else:
                cart.remove(sku)
            if action == "purchase" and (place + 1 == len(rows) or rows[place + 1][0] != time):
                assert not cart


def test_a_purchase_needs_its_parameters(tmp_path):
    """The parameters are obeyed: a shop where nobody who has decided buys sells nothing."""
    never = tuple((*row[:PURCHASE], 0.0, *row[PURCHASE + 1 :]) for row in YOOCHOOSE_LIKE.cart_actions)
    report = simulate(tmp_path, **SMALL, parameters=replace(ShopParameters(), cart_actions=never))
    assert report.carts > 20
    assert report.purchases == 0


# -- shares (tolerances beside the real data's numbers; the two sources of FACTS.md pull length and product share apart)


def test_size_and_kinds_of_rows(shop, browsing):
    searches = len(pl.read_csv(shop / "search_train.csv"))
    rows = len(browsing) + searches
    assert len(browsing) / 27_000 == pytest.approx(7.3, abs=0.4)
    assert browsing["event_type"].eq("pageview").sum() / rows == pytest.approx(0.70, abs=0.06)
    assert browsing["event_type"].eq("event_product").sum() / rows == pytest.approx(0.28, abs=0.05)
    assert searches / rows == pytest.approx(0.02, abs=0.005)
    with_products = browsing.filter(pl.col("event_type") == "event_product")["session_id_hash"].n_unique()
    assert 1 - with_products / 27_000 == pytest.approx(0.66, abs=0.03)


def test_long_tail(browsing):
    counts = np.sort(browsing["product_sku_hash"].drop_nulls().value_counts()["count"].to_numpy())[::-1]
    assert counts[:20].sum() / counts.sum() == pytest.approx(0.34, abs=0.05)
    assert counts[:100].sum() / counts.sum() == pytest.approx(0.62, abs=0.07)
    assert np.median(counts) <= 10


def test_gaps_between_events(distinct):
    gaps = distinct.select(pl.col(TIME).diff().over("session_id_hash") / 1000).to_series().drop_nulls()
    gaps = gaps.filter(gaps > 0)
    quartiles = [gaps.quantile(share) for share in (0.25, 0.5, 0.75)]
    assert quartiles == pytest.approx([25, 56, 129], rel=0.12)
    assert 1_100 < gaps.quantile(0.99) < 1_740


def test_session_lengths_and_repeats(clicks):
    lengths = clicks.group_by("session_id_hash").len()["len"]
    lengths = lengths.filter(lengths > 1)
    assert 3 <= lengths.median() <= 4
    assert 4 <= lengths.mean() <= 6.5
    assert 7 <= lengths.quantile(0.9) <= 13
    assert 18 <= lengths.quantile(0.99) <= 28
    later = clicks.filter(pl.col("previous").is_not_null())
    assert (later["product_sku_hash"] == later["previous"]).mean() == pytest.approx(0.26, abs=0.03)
    assert later["seen"].mean() == pytest.approx(0.36, abs=0.05)


def test_carts_and_purchases(carts):
    assert len(carts) / 27_000 == pytest.approx(0.045, abs=0.006)
    assert carts["bought"].mean() == pytest.approx(0.225, abs=0.04)
    for cut, at_least in ((2, 800), (6, 400), (10, 200)):
        assert (carts["after"] >= cut).sum() > at_least
    assert carts.filter(pl.col("after") >= 10)["bought"].mean() == pytest.approx(0.26, abs=0.08)


def test_weekly_and_daily_rhythm(browsing):
    starts = browsing.group_by("session_id_hash").agg(pl.col(TIME).min())
    moments = starts.select(pl.from_epoch(TIME, "ms")).to_series()
    per_weekday = np.bincount(moments.dt.weekday().to_numpy() - 1, minlength=7)
    expected = np.array(YOOCHOOSE_LIKE.weekday_weights)
    assert per_weekday / per_weekday.sum() == pytest.approx(expected / expected.sum(), rel=0.06)
    assert per_weekday.argmin() == 5  # Saturday
    per_hour = np.bincount(moments.dt.hour().to_numpy(), minlength=24)
    assert per_hour[21] > 5 * per_hour[3]


def test_days_are_the_calendars_and_some_sessions_pass_midnight(browsing):
    moments = browsing.with_columns(moment=pl.from_epoch(TIME, "ms"))
    assert moments["moment"].min() >= datetime.combine(END - timedelta(days=27), datetime.min.time())
    assert moments["moment"].max() < datetime.combine(END + timedelta(days=1), datetime.min.time())
    assert moments["moment"].dt.date().n_unique() == 28
    days = moments.group_by("session_id_hash").agg(pl.col("moment").dt.date().n_unique())["moment"]
    assert 0.002 < (days > 1).mean() < 0.05


# -- what is worth learning


def test_next_product_depends_on_the_last(clicks):
    """The likeliest follower of a product, from three weeks, is right far more often than the most popular product."""
    steps = clicks.filter(
        pl.col("previous").is_not_null() & (pl.col("previous") != pl.col("product_sku_hash"))
    ).with_columns(late=pl.col(TIME) >= pl.col(TIME).min() + 21 * 86_400_000)
    early, late = steps.filter(~pl.col("late")), steps.filter(pl.col("late"))
    best = (
        early.group_by("previous", "product_sku_hash")
        .len()
        .sort("len", "product_sku_hash", descending=True)
        .unique("previous", keep="first", maintain_order=True)
        .select("previous", best="product_sku_hash")
    )
    by_follower = late.join(best, on="previous", how="left").select(pl.col("best") == pl.col("product_sku_hash"))
    popular = early["product_sku_hash"].value_counts(sort=True)["product_sku_hash"][0]
    assert by_follower.to_series().fill_null(False).mean() > 2 * (late["product_sku_hash"] == popular).mean()


def test_order_and_pace_tell_buyers_from_others(distinct, carts):
    """Buyers go on fast, in runs of the same kind; what kind, and how often, says little."""
    sessions = (
        distinct.with_columns(pl.col("product_action").fill_null("view"))
        .group_by("session_id_hash")
        .agg("product_action", pl.col(TIME))
    )
    rows = sessions.join(carts.filter(pl.col("after") >= 4), on="session_id_hash", how="inner")
    features = {True: [], False: []}
    for actions, times, bought in rows.select("product_action", TIME, "bought").iter_rows():
        first = actions.index("add")
        part, moments = actions[first + 1 : first + 5], times[first : first + 5]
        gap = np.log([after - before for before, after in pairwise(moments)]).mean()
        features[bought].append((gap, sum(a == b for a, b in pairwise(part)), part.count("view")))
    buyers, others = (np.array(features[bought]) for bought in (True, False))
    spread = np.concatenate([buyers, others]).std(axis=0)
    pace, runs, views = (buyers.mean(axis=0) - others.mean(axis=0)) / spread
    assert pace < -0.7
    assert runs > 0.3
    assert abs(views) < 0.5 * abs(pace)
