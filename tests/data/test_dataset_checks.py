"""Every check passes on a healthy small shop, and fails on the fault that it is there for, planted in the files."""

import polars as pl
import pytest

from bigger_boat.data import check_specs
from bigger_boat.data.dataset_checks import (
    class_balance,
    intent_checks,
    recommendation_checks,
    rows_match_schema,
    sessions_disjoint,
    sessions_have_next_items,
    splits_in_time_order,
    vocabulary_coverage,
)
from bigger_boat.data.intent_dataset import build_intent_dataset
from bigger_boat.data.leakage_checks import events_end_before_label, labels_match_sessions, no_end_of_session_hint
from bigger_boat.data.recommendation_dataset import build_recommendation_dataset
from bigger_boat.data.schemas import intent_schema, recommendation_schema
from bigger_boat.data.split_files import read_split, split_path


@pytest.fixture
def carts(make_session):
    """A small shop: each day one session that buys and two that do not."""
    return [
        session
        for day in range(4)
        for session in (
            make_session(f"buys{day}", day, "view detail:A add:A view view purchase:A view", second=10),
            make_session(f"leaves{day}", day, "click:B detail:B add:B view view remove:B view", second=20),
            make_session(f"stays{day}", day, "detail:A detail:B add:B", second=30),
        )
    ]


@pytest.fixture
def intent(tmp_path, carts, to_batches, four_days):
    build_intent_dataset(to_batches(carts), four_days, tmp_path / "intent")
    return tmp_path / "intent"


@pytest.fixture
def items(tmp_path, carts, to_batches, four_days):
    build_recommendation_dataset(to_batches(carts), four_days, tmp_path / "items")
    return tmp_path / "items"


def plant(directory, change, split="train"):
    """Write a split again, changed."""
    change(read_split(directory, split)).write_parquet(split_path(directory, split))


def where(session, **changed):
    """Return a change that replaces columns in the rows of one session."""
    hit = pl.col("session_id") == session
    return lambda frame: frame.with_columns(
        pl.when(hit).then(value).otherwise(pl.col(name)).cast(frame.schema[name]).alias(name)
        for name, value in changed.items()
    )


def fails(outcome, *words):
    assert not outcome.passed
    for word in words:
        assert word in outcome.description, outcome.description


def test_a_healthy_small_shop_passes_every_check(intent, items, carts, to_batches, four_days):
    outcomes = intent_checks(intent, four_days, to_batches(carts, 5))
    assert [(each.name, each.blocking) for each in outcomes] == [
        (s.name, s.blocking) for s in check_specs.INTENT_CHECKS
    ]
    assert [each for each in outcomes if not each.passed] == []
    by_name = {each.name: each for each in outcomes}
    # of a day: buys at cuts 0 and 2, leaves at 0, 2 and 4, stays at 0; so 6 examples, 2 with a purchase
    assert by_name["class_balance"].description == (
        "Share of examples with a purchase to come: train 33.3% of 12, validation 33.3% of 6, test 33.3% of 6."
    )
    assert by_name["class_balance"].value == pytest.approx(1 / 3)
    assert by_name["sessions_disjoint"].description.endswith("each in one split: train 6, validation 3, test 3.")
    outcomes = recommendation_checks(items, four_days)
    assert [each.name for each in outcomes] == [spec.name for spec in check_specs.RECOMMENDATION_CHECKS]
    assert [each for each in outcomes if not each.passed] == []
    # only "stays" has two items: "leaves" opened by its click what it looked at
    assert (
        "train 2 of 6, validation 1 of 3, test 1 of 3"
        in {e.name: e for e in outcomes}["sessions_have_next_items"].description
    )


def test_schema_finds_an_unknown_action(intent):
    plant(intent, where("stays1", actions=pl.lit(["detail", "detail", "teleport"])))
    fails(
        rows_match_schema(intent, intent_schema),
        "1 failures in 24 rows",
        "session stays1 of 2026-01-02",
        "every action is known",
    )


