from datetime import date, datetime

import pytest

from bigger_boat.data.recommendation_dataset import (
    RECOMMENDATION_COLUMNS,
    build_recommendation_dataset,
)
from bigger_boat.data.split_files import read_split


@pytest.fixture
def items(tmp_path, to_batches, four_days):
    """Build from one story, return its items as ``action:sku``; None where the session is left out."""

    def build(make_session, story):
        build_recommendation_dataset(to_batches([make_session("s", 0, story)]), four_days, tmp_path)
        rows = read_split(tmp_path, "train", ["item_actions", "items"]).rows()
        return " ".join(f"{action}:{sku}" for action, sku in zip(*rows[0], strict=True)) if rows else None

    return build


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        ("view detail:A view detail:B detail:A", "detail:A detail:B detail:A"),  # in order, repeats kept
        ("detail:A detail:A", "detail:A detail:A"),  # a repeat is no click
        ("search click:A detail:A", "click:A"),  # the click opens the detail: one item
        ("search click:A view detail:A", "click:A"),  # the page in between is no item
        ("search click:A add:A detail:A", "click:A"),  # neither is the add
        ("click:A detail:A detail:A", "click:A detail:A"),  # the second look is an item of its own
        ("click:A detail:B detail:A", "click:A detail:B detail:A"),  # another product in between
        ("click:A click:B detail:B", "click:A click:B"),
        ("click:A click:B detail:A", "click:A click:B detail:A"),  # the next item after click A is click B
        ("click:A click:A detail:A", "click:A click:A"),
        ("detail:A click:A", "detail:A click:A"),  # a click after the detail is not the one that opened it
        ("click:A detail:A click:A detail:A", "click:A click:A"),
        ("detail:A add:A remove:A purchase:A detail:B", "detail:A detail:B"),  # no targets
        ("view search add:A purchase:A", None),  # no item at all
        ("detail detail:A", "detail:A"),  # an event without a product is no item
    ],
)
def test_items_of_a_session(items, make_session, story, expected):
    assert items(make_session, story) == expected


def test_a_click_does_not_reach_into_the_next_session(tmp_path, make_session, to_batches, four_days):
    sessions = [make_session("a", 0, "search click:A"), make_session("b", 0, "detail:A", second=9)]
    build_recommendation_dataset(to_batches(sessions), four_days, tmp_path)
    assert read_split(tmp_path, "train")["items"].to_list() == [["A"], ["A"]]


def test_rows_carry_the_place_of_the_click(tmp_path, make_session, to_batches, four_days):
    sessions = [
        make_session("s", 0, "search@0 click:A@4 detail:A@6 add:A@8 detail:B@9", second=60),
        make_session("none", 0, "view", second=61),
        make_session("v", 2, "detail:C"),
        make_session("t", 3, "click:D"),
    ]
    rows = build_recommendation_dataset(to_batches(sessions), four_days, tmp_path)
    assert rows == {"train": 1, "validation": 1, "test": 1}
    minute = 1767225600000 + 60_000  # 2026-01-01T00:01:00Z
    frame = read_split(tmp_path, "train")
    assert frame.columns == RECOMMENDATION_COLUMNS.names
    assert frame.rows() == [
        (
            *("s", date(2026, 1, 1), datetime(2026, 1, 1, 0, 1)),
            ["A", "B"],
            [minute + 4000, minute + 9000],
            ["click", "detail"],
        )
    ]
