"""Days that heal, through the command line: emptied, mostly rejected, backfilled, killed at half."""

import csv
import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest
from forked_cli import ForkedRun

NOW = datetime(2026, 11, 1, tzinfo=UTC)
DAYS = ["2026-10-25", "2026-10-26", "2026-10-27", "2026-10-28"]
BY_DAY = {
    "raw.browsing_train": "to_timestamp(server_timestamp_epoch_ms / 1000)",
    "raw.search_train": "to_timestamp(server_timestamp_epoch_ms / 1000)",
    "distinct_events": "event_date",
    "session_stats": "event_date",
    "sessions": "session_date",
    "cart_sessions": "session_date",
}
TABLES = "+cart_sessions"
BACKFILL = ("backfill", "--from", DAYS[0], "--to", DAYS[-1], "--chunk-days", "1")


@pytest.fixture
def root(four_days, tmp_path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(four_days, tmp_path / "data"))


def rows_of(root: Path, day: str) -> dict[str, int]:
    """Return each table's rows of a day."""
    with duckdb.connect(str(root / "warehouse.duckdb"), read_only=True) as connection:
        connection.execute("set timezone = 'UTC'")
        query = "select count(*) from {} where cast({} as date) = ?"
        return {t: connection.execute(query.format(t, column), [day]).fetchone()[0] for t, column in BY_DAY.items()}


def contents(root: Path) -> dict[str, str]:
    """Return a digest of each table's rows, whatever their order."""
    query = (
        "select count(*) || ' ' || md5(string_agg(row, chr(10) order by row)) from (select t::text as row from {} t)"
    )
    with duckdb.connect(str(root / "warehouse.duckdb"), read_only=True) as connection:
        return {table: connection.execute(query.format(table)).fetchone()[0] for table in BY_DAY}


def changed_events(made: Path, tmp_path: Path, change) -> Path:
    """Return a folder with the shop's events for which ``change`` (table, row -> row or None) returns a row."""
    source = tmp_path / "changed"
    source.mkdir()
    for table in ("browsing_train", "search_train"):
        with (made.parent / "source" / f"{table}.csv").open(newline="") as file:
            rows = csv.DictReader(file)
            with (source / f"{table}.csv").open("w", newline="") as out:
                writer = csv.DictWriter(out, rows.fieldnames)
                writer.writeheader()
                writer.writerows(found for row in rows if (found := change(table, row)))
    return source


def day_of(row: dict[str, str]) -> str:
    return datetime.fromtimestamp(int(row["server_timestamp_epoch_ms"]) / 1000, UTC).date().isoformat()


@pytest.mark.slow
def test_a_day_emptied_at_the_source_is_empty_in_every_table(four_days, root, forked, tmp_path):
    day = DAYS[1]
    assert all(rows_of(root, day).values())
    others = changed_events(four_days, tmp_path, lambda _, row: row if day_of(row) == DAYS[3] else None)
    code, said = forked.run(root, "land", str(others), "--replace", "--from", day, "--to", day)
    assert code == 0, said
    code, said = forked.run(root, "run", "--select", TABLES)
    assert code == 0, said
    assert f"8 tables by day ({DAYS[0]} to {DAYS[2]})" in said
    assert rows_of(root, day) == dict.fromkeys(BY_DAY, 0)
    assert all(rows_of(root, DAYS[2]).values())

    code, said = forked.run(root, "land", str(four_days.parent / "source"))
    assert code == 0, said
    assert forked.run(root, "run", "--select", TABLES)[0] == 0
    assert contents(root) == contents(four_days)


