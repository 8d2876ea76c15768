"""Both builders against slow code that is plainly right, on sessions that hypothesis makes up."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from bigger_boat.data import split_files
from bigger_boat.data.dataset_checks import intent_checks, recommendation_checks
from bigger_boat.data.intent_dataset import build_intent_dataset
from bigger_boat.data.recommendation_dataset import build_recommendation_dataset
from bigger_boat.data.split_files import read_split

WORDS = ["view", "search", *(f"{action}:{sku}" for action in ("detail", "click", "add", "remove") for sku in "AB")]
STORIES = st.lists(st.sampled_from([*WORDS, "add:A", "purchase:A"]), min_size=1, max_size=24).map(" ".join)
SHOPS = st.lists(st.tuples(st.integers(0, 3), STORIES, st.integers(0, 3)), max_size=12)


def intent_oracle(session):
    events = list(zip(session["actions"], session["skus"], session["timestamps_ms"], strict=True))
    bought_at = next((place for place, event in enumerate(events) if event[0] == "purchase"), None)
    shown = events if bought_at is None else events[:bought_at]
    added_at = next((place for place, event in enumerate(shown) if event[0] == "add"), None)
    if added_at is None:
        return
    for cut in (0, 2, 4, 6, 8, 10):
        example = shown[: added_at + cut + 1]
        if len(example) == added_at + cut + 1:
            yield (
                session["session_id"],
                cut,
                *(list(column) for column in zip(*example, strict=True)),
                bought_at is not None,
            )


def recommendation_oracle(session):
    items, before = [], None
    for action, sku, time in zip(session["actions"], session["skus"], session["timestamps_ms"], strict=True):
        if action in ("detail", "click"):
            if not (action == "detail" and before == ("click", sku)):
                items.append((sku, time, action))
            before = (action, sku)
    if items:
        yield (session["session_id"], *(list(column) for column in zip(*items, strict=True)))


def read(directory, columns):
    return [row for split in ("train", "validation", "test") for row in read_split(directory, split, columns).rows()]


@settings(max_examples=40, deadline=None)
@given(shop=SHOPS, rows=st.integers(1, 5))
def test_builders_agree_with_the_oracles(shop, rows, make_session, to_batches, four_days):
    split_files.BATCH_ROWS, whole = rows, split_files.BATCH_ROWS
    sessions = [make_session(f"s{place:02d}", day, story, second) for place, (day, story, second) in enumerate(shop)]
    ordered = sorted(sessions, key=lambda row: (row["session_date"], row["started_at"], row["session_id"]))
    with tempfile.TemporaryDirectory() as folder:
        try:
            build_intent_dataset(to_batches(sessions, rows + 2), four_days, Path(folder, "intent"))
            build_recommendation_dataset(to_batches(sessions, rows + 2), four_days, Path(folder, "items"))
        finally:
            split_files.BATCH_ROWS = whole
        columns = ["session_id", "cut", "actions", "skus", "timestamps_ms", "label"]
        assert read(Path(folder, "intent"), columns) == [row for each in ordered for row in intent_oracle(each)]
        columns = ["session_id", "items", "item_timestamps_ms", "item_actions"]
        assert read(Path(folder, "items"), columns) == [row for each in ordered for row in recommendation_oracle(each)]


NOT_FOR_TINY_SHOPS = {"splits_in_time_order", "class_balance", "sessions_have_next_items", "vocabulary_coverage"}
"""They ask for rows and classes in each split, which a shop of a few sessions need not have."""


@settings(max_examples=10, deadline=None)
@given(shop=SHOPS)
def test_the_checks_pass_on_whatever_the_builders_make(shop, make_session, to_batches, four_days):
    sessions = [make_session(f"s{place:02d}", day, story, second) for place, (day, story, second) in enumerate(shop)]
    carts = [session for session in sessions if session["first_add_index"] is not None]
    with tempfile.TemporaryDirectory() as folder:
        build_intent_dataset(to_batches(carts), four_days, Path(folder, "intent"))
        build_recommendation_dataset(to_batches(sessions), four_days, Path(folder, "items"))
        outcomes = [
            *intent_checks(Path(folder, "intent"), four_days, to_batches(carts)),
            *recommendation_checks(Path(folder, "items"), four_days),
        ]
    assert [each for each in outcomes if not each.passed and each.name not in NOT_FOR_TINY_SHOPS] == []