def test_schema_finds_an_add_among_the_items(items):
    plant(items, where("stays3", item_actions=pl.lit(["detail", "add"])), "test")
    fails(rows_match_schema(items, recommendation_schema), "test: session stays3", "every item is a detail or a click")


def test_schema_looks_at_empty_files_too(intent):
    plant(intent, lambda frame: frame.head(0).drop("skus"), "test")
    fails(rows_match_schema(intent, intent_schema), "test: column skus is missing")


def test_a_purchase_in_the_features_is_found(intent):
    plant(intent, where("stays0", actions=pl.lit(["detail", "purchase", "add"])))
    fails(events_end_before_label(intent), "1 rows of train show a purchase: session stays0 of 2026-01-01")


def test_an_example_longer_than_its_cut_is_found(intent):
    longer = pl.lit(["detail", "detail", "add", "view"])
    plant(intent, where("stays2", actions=longer), "validation")
    fails(events_end_before_label(intent), "1 rows of validation do not end at their cut", "stays2")


def test_a_cut_counted_from_the_second_add_is_found(intent):
    plant(intent, where("stays0", actions=pl.lit(["add", "detail", "add"])))
    fails(events_end_before_label(intent), "do not end at their cut, counted from the first add: session stays0")


def test_labels_shifted_by_one_are_found(intent, carts, to_batches):
    plant(intent, lambda frame: frame.with_columns(pl.col("label").shift(1, fill_value=False)))
    fails(labels_match_sessions(intent, to_batches(carts)), "examples have a label that is not the session's")


def test_events_after_the_purchase_are_found_when_the_purchase_itself_was_removed(intent, carts, to_batches):
    """The mistake of the original: drop the purchase event and keep what follows it."""
    events = where("buys0", actions=pl.lit(["view", "detail", "add", "view", "view", "view", "view"]))
    longer = where(
        "buys0", timestamps_ms=pl.lit([1767225610000 + 1000 * second for second in (0, 1, 2, 3, 4, 6, 7)]), cut=4
    )
    plant(intent, lambda frame: longer(events(frame)).unique(["session_id", "cut"], keep="last", maintain_order=True))
    assert events_end_before_label(intent).passed  # the rows alone look right
    fails(labels_match_sessions(intent, to_batches(carts)), "show an event at or after the purchase: session buys0")


def test_examples_left_out_by_their_label_are_found(intent, carts, to_batches):
    plant(intent, lambda frame: frame.filter(pl.col("label") | (pl.col("cut") < 4)))
    fails(
        labels_match_sessions(intent, to_batches(carts)), "2 sessions have not as many examples", "leaves0", "leaves1"
    )


def test_an_example_of_no_session_is_found(intent, carts, to_batches):
    fails(
        labels_match_sessions(intent, to_batches(carts[1:])), "2 examples are of no session with a cart: session buys0"
    )


def test_a_column_that_tells_the_length_is_found(intent):
    plant(intent, lambda frame: frame.with_columns(session_length=pl.lit(7)))
    fails(no_end_of_session_hint(intent), "train should have the columns", "session_length")


def test_an_end_hidden_in_the_start_is_found(intent, carts):
    plant(intent, where("stays0", started_at=carts[2]["ended_at"]))
    fails(
        no_end_of_session_hint(intent),
        "1 rows of train have a started_at that is not the first event's time: session stays0",
    )


def test_keeping_only_the_last_example_of_a_session_is_found(intent):
    """Then the number of events would be the length of the session, rounded to a cut."""
    plant(intent, lambda frame: frame.group_by("session_id", maintain_order=True).last().select(frame.columns))
    fails(no_end_of_session_hint(intent), "4 rows of train leave out a cut before them")


def test_an_example_that_does_not_continue_the_one_before_is_found(intent):
    at_cut_2 = (pl.col("session_id") == "leaves0") & (pl.col("cut") == 2)
    other = pl.when(at_cut_2).then(pl.lit(["B", "B", "B", "A", ""])).otherwise(pl.col("skus")).alias("skus")
    plant(intent, lambda frame: frame.with_columns(other))
    # cut 2 still continues cut 0; cut 4 does not continue cut 2
    fails(no_end_of_session_hint(intent), "1 rows of train do not continue the example before them: session leaves0")


