"""Forgetting: the landing zone is as if a session had never been sent, in every version, and after any kill."""

import shutil
import signal
from datetime import UTC, date, datetime

import polars as pl
import pytest
from landing_children import die_forgetting
from landing_source import (
    BROWSING,
    DAY_MS,
    DAY_ONE,
    DAY_ONE_MS,
    NOW,
    SEARCH,
    browsing,
    csv_text,
    product,
    search,
    write_source,
)

from bigger_boat.data.landing import land
from bigger_boat.data.landing_forget import forget_sessions, rows_in_landing
from bigger_boat.data.landing_history import past_state
from bigger_boat.data.landing_index import read_index

LATER = datetime(2026, 3, 9, tzinfo=UTC)
GONE = "s2"


def events(session):
    """Three landed rows (two days), a rejected one of a day and one without a day."""
    return [
        browsing(session, ms=DAY_ONE_MS + 5),
        product(session, "add", "p2", DAY_ONE_MS + 10),
        product(session, "purchase", "p2", DAY_ONE_MS + DAY_MS),
        product(session, "stolen", "p2", DAY_ONE_MS + 11),
        browsing(session, ms="bad"),
    ]


def source(folder, *sessions):
    rows = [row for session in sessions for row in events(session)]
    searches = [search(session, ms=DAY_ONE_MS + 7) for session in sessions]
    tables = {"browsing_train": csv_text(BROWSING, rows), "search_train": csv_text(SEARCH, searches)}
    return write_source(folder, tables)


def files(root):
    return {str(path.relative_to(root)) for path in root.rglob("*.parquet")}


def state(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.name != ".lock"}


def ids_and_texts(root):
    frames = [pl.read_parquet(path) for path in root.rglob("*.parquet")]
    columns = [frame[name] for frame in frames for name in ("session_id_hash", "raw") if name in frame.columns]
    return [text for column in columns for text in column.to_list()]


@pytest.fixture
def twice(tmp_path, root):
    """s1, s2, s22 landed; then s2 and s3; then the first day was replaced by s1 alone, so that its files gave way."""
    land(source(tmp_path / "1", "s1", GONE, "s22"), root, now=NOW)
    land(source(tmp_path / "2", GONE, "s3"), root, now=datetime(2026, 3, 2, tzinfo=UTC))
    day = date.fromisoformat(DAY_ONE)
    land(source(tmp_path / "3", "s1"), root, now=datetime(2026, 3, 3, tzinfo=UTC), replace=(day, day))
    return root


def test_it_is_as_if_the_session_had_never_been_sent(tmp_path, root):
    never = tmp_path / "never"
    land(source(tmp_path / "with", "s1", GONE, "s22"), root, now=NOW)
    land(source(tmp_path / "without", "s1", "s22"), never, now=NOW)
    forgotten = forget_sessions(root, [GONE], LATER)
    assert forgotten.rows == {GONE: 6}
    assert forgotten.parts == (DAY_ONE, "2026-01-06", "unknown")
    assert files(root) == files(never)
    assert read_index(root) == read_index(never)


def test_every_version_forgets_and_says_so(twice):
    assert rows_in_landing(twice, [GONE, "s22", "nobody"]) == {GONE: 12, "s22": 6}
    forgotten = forget_sessions(twice, [GONE], LATER)
    assert forgotten.rows == {GONE: 12}
    assert [text for text in ids_and_texts(twice) if GONE in text.replace("s22", "")] == []
    assert rows_in_landing(twice, [GONE, "s22"]) == {"s22": 6}
    past = past_state(twice, date(2026, 3, 1))
    assert past.rewritten == dict.fromkeys((DAY_ONE, "2026-01-06", "unknown"), LATER.isoformat())
    assert past.entries[DAY_ONE].rows == {"browsing": 4, "search": 2, "rejected": 2}
    named = {
        file.path
        for m in past.manifests.values()
        for group in (m.files, m.rejected)
        for f in group.values()
        for file in f
    }
    assert named <= files(twice)


def test_doing_it_again_and_unknown_sessions_change_nothing(twice):
    forget_sessions(twice, [GONE], LATER)
    before = state(twice)
    for other in ("nobody", "p2", "s", "S2", "."):
        assert forget_sessions(twice, [other], NOW).files == 0
    assert forget_sessions(twice, [GONE], NOW).rows == {}
    assert state(twice) == before


def test_a_torn_row_goes_too(tmp_path, root):
    text = csv_text(BROWSING, events("s22")) + "s2,pageview,one cell too few,,1767571200000\ns22,too few\n"
    land(write_source(tmp_path / "torn", {"browsing_train": text}), root, now=NOW)
    assert forget_sessions(root, [GONE], LATER).rows == {GONE: 1}
    assert rows_in_landing(root, ["s22"]) == {"s22": 6}


def test_a_session_that_was_all_there_is_leaves_empty_days(tmp_path, root):
    land(source(tmp_path / "only", GONE), root, now=NOW)
    forget_sessions(root, [GONE], LATER)
    assert files(root) == set()
    index = read_index(root)
    assert {day: dict(entry.rows) for day, entry in index.days.items()} == {
        DAY_ONE: {"browsing": 0, "search": 0, "rejected": 0},
        "2026-01-06": {"browsing": 0, "search": 0, "rejected": 0},
    }


@pytest.mark.slow
def test_killed_at_any_write_and_done_again_equals_undisturbed(tmp_path, twice):
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(twice, undisturbed)
    forget_sessions(undisturbed, [GONE], NOW)
    write, ended = 1, -signal.SIGKILL
    while ended == -signal.SIGKILL:
        root = tmp_path / f"killed-{write}"
        shutil.copytree(twice, root)
        ended = die_forgetting(root, [GONE], write)
        assert_readable(root)
        forget_sessions(root, [GONE], NOW)
        assert state(root) == state(undisturbed), write
        write += 7
    assert ended in (0, 1)
    assert write > 50


def assert_readable(root):
    """Whatever is in force can be read, at any moment."""
    past = past_state(root, date(2026, 3, 31))
    for manifest in past.manifests.values():
        for group in (manifest.files, manifest.rejected):
            for file in (file for of_table in group.values() for file in of_table):
                assert pl.read_parquet(root / file.path).height == file.rows
