from datetime import date, datetime

import pytest

from bigger_boat.data.intent_dataset import INTENT_COLUMNS, build_intent_dataset
from bigger_boat.data.split_files import read_split, split_path
from bigger_boat.errors import DatasetError


@pytest.fixture
def examples(tmp_path, to_batches, four_days):
    """Build from sessions, return (session_id, cut, actions, label) of every split."""

    def build(*sessions, split="train"):
        build_intent_dataset(to_batches(list(sessions)), four_days, tmp_path)
        rows = read_split(tmp_path, split, ["session_id", "cut", "actions", "label"]).rows()
        return [(session_id, cut, " ".join(actions), label) for session_id, cut, actions, label in rows]

    return build


def test_an_example_per_cut_that_the_session_reaches(examples, make_session):
    # add is event 3; 5 events follow it, so cuts 0, 2 and 4 are reached, 6 is not
    session = make_session("s", 0, "view detail:A add:A view detail:B add:B view search")
    assert examples(session) == [
        ("s", 0, "view detail add", False),
        ("s", 2, "view detail add view detail", False),
        ("s", 4, "view detail add view detail add view", False),
    ]


def test_all_six_cuts(examples, make_session):
    session = make_session("s", 0, "add:A " + "view " * 10 + "purchase:A")
    assert examples(session) == [("s", cut, " ".join(["add"] + ["view"] * cut), True) for cut in (0, 2, 4, 6, 8, 10)]


def test_nothing_at_or_after_the_first_purchase_survives(examples, make_session):
    # the 2 events before the purchase reach cut 2; the events behind it are gone, the second purchase with them
    session = make_session("s", 0, "add:A view view purchase:A view add:B view purchase:B")
    assert examples(session) == [("s", 0, "add", True), ("s", 2, "add view view", True)]


def test_a_cut_that_only_the_purchase_would_fill_is_left_out(examples, make_session):
    assert examples(make_session("s", 0, "add:A view purchase:A")) == [("s", 0, "add", True)]


def test_a_purchase_right_after_the_add_leaves_the_add(examples, make_session):
    assert examples(make_session("s", 0, "view add:A@5 purchase:A@5")) == [("s", 0, "view add", True)]


def test_a_session_that_buys_before_its_first_add_has_no_example(examples, make_session):
    assert examples(make_session("s", 0, "detail:A purchase:A add:B view view purchase:B")) == []


def test_a_session_without_an_add_has_no_example(examples, make_session):
    assert examples(make_session("s", 0, "view detail:A purchase:A"), make_session("t", 0, "view")) == []


def test_a_remove_is_an_event_like_others_and_does_not_end_the_cart(examples, make_session):
    assert examples(make_session("s", 0, "add:A remove:A view")) == [
        ("s", 0, "add", False),
        ("s", 2, "add remove view", False),
    ]


def test_the_other_columns_are_cut_along(tmp_path, make_session, to_batches, four_days):
    session = make_session("s", 0, "detail:A add:A@9 view@9 remove:A@20 purchase:B@60", second=3600)
    assert build_intent_dataset(to_batches([session]), four_days, tmp_path) == {"train": 2, "validation": 0, "test": 0}
    one_am = 1767225600000 + 3600 * 1000  # 2026-01-01T01:00:00Z
    assert read_split(tmp_path, "train").rows() == [
        (
            "s",
            date(2026, 1, 1),
            datetime(2026, 1, 1, 1),
            0,
            ["detail", "add"],
            ["A", "A"],
            [one_am, one_am + 9000],
            True,
        ),
        (
            *("s", date(2026, 1, 1), datetime(2026, 1, 1, 1), 2),
            ["detail", "add", "view", "remove"],
            ["A", "A", "", "A"],
            [one_am, one_am + 9000, one_am + 9000, one_am + 20000],
            True,
        ),
    ]


def test_columns_tell_nothing_of_the_end(tmp_path, make_session, to_batches, four_days):
    build_intent_dataset(to_batches([make_session("s", 0, "add:A view")]), four_days, tmp_path)
    for split in ("train", "validation", "test"):  # empty splits have the same columns
        assert read_split(tmp_path, split).columns == INTENT_COLUMNS.names
        assert split_path(tmp_path, split).is_file()


def test_rows_go_to_the_split_of_their_day_in_total_order(examples, tmp_path, make_session):
    sessions = [
        make_session("late", 0, "add:A view view", second=50),
        make_session("b", 0, "add:A", second=10),
        make_session("a", 0, "add:A", second=10),
        make_session("next", 1, "add:A"),
        make_session("v", 2, "add:A purchase:A"),
        make_session("t", 3, "add:A"),
    ]
    train = examples(*sessions)
    assert [(name, cut) for name, cut, _, _ in train] == [("a", 0), ("b", 0), ("late", 0), ("late", 2), ("next", 0)]
    assert read_split(tmp_path, "validation")["session_id"].to_list() == ["v"]
    assert read_split(tmp_path, "test")["session_id"].to_list() == ["t"]


def test_lists_that_are_not_aligned_are_refused(tmp_path, make_session, to_batches, four_days):
    broken = make_session("s", 0, "view add:A") | {"skus": ["A"]}
    with pytest.raises(DatasetError, match="actions and skus are not aligned: row 0 has 2 and 1 values"):
        build_intent_dataset(to_batches([broken]), four_days, tmp_path)


def test_missing_values_are_refused(tmp_path, make_session, to_batches, four_days):
    broken = make_session("s", 0, "view add:A") | {"skus": ["A", None]}
    with pytest.raises(DatasetError, match="Column skus has 0 missing lists and 1 missing values"):
        build_intent_dataset(to_batches([broken]), four_days, tmp_path)