def test_two_labels_of_one_session_are_found(intent):
    at_cut_2 = (pl.col("session_id") == "buys0") & (pl.col("cut") == 2)
    plant(intent, lambda frame: frame.with_columns(label=pl.col("label") & ~at_cut_2))
    fails(
        no_end_of_session_hint(intent), "1 rows of train have another label than the example before them: session buys0"
    )


def test_a_shuffled_split_is_found(intent, four_days):
    """Rows of all days dealt out at random: days overlap, and sessions are torn apart."""
    frames = {split: read_split(intent, split) for split in ("train", "validation", "test")}
    shuffled = pl.concat(frames.values()).sample(fraction=1, shuffle=True, seed=1)
    start = 0
    for split, frame in frames.items():
        plant(intent, lambda _, rows=shuffled.slice(start, frame.height): rows, split)
        start += frame.height
    fails(
        splits_in_time_order(intent, four_days),
        "train should hold 2026-01-01 to 2026-01-02, and holds",
        "do not come after",
    )
    fails(sessions_disjoint(intent), "sessions are in more than one split")


def test_rows_out_of_order_are_found(intent, four_days):
    plant(intent, lambda frame: frame.reverse(), "test")
    fails(
        splits_in_time_order(intent, four_days),
        "5 rows of test do not come after the row before them",
        "session_id, cut",
    )


def test_an_empty_split_is_found(items, four_days):
    plant(items, lambda frame: frame.head(0), "validation")
    fails(splits_in_time_order(items, four_days), "The validation split (2026-01-03 to 2026-01-03) has no row.")


def test_a_session_in_two_splits_is_found(items):
    test = read_split(items, "test")
    plant(items, lambda frame: pl.concat([frame, test.head(1)]))
    fails(sessions_disjoint(items), "1 sessions are in more than one split: session buys3 of 2026-01-04")


def test_a_session_twice_in_a_split_is_found(intent):
    plant(intent, lambda frame: pl.concat([frame, frame.head(1)]))
    fails(sessions_disjoint(intent), "1 sessions of train come twice by session_id, session_date, cut: session buys0")


def test_an_id_that_returns_another_day_is_another_session(tmp_path, make_session, to_batches, four_days):
    build_recommendation_dataset(
        to_batches([make_session("s", day, "detail:A") for day in range(4)]), four_days, tmp_path
    )
    assert sessions_disjoint(tmp_path).passed


@pytest.mark.parametrize(("keep", "missing"), [(False, "none with a purchase"), (True, "none without a purchase")])
def test_a_split_with_one_class_is_found(intent, keep, missing):
    plant(intent, lambda frame: frame.filter(pl.col("label") == keep), "validation")
    fails(class_balance(intent), "validation has", missing)


def test_sessions_without_a_next_item_are_found(items):
    plant(items, lambda frame: frame.with_columns(items=pl.col("items").list.head(1)), "test")
    fails(sessions_have_next_items(items), "None of the 3 sessions of test has a second item")


def test_products_that_training_does_not_know_are_a_warning(intent, items):
    assert vocabulary_coverage(items, "items").value == 1.0
    renamed = pl.col("items").list.eval(pl.concat_str(pl.lit("new-"), pl.element()))
    plant(items, lambda frame: frame.with_columns(items=renamed), "test")
    outcome = vocabulary_coverage(items, "items")
    fails(outcome, "Training knows 0.0% of the 4 products of test, less than 60%")
    assert not outcome.blocking
    assert vocabulary_coverage(intent, "skus").description == (
        "The 2 products of training cover 100.0% of validation and 100.0% of test, by events."
    )


def test_an_unreadable_file_fails_the_check_and_does_not_raise(intent):
    split_path(intent, "test").write_bytes(b"not parquet")
    fails(class_balance(intent), "It could not be computed")
