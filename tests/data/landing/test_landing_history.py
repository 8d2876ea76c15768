"""The landing zone as it stood: made again from manifests, it is what was there, whatever landed since."""

import json
import os
import signal
from datetime import UTC, date, datetime, timedelta

import pytest
from landing_children import die_landing
from landing_source import DAY_MS, DAY_ONE, DAY_ONE_MS, DAY_TWO, browsing, only_browsing, shop, write_source

from bigger_boat.data.landing import land
from bigger_boat.data.landing_history import past_state, write_past
from bigger_boat.data.landing_index import catalog_files, files_for, read_index, rejected_files
from bigger_boat.errors import LandingError

FIRST = date(2026, 3, 1)


def at(days):
    return datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(days=days)


def paths(root):
    index = read_index(root)
    days = [*index.days, *index.rejected_only_days]
    found = [path for day in days for table in ("browsing", "search") for path in files_for(root, table, day)]
    found += [
        *catalog_files(root),
        *rejected_files(root),
        *(path for day in days for path in rejected_files(root, day)),
    ]
    return sorted(str(path.relative_to(root)) for path in found)


@pytest.fixture
def history(tmp_path, root):
    """Five landings, a day apart; return by day the index's bytes and the files in force."""
    day_one, day_two = date.fromisoformat(DAY_ONE), date.fromisoformat(DAY_TWO)
    landings = [
        (write_source(tmp_path / "0", shop()), {}),
        (only_browsing(tmp_path / "1", [browsing("late", ms=DAY_ONE_MS + 3), browsing(ms="bad")]), {}),
        (only_browsing(tmp_path / "2", [browsing("other")]), {"replace": (day_one, day_one)}),
        (only_browsing(tmp_path / "3", [browsing("new", ms=DAY_ONE_MS + 9 * DAY_MS)]), {"shift_weeks": 1}),
        (only_browsing(tmp_path / "4", [browsing("theirs")]), {"replace": (day_one, day_two), "producer": "theirs"}),
    ]
    stood = {}
    for number, (source, options) in enumerate(landings):
        land(source, root, now=at(number), **options)
        stood[FIRST + timedelta(days=number)] = ((root / "index.json").read_bytes(), paths(root))
    return stood


def test_every_past_day_is_as_it_stood(tmp_path, root, history):
    for day, (index, files) in history.items():
        target = tmp_path / "past" / day.isoformat() / "landing"
        write_past(root, past_state(root, day), target)
        stood = {**json.loads(index), "shifts": read_index(root).shifts}
        assert json.loads((target / "index.json").read_bytes()) == {**stood, "shifts": list(stood["shifts"])}
        assert paths(target) == files
        assert all((target / path).samefile(root / path) for path in files)


def test_a_day_without_a_landing_is_the_one_before(tmp_path, root, history):
    later = past_state(root, FIRST + timedelta(days=40))
    assert later.entries == dict(read_index(root).parts)
    assert not later.rewritten


def test_the_end_of_a_day_is_midnight_utc(tmp_path, root):
    land(only_browsing(tmp_path / "a", [browsing("a")]), root, now=datetime(2026, 3, 1, 23, 59, 59, 999999, tzinfo=UTC))
    land(only_browsing(tmp_path / "b", [browsing("b")]), root, now=datetime(2026, 3, 2, tzinfo=UTC))
    assert past_state(root, FIRST).entries[DAY_ONE].rows["browsing"] == 1
    assert past_state(root, FIRST + timedelta(days=1)).entries[DAY_ONE].rows["browsing"] == 2


def test_nothing_had_landed(root, history):
    with pytest.raises(LandingError, match="Nothing had landed by the end of 2026-02-28") as caught:
        past_state(root, date(2026, 2, 28))
    assert "The first landing was at 2026-03-01T12:00 UTC" in caught.value.hint


def test_a_landing_that_was_killed_never_stood(tmp_path, root, history):
    before = past_state(root, date(2026, 3, 31))
    source = only_browsing(tmp_path / "killed", [browsing("killed", ms=DAY_ONE_MS + 1)])
    writes = 5  # file moved in (2 fsyncs, 1 rename), manifest written and renamed; the index is not
    assert die_landing(source, root, writes + 1) == -signal.SIGKILL
    assert (root / "_manifests" / DAY_ONE / f"{before.entries[DAY_ONE].version + 1:06d}.json").exists()
    assert past_state(root, date(2026, 3, 31)) == before


def test_making_it_twice_follows_the_landing_zone_and_touches_nothing_there(tmp_path, root, history):
    target = tmp_path / "past" / "landing"
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for day in (*history, FIRST):
        write_past(root, past_state(root, day), target)
    assert paths(target) == history[FIRST][1]
    assert not [path for path in target.iterdir() if path.name.startswith(".")]
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_file_that_is_gone_is_named_and_nothing_is_written(tmp_path, root, history):
    gone = root / history[FIRST][1][0]
    os.remove(gone)
    with pytest.raises(LandingError, match="in force at the end of 2026-03-01, is gone") as caught:
        write_past(root, past_state(root, FIRST), tmp_path / "past")
    assert str(gone) in caught.value.message
    assert not (tmp_path / "past").exists()
