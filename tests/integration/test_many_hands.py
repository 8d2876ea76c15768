"""One warehouse, many hands: the web UI's runs beside each other and beside other processes, all of them real."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest
from web_ui import WebUI, web_ui
from whole_shop import open_instance

DAYS = ["2026-10-25", "2026-10-26", "2026-10-27", "2026-10-28"]
MARTS = ("distinct_events", "session_stats", "sessions", "cart_sessions")
ASSETS = ("raw/browsing_train", "raw/search_train", "stg_browsing", "stg_search", *MARTS)
HOLDER = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"


@contextmanager
def held(root: Path) -> Iterator[int]:
    """Let another process have the warehouse until the block ends; give its process id."""
    command = [sys.executable, "-c", HOLDER, str(root / "warehouse.duckdb")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "open\n"
    try:
        yield process.pid
    finally:
        process.communicate("")


def contents(root: Path) -> dict[str, str]:
    """Return a digest of each table's rows, whatever their order."""
    query = (
        "select count(*) || ' ' || md5(string_agg(row, chr(10) order by row)) from (select t::text as row from {} t)"
    )
    with duckdb.connect(str(root / "warehouse.duckdb"), read_only=True) as connection:
        return {
            table: connection.execute(query.format(table)).fetchone()[0] for table in ("raw.browsing_train", *MARTS)
        }


@pytest.mark.parametrize("asset", ["sessions", "raw/browsing_train"])
def test_who_waits_too_long_is_told_who_holds_the_warehouse(four_days, forked, tmp_path, asset):
    """The first is dbt's step, the second ours."""
    root = Path(shutil.copytree(four_days, tmp_path / "data"))
    arguments = ("run", "--select", asset, "--force")
    with held(root) as pid:
        code, said = forked.run(root, *arguments, BIGGER_BOAT_WAREHOUSE_WAIT_S="0.5")
    assert code == 1
    assert re.search(rf"Waiting up to 0 s for the warehouse: it is in use by \S+ \(process {pid}\)\.", said), said
    failed = said[said.index("\nFailed\n") :]
    assert re.search(rf"warehouse\.duckdb is in use by \S+ \(process {pid}\); waited 0 s for it\.", failed), failed
    assert "What to do: DuckDB has one writer: wait until that process ends, or end it, and run this again." in failed
    assert "Traceback" not in said


def test_who_waits_long_enough_goes_on(four_days, forked, tmp_path):
    root = Path(shutil.copytree(four_days, tmp_path / "data"))
    with held(root):
        run = forked.start(root, "run", "--select", "sessions", "--force")
        run.wait_for(lambda run: "Waiting up to 300 s for the warehouse" in run.said)
    assert run.wait() == 0, run.said
    assert "✓ sessions" in run.said
    assert contents(root) == contents(four_days)


@pytest.mark.slow
def test_the_web_uis_runs_beside_each_other_and_other_processes(four_days, tmp_path, played_clock):
    """One web UI for all of it, over a landed shop of which nothing is made."""
    root = tmp_path / "data"
    shutil.copytree(four_days / "landing", root / "landing")
    settings = {"BIGGER_BOAT_AUTOMATION": "off", "BIGGER_BOAT_CLOCK_FILE": str(played_clock)}  # sensors look often
    with web_ui(root, **settings) as ui:  # the runs here are a person's, each step a process as by default
        assert_backfill_survives_a_kill(ui)
        assert contents(root) == contents(four_days)
        assert_two_together_end_well(ui)
        assert contents(root) == contents(four_days)
        with held(root) as pid:
            waits = assert_cancelled_run_frees_its_slot(ui, pid)
        assert ui.end_of(waits) == "SUCCESS"
        assert contents(root) == contents(four_days)
    with open_instance(root) as instance:
        assert not instance.event_log_storage.get_concurrency_info("warehouse").active_slot_count


def assert_backfill_survives_a_kill(ui: WebUI) -> None:
    """A backfill is one run that tells its days. Its process is killed at half; it is tried once more and ends well."""
    backfill = ui.backfill(ASSETS, DAYS, {"bigger_boat/chunk_days": "1"})
    [run] = ui.wait(lambda: ui.backfill_state(backfill)["runs"])
    progress = ui.wait(lambda: chunks(ui, run["runId"], "distinct_events"))
    assert progress[0] == "distinct_events: 2026-10-24 to 2026-10-24 (1 of 6 days)"
    # the backfill's own page lags by the daemon's 30 s; the assets' pages do not
    stats = ui.partition_stats(ASSETS)
    assert stats["browsing_train"]["numMaterialized"] == len(DAYS)
    assert stats["cart_sessions"]["numMaterializing"] == len(DAYS)
    assert len(statuses(ui, backfill)) == len(ASSETS)
    started = next(found for event in ui.events(run["runId"]) if (found := re.search(r"\(pid: (\d+)\)", text(event))))
    os.kill(int(started[1]), signal.SIGKILL)

    ended = ui.wait(lambda: (state := ui.backfill_state(backfill))["status"].startswith("COMPLETED") and state)
    assert ended["status"] == "COMPLETED_SUCCESS"
    assert [run["status"] for run in reversed(ended["runs"])] == ["FAILURE", "SUCCESS"]
    tags = [{tag["key"]: tag["value"] for tag in run["tags"]} for run in reversed(ended["runs"])]
    assert tags[1]["dagster/parent_run_id"] == run["runId"]
    ranges = {(t["dagster/asset_partition_range_start"], t["dagster/asset_partition_range_end"]) for t in tags}
    assert ranges == {(DAYS[0], DAYS[-1])}
    assert all(status["numPartitionsMaterialized"] == len(DAYS) for status in statuses(ui, backfill))


def assert_two_together_end_well(ui: WebUI) -> None:
    runs = [ui.launch(ASSETS, day) for day in (DAYS[1], DAYS[2])]
    assert [ui.end_of(run) for run in runs] == ["SUCCESS", "SUCCESS"]


def assert_cancelled_run_frees_its_slot(ui: WebUI, holder: int) -> str:
    """While another process has the warehouse: one run waits for it, a second for the first. Return the second."""
    first = ui.launch(["distinct_events"], DAYS[0])
    ui.wait(lambda: any(f"(process {holder})" in text(event) for event in ui.events(first)))
    second = ui.launch(["distinct_events"], DAYS[0])
    ui.wait(lambda: f"Run {second} is blocked by global concurrency limits" in ui.log.read_text())
    ui.terminate(first)
    assert ui.end_of(first) == "CANCELED"
    return second


def text(event: dict) -> str:
    return event.get("message") or ""


def chunks(ui: WebUI, run_id: str, table: str) -> list[str]:
    """Return what a run's log says of the days of a table that are done."""
    return [text(event) for event in ui.events(run_id) if text(event).startswith(f"{table}: ")]


def statuses(ui: WebUI, backfill: str) -> list[dict]:
    return ui.backfill_state(backfill)["assetBackfillData"]["assetBackfillStatuses"]