def test_a_day_of_which_a_fifth_is_rejected_stops_the_models_and_shows_five_rows(four_days, root, forked, tmp_path):
    day = DAYS[2]
    count = iter(range(1_000_000))

    def spoil(table, row):
        if day_of(row) != day:
            return None
        return {**row, "event_type": "teleport"} if table == "browsing_train" and next(count) % 4 == 0 else row

    changed = changed_events(four_days, tmp_path, spoil)
    code, said = forked.run(root, "land", str(changed), "--replace", "--from", day, "--to", day)
    assert code == 0, said
    code, said = forked.run(root, "run", "--select", "+knn_recommender")
    assert_stopped(code, said, f"arrival_checks: check rejects_below_a_fifth of sessions failed: {day}: ")
    assert "✓ sessions" in said
    code, said = forked.run(root, "run", "--select", "recommendation_dataset")
    assert_stopped(code, said, f"{day}: sessions:rejects_below_a_fifth failed: ")
    assert "bigger-boat land --replace" in said
    assert not (root / "addresses" / "recommendation_dataset.json").exists()


def assert_stopped(code: int, said: str, sentence: str) -> None:
    """The run failed in words, and shows five of the rows that were rejected."""
    assert code == 1, said
    failed = said[said.index("\nFailed\n") :]
    assert sentence in failed
    examples = [line for line in failed.splitlines() if "browsing_train.csv line " in line and "teleport" in line]
    assert len(examples) == 5, failed
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_backfill_killed_at_half_goes_on_and_ends_with_the_same_tables(four_days, root, forked):
    """The tables hold a wrong day when it starts, so that it has something to heal."""
    with duckdb.connect(str(root / "warehouse.duckdb")) as connection:
        for table in ("distinct_events", "sessions", "cart_sessions"):
            connection.execute(f"delete from {table} where {BY_DAY[table]} = '{DAYS[1]}'")
    first = forked.start(root, *BACKFILL)
    first.wait_for(lambda run: f"sessions: {DAYS[0]} to {DAYS[0]} (2 of 6 days)" in run.said)
    assert first.kill(), first.said
    assert "8 tables by day" in first.said
    for table in ("raw.browsing_train", "raw.search_train"):
        assert f"{table}: {DAYS[0]} to {DAYS[-1]} (4 of 4 days)" in first.said
    assert said_of_chunks(first, "distinct_events") == DAYS

    code, said = forked.run(root, *BACKFILL)
    assert code == 0, said
    assert "Going on with the backfill begun 20" in said
    assert f"2 tables by day ({DAYS[0]} to {DAYS[-1]})" in said
    assert "raw.browsing_train" not in said
    assert "cart_sessions: 2026-10-29 to 2026-10-29 (6 of 6 days)" in said
    assert contents(root) == contents(four_days)

    code, said = forked.run(root, *BACKFILL[:-2])
    assert code == 0, said
    assert "Going on" not in said
    assert "8 tables by day" in said
    assert contents(root) == contents(four_days)


def said_of_chunks(run: ForkedRun, table: str) -> list[str]:
    lines = [line.split() for line in run.said.splitlines() if line.startswith(f"    {table}: ")]
    return [words[1] for words in lines]


@pytest.mark.parametrize(
    ("first", "last", "sentence"),
    [
        (DAYS[2], DAYS[1], f"The last day {DAYS[1]} is before the first, {DAYS[2]}."),
        ("2026-09-30", DAYS[1], "2026-09-30 is no day of the graph, whose days are 2026-10-01 to "),
        (DAYS[1], "2999-01-01", "is no day of the graph, whose days are"),
    ],
)
def test_days_that_are_none_are_refused_in_words(root, forked, first, last, sentence):
    code, said = forked.run(root, "backfill", "--from", first, "--to", last)
    assert code == 2, said
    assert sentence in said
    assert "What to do: " in said


def test_what_landed_today_waits_for_midnight(four_days, root, forked, tmp_path):
    """Today is no day of the graph yet: a run leaves it out, and says nothing of it."""
    today = datetime.now(UTC).date()
    moved = (today - date.fromisoformat(DAYS[0])).days * 86_400_000

    def move(_, row):
        ms = str(int(row["server_timestamp_epoch_ms"]) + moved)
        return {**row, "server_timestamp_epoch_ms": ms} if day_of(row) == DAYS[0] else None

    code, said = forked.run(root, "land", str(changed_events(four_days, tmp_path, move)))
    assert code == 0, said
    assert today.isoformat() in said
    code, said = forked.run(root, "run", "--select", TABLES)
    assert code == 0, said
    assert "Everything selected is up to date" in said
