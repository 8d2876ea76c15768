"""``bigger-boat run`` as a process: exit codes, what it says, two at once, and one that is killed."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from whole_shop import Shop, cli, make_source, start_cli

from bigger_boat.automation.runner import PROCESS_TAG
from bigger_boat.data.landing import land
from bigger_boat.data.landing_index import catalog_files

TABLES = "group:raw or group:warehouse"
DAYS = ["2026-10-25", "2026-10-26", "2026-10-27", "2026-10-28"]
CATALOG = ("raw/sku_to_content", "stg_products", "products")
COMPARED = ("distinct_events", "session_stats", "sessions", "cart_sessions", "products")


def test_an_unknown_setting(tmp_path):
    code, said = cli(tmp_path, "run", BIGGER_BOAT_COLOUR="red")
    assert code == 2
    assert "Unknown setting: BIGGER_BOAT_COLOUR." in said
    assert "Known are: BIGGER_BOAT_" in said


def test_nothing_landed(tmp_path):
    code, said = cli(tmp_path, "run")
    assert code == 1
    assert "Nothing has landed yet." in said
    assert "What to do: bigger-boat simulate --out data/shop, then bigger-boat land data/shop" in said


def test_a_refusal_has_an_exit_code_of_its_own(snapshot, tmp_path):
    root = Path(shutil.copytree(snapshot, tmp_path / "shop"))
    [model] = root.glob("bundles/intent_champion/*/bundle/1/saved_model.pb")
    model.write_bytes(model.read_bytes()[:-1])
    serving = (root / "endpoints" / "intent" / "current").read_text()
    code, said = cli(root, "run", "--select", "intent_endpoint", "--size", "quick", "--force")
    assert code == 3, said
    assert "Refused" in said
    assert "intent_endpoint: The intent champion is not promoted:" in said
    assert "1/saved_model.pb of the bundle" in said
    assert "was altered: sha256" in said
    assert "What serves goes on serving." in said
    assert (root / "endpoints" / "intent" / "current").read_text() == serving


@dataclass
class Story:
    """Two runs of a small shop: ``first`` is killed among its days, ``second`` waits for it and fails.

    What it fails at is a damaged file of the catalogue.
    """

    shop: Shop
    first: int
    second: int
    exit_code: int
    said: str
    damaged: Path
    good: bytes
    undisturbed: Shop


@pytest.fixture(scope="module")
def story(tmp_path_factory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("small")
    root, apart = folder / "data", folder / "undisturbed"
    land(make_source(folder / "source", 900, len(DAYS), 60), root / "landing", now=datetime(2026, 11, 1, tzinfo=UTC))
    shutil.copytree(root, apart)
    [damaged] = catalog_files(root / "landing")
    good = damaged.read_bytes()
    damaged.write_bytes(good[: len(good) // 2])

    first = start_cli(root, "run", "--select", "+sessions")
    read_until(first, "✓ raw/browsing_train")
    os.kill(first.pid, signal.SIGSTOP)
    second = start_cli(root, "run", "--select", TABLES)
    said = read_until(second, "Waiting for ")
    os.kill(first.pid, signal.SIGKILL)
    first.wait(30)
    said += read_until(second)
    told = Story(Shop(root), first.pid, second.pid, second.wait(30), said, damaged, good, Shop(apart))
    yield told
    told.shop.instance.dispose()
    told.undisturbed.instance.dispose()


def test_a_second_run_waits_and_says_for_whom(story):
    assert f"Waiting for process {story.first} since " in story.said


def test_a_killed_run_is_marked_and_holds_nothing(story):
    runs = {json.loads(run.tags[PROCESS_TAG])["pid"]: run for run in story.shop.instance.get_runs()}
    assert f"Run {runs[story.first].run_id[:8]} had lost its process: marked failed, its slots freed." in story.said
    assert runs[story.first].status == dg.DagsterRunStatus.FAILURE
    assert runs[story.second].status == dg.DagsterRunStatus.FAILURE
    assert not story.shop.instance.event_log_storage.get_concurrency_info("warehouse").active_slot_count


def test_a_failed_step_says_which_and_why_and_how_to_go_on(story):
    assert story.exit_code == 1
    failed = story.said[story.said.index("Failed") :]
    assert "raw/sku_to_content: A landed file cannot be loaded: " in failed
    assert str(story.damaged) in failed
    assert "What to do: Land the source again with bigger-boat land --replace." in failed
    assert "What is done stays done: the same command goes on from there." in failed
    assert "Traceback" not in story.said


def test_resuming_makes_what_is_missing_and_ends_as_if_nothing_had_been(story):
    story.damaged.write_bytes(story.good)
    plan = story.shop.plan(select=TABLES)
    missing = {key.to_user_string(): reason for key, reason in plan.reasons.items()}
    assert "raw/browsing_train" not in missing
    assert (missing["raw/sku_to_content"], missing["sessions"]) == ("not made yet", "4 of 4 days")
    assert story.shop.run(*[name for name in missing if name in CATALOG]).success
    assert story.shop.run(*[name for name in missing if name not in CATALOG], days=plan.days).success
    assert story.shop.plan(select=TABLES).empty

    everything = [key.to_user_string() for key in story.undisturbed.plan(select=TABLES).reasons]
    assert len(everything) == 11
    assert story.undisturbed.run(*[name for name in everything if name in CATALOG]).success
    assert story.undisturbed.run(*[name for name in everything if name not in CATALOG], days=DAYS).success
    assert contents(story.shop.root) == contents(story.undisturbed.root)


def read_until(process, text: str | None = None) -> str:
    """Return what a process says up to a line with ``text`` (None: all of it); it is killed after two minutes."""
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    said = ""
    for line in process.stdout:
        said += line
        if text is not None and text in line:
            break
    watchdog.cancel()
    assert text is None or text in said, said
    return said


def contents(root: Path) -> dict[str, str]:
    """Return the number of rows of each table, and a digest of them, whatever their order."""
    query = (
        "select count(*) || ' ' || md5(string_agg(row, chr(10) order by row)) from (select {0}::text as row from {0})"
    )
    with duckdb.connect(str(root / "warehouse.duckdb"), read_only=True) as connection:
        return {table: connection.execute(query.format(table)).fetchone()[0] for table in COMPARED}
