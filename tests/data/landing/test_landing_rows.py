"""Faults of a row: the good rows are kept, the bad ones are put aside with file, line and reason, and counted."""

import json

import polars as pl
import pytest
from landing_source import (
    BROWSING,
    CATALOG,
    DAY_MS,
    DAY_ONE,
    DAY_ONE_MS,
    NOW,
    SEARCH,
    VECTOR,
    browsing,
    csv_text,
    only_browsing,
    product,
    search,
    write_source,
)

from bigger_boat.data.landing import land
from bigger_boat.data.landing_index import CATALOG as CATALOG_PART
from bigger_boat.data.landing_index import files_for, read_index, rejected_files
from bigger_boat.data.source_rows import REASONS

HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
FUTURE_MS = int(NOW.timestamp() * 1000) + 3_600_000

BAD_BROWSING = {
    "session_id_missing": browsing(session=""),
    "session_id_malformed": browsing(session="a b"),
    "event_type_unknown": browsing(event_type="Pageview"),
    "product_action_unknown": product(action="zoom"),
    "product_action_missing": product(action=""),
    "product_action_on_pageview": browsing(action="add"),
    "product_missing": product(action="purchase", sku=""),
    "product_malformed": product(sku="p,1"),
    "url_malformed": browsing(url="a b"),
    "timestamp_missing": browsing(ms=""),
    "timestamp_not_a_number": browsing(ms="soon"),
    "timestamp_negative": browsing(ms=-5),
    "timestamp_in_seconds": browsing(ms=DAY_ONE_MS // 1000),
    "timestamp_too_early": browsing(ms=500_000_000_000),
    "timestamp_in_future": browsing(ms=FUTURE_MS),
    "wrong_number_of_cells": ("s1", "pageview"),
    "cell_too_long": browsing(url="x" * (10 << 20)),
}
BAD_SEARCHES = {
    "query_vector_invalid": [
        search(vector="[1, 2]"),
        search(vector=json.dumps([*VECTOR[:-1], "x"])),
        search(vector=json.dumps([*VECTOR[:-1], float("nan")])),
        search(vector=json.dumps([*VECTOR[:-1], 1e300])),
        search(vector=json.dumps(VECTOR)[:-1]),
        search(vector="0.5"),
    ],
    "clicked_skus_invalid": [
        search(clicked=text) for text in ("p1", "['p1'", "['p1' 'p2']", "[p1]", "['p 1']", "['']")
    ],
    "product_skus_invalid": [search(shown="{'p1'}")],
    "timestamp_negative": [search(ms=-1)],
    "session_id_missing": [search(session="")],
}
BAD_PRODUCTS = {
    "product_missing": ("", "", "", "", ""),
    "product_malformed": ("p 1", "", "", "", ""),
    "description_vector_invalid": ("p1", "[1]", "", "", ""),
    "image_vector_invalid": ("p1", "", "", "image", ""),
    "category_malformed": ("p1", "", "c\x00", "", ""),
    "price_bucket_invalid": ("p1", "", "", "", "2.5"),
}


def rejected(root, part):
    return pl.concat([pl.read_parquet(path) for path in rejected_files(root, part)]).sort("line").to_dicts()


@pytest.mark.parametrize("reason", BAD_BROWSING)
def test_a_bad_browsing_row_is_put_aside_and_its_neighbours_land(tmp_path, root, reason):
    source = only_browsing(tmp_path / "a", [browsing("a"), BAD_BROWSING[reason], browsing("b")])

    report = land(source, root, now=NOW)

    assert (report.read, report.landed, dict(report.rejected)) == (3, 2, {reason: 1})
    is_dated = not reason.startswith("timestamp") and reason != "wrong_number_of_cells"
    (row,) = rejected(root, DAY_ONE if is_dated else "unknown")
    assert (row["file"], row["line"], row["reason"]) == ("browsing_train.csv", 3, reason)
    assert row["day"] == (DAY_ONE if is_dated else None)
    cells = row["raw"].split(",") if reason == "wrong_number_of_cells" else list(json.loads(row["raw"]).values())
    assert [cell or "" for cell in cells] == [cell[:500] for cell in BAD_BROWSING[reason]]
    assert reason in REASONS


def test_every_reason_of_a_search(tmp_path, root):
    bad = [(reason, row) for reason, rows in BAD_SEARCHES.items() for row in rows]
    rows = [row for _, row in bad] + [search(clicked='["p1","p2"]'), search(shown="[ 'p1' , 'p2', ]"), search()]

    report = land(write_source(tmp_path / "a", {"search_train": csv_text(SEARCH, rows)}), root, now=NOW)

    assert report.landed == 3
    found = sorted(rejected(root, DAY_ONE) + rejected(root, "unknown"), key=lambda row: row["line"])
    assert [(row["line"], row["reason"]) for row in found] == [(2 + i, reason) for i, (reason, _) in enumerate(bad)]


def test_every_reason_of_a_product(tmp_path, root):
    rows = [*BAD_PRODUCTS.values(), ("p9", "", "", "", "0")]

    report = land(write_source(tmp_path / "a", {"sku_to_content": csv_text(CATALOG, rows)}), root, now=NOW)

    assert report.landed == 1
    assert [row["reason"] for row in rejected(root, CATALOG_PART)] == list(BAD_PRODUCTS)
    assert read_index(root).catalog.rows == {"catalog": 1, "rejected": 6}


@pytest.mark.parametrize("session", [HASH, "a.b-c_d:e/f=", "A" * 128, "(x)", "é"])
def test_ids_that_are_no_hashes_are_welcome(tmp_path, root, session):
    assert land(only_browsing(tmp_path / "a", [browsing(session)]), root, now=NOW).landed == 1


@pytest.mark.parametrize(
    "session", ["A" * 129, "a\x00", "a\tb", "a\nb", "a'b", 'a"b', "[a]", "<a>", "{a}", "a,b", "é\x7f"]
)
def test_ids_that_are_not_ids(tmp_path, root, session):
    report = land(only_browsing(tmp_path / "a", [browsing(session)]), root, now=NOW)

    assert dict(report.rejected) == {"session_id_malformed": 1}


@pytest.mark.parametrize(
    ("cell", "value"), [(0, "s\0"), (1, "pageview\0"), (2, "add\0"), (3, "\0"), (4, "1\0"), (5, "\0u")]
)
def test_a_nul_byte_rejects_its_row_only(tmp_path, root, cell, value):
    bad = list(product())
    bad[cell] = value

    report = land(only_browsing(tmp_path / "a", [browsing("a"), tuple(bad), browsing("b")]), root, now=NOW)

    assert (report.read, report.landed, sum(report.rejected.values())) == (3, 2, 1)
    (row,) = rejected(root, "unknown" if cell == 4 else DAY_ONE)
    assert row["line"] == 3
    assert json.loads(row["raw"])[BROWSING[cell]] == value


@pytest.mark.parametrize("ms", [f"{DAY_ONE_MS}.0", f" {DAY_ONE_MS} ", "1.7675712e12"])
def test_whole_numbers_however_written(tmp_path, root, ms):
    assert land(only_browsing(tmp_path / "a", [browsing(ms=ms)]), root, now=NOW).days_changed == [DAY_ONE]


@pytest.mark.parametrize("ms", [f"{DAY_ONE_MS}.5", "1e400", "nan1", "0x10", "9" * 30, "--1"])
def test_what_is_no_whole_number(tmp_path, root, ms):
    report = land(only_browsing(tmp_path / "a", [browsing(ms=ms)]), root, now=NOW)

    assert set(report.rejected) <= {"timestamp_not_a_number", "timestamp_in_future"}
    assert (report.landed, sum(report.rejected.values())) == (0, 1)


def test_counts_per_reason_and_day(tmp_path, root):
    rows = [product(action="zoom"), product(action="zoom", ms=DAY_ONE_MS + DAY_MS), product(sku=""), browsing(ms="x")]
    rows += [browsing()]

    report = land(only_browsing(tmp_path / "a", rows), root, now=NOW)

    (file,) = report.files
    assert (file.read, file.landed, sum(file.rejected.values())) == (5, 1, 4)
    assert {day: dict(reasons) for day, reasons in file.rejected_by_day.items()} == {
        DAY_ONE: {"product_action_unknown": 1, "product_missing": 1},
        "2026-01-06": {"product_action_unknown": 1},
        "unknown": {"timestamp_not_a_number": 1},
    }
    index = read_index(root)
    assert index.days[DAY_ONE].rows == {"browsing": 1, "search": 0, "rejected": 2}
    assert index.days[DAY_ONE].reasons == {"product_action_unknown": 1, "product_missing": 1}
    assert list(index.days) == [DAY_ONE], "a day of which nothing landed is no day of the shop"
    assert index.rejected_only_days["2026-01-06"].rows["rejected"] == 1
    assert index.undated.rows["rejected"] == 1


def test_rejects_of_the_same_content_are_counted_once(tmp_path, root):
    rows = [browsing(), product(action="zoom"), browsing(ms="x")]
    land(only_browsing(tmp_path / "a", rows), root, now=NOW)
    before = read_index(root)

    report = land(only_browsing(tmp_path / "b", rows[::-1]), root, now=NOW)

    assert report.days_changed == []
    assert read_index(root) == before


def test_replacing_a_day_supersedes_its_rejects(tmp_path, root):
    from datetime import date

    land(only_browsing(tmp_path / "a", [browsing(), product(action="zoom"), browsing(ms="x")]), root, now=NOW)
    day = date.fromisoformat(DAY_ONE)

    land(only_browsing(tmp_path / "b", [browsing("fixed")]), root, replace=(day, day), now=NOW)

    assert read_index(root).days[DAY_ONE].rows == {"browsing": 1, "search": 0, "rejected": 0}


def test_lines_after_torn_rows_are_right(tmp_path, root):
    torn, bad = ("x",), product(action="zoom")
    rows = [torn, browsing(), torn, torn, bad, browsing(), (*browsing(), "more"), bad]

    land(only_browsing(tmp_path / "a", rows), root, now=NOW)

    assert [row["line"] for row in rejected(root, "unknown")] == [2, 4, 5, 8]
    assert [row["line"] for row in rejected(root, DAY_ONE)] == [6, 9]


def test_lines_across_blocks_are_right(tmp_path, root, monkeypatch):
    monkeypatch.setattr("bigger_boat.data.csv_rows.BLOCK_BYTES", 4096)
    rows = [("x",) if i % 7 == 0 else product(action="zoom") if i % 5 == 0 else browsing() for i in range(2000)]

    report = land(only_browsing(tmp_path / "a", rows), root, now=NOW)

    assert report.read == 2000
    assert [row["line"] for row in rejected(root, "unknown")] == [2 + i for i in range(2000) if i % 7 == 0]
    assert [row["line"] for row in rejected(root, DAY_ONE)] == [2 + i for i in range(2000) if i % 5 == 0 and i % 7]


def test_after_a_row_longer_than_a_block_the_rest_is_read_in_larger_ones(tmp_path, root, monkeypatch):
    monkeypatch.setattr("bigger_boat.data.csv_rows.BLOCK_BYTES", 4096)
    rows = [("x",) if i % 7 == 0 else product(action="zoom") if i % 5 == 0 else browsing(f"s{i}") for i in range(2000)]
    rows[1003] = browsing("s" * 10_000)
    landed = [f"s{i}" for i in range(2000) if i % 7 and i % 5 and i != 1003]

    report = land(only_browsing(tmp_path / "a", rows), root, now=NOW)

    assert (report.read, report.landed) == (2000, len(landed))
    assert sorted(pl.read_parquet(files_for(root, "browsing", DAY_ONE))["session_id_hash"]) == sorted(landed)
    assert [row["line"] for row in rejected(root, "unknown")] == [2 + i for i in range(2000) if i % 7 == 0]
    zooms = [2 + i for i in range(2000) if i % 5 == 0 and i % 7]
    assert [row["line"] for row in rejected(root, DAY_ONE)] == sorted([*zooms, 2 + 1003])


def test_a_file_of_bad_rows_only_lands_nothing_and_says_why(tmp_path, root):
    rows = [browsing(ms=DAY_ONE_MS // 1000 + i) for i in range(50)]

    report = land(only_browsing(tmp_path / "a", rows), root, now=NOW)

    assert (report.landed, dict(report.rejected)) == (0, {"timestamp_in_seconds": 50})
    assert read_index(root).first_day is None


def test_a_header_alone_lands_nothing(tmp_path, root):
    report = land(write_source(tmp_path / "a", {"browsing_train": csv_text(BROWSING, [])}), root, now=NOW)

    assert (report.read, report.landed, report.days_changed) == (0, 0, [])


CELLS = {
    "clicked_skus_hash": {
        "['a', 'b']": ["a", "b"],
        "['a']": ["a"],
        "['a','b']": ["a", "b"],
        '["a", "b"]': ["a", "b"],
        "['a', 'b',]": ["a", "b"],
        " ['a'] ": ["a"],
        "[]": [],
        "['a', '']": None,
        "['a b']": None,
        "['a' 'b']": None,
        "'a', 'b'": None,
        "[['a']]": None,
    },
    "query_vector": {
        json.dumps(VECTOR): VECTOR,
        json.dumps(VECTOR).replace(" ", ""): VECTOR,
        json.dumps(VECTOR, indent=1): VECTOR,
        f" {json.dumps(VECTOR)}\t": VECTOR,
        "[]": None,
        json.dumps([*VECTOR[:-1], float("inf")]): None,
        json.dumps([*VECTOR, 1.0]): None,
    },
}


@pytest.mark.parametrize("column", CELLS)
def test_a_cell_is_read_the_same_whatever_is_read_with_it(tmp_path, column):
    """Where all cells of a batch are of the usual form, they are read in a shorter way."""
    place = SEARCH.index(column)

    def landed(name, cells):
        rows = [list(search(f"s{i}", ms=DAY_ONE_MS + i)) for i in range(len(cells))]
        for row, cell in zip(rows, cells, strict=True):
            row[place] = cell
        root = tmp_path / f"{name} zone"
        land(write_source(tmp_path / name, {"search_train": csv_text(SEARCH, rows)}), root, now=NOW)
        files = files_for(root, "search", DAY_ONE)
        found = {row[0]: row[place] for file in files for row in pl.read_parquet(file).iter_rows()}
        return [found.get(f"s{i}") for i in range(len(cells))]

    cells = CELLS[column]
    assert landed("together", list(cells)) == list(cells.values())
    assert [landed(f"alone {i}", [cell])[0] for i, cell in enumerate(cells)] == list(cells.values())
