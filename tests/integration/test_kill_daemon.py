"""kill -9 of daemon, runs and server of ``up`` at random points: no day is lost or doubled, the endpoint answers."""

import contextlib
import os
import random
import signal
import threading
import time
import urllib.error
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import duckdb
import psutil
import pytest
from played_shop import webhook
from web_ui import WebUI, web_ui
from whole_shop import LAST_DAY, Shop, cli, copy_shop, make_source

from bigger_boat import clock
from bigger_boat.automation.arrival import SETTLE_S
from bigger_boat.data.landing import land
from bigger_boat.data.landing_index import files_for
from bigger_boat.errors import RequestError, ServerError
from bigger_boat.resources.processes import STARTED
from bigger_boat.serving import client
from bigger_boat.serving.published import read_server

DAYS = (LAST_DAY - timedelta(days=1), LAST_DAY)
"""Corrected before each kill; with their neighbours fewer than it takes to train again."""
TABLES = ("raw.browsing_train", "raw.search_train", "distinct_events", "session_stats", "sessions", "cart_sessions")
SESSION = {"sessions": [[{"action": "add", "sku": "a"}]]}


VICTIMS = ("run", "daemon", "server", "run", "host")
"""In turn; the daemon less often: ``up`` gives up on a web UI that ends again and again. Runs are forks of the host."""


class Asking(threading.Thread):
    """A client that never stops asking; ``versions`` is who answered, ``faults`` what else came.

    While ``is_down``, a server that was killed has not come back: nobody answers, or one that loads its models, and
    that is no fault.
    """

    def __init__(self, url: str):
        super().__init__(daemon=True)
        self.url, self.versions, self.faults, self.asked = url, set(), [], 0
        self.done, self.is_down = threading.Event(), threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.1):
            for name in ("intent", "recommendation"):
                try:
                    self.versions.add(client.post_invocations(self.url, name, SESSION)["version"])
                    self.asked += 1
                except Exception as error:
                    if not (self.is_down.is_set() and comes_back(error)):
                        self.faults.append(repr(error))


def comes_back(error: Exception) -> bool:
    return isinstance(error, ServerError) or (isinstance(error, RequestError) and error.code == "loading")


@contextlib.contextmanager
def asking(shop: Shop) -> Iterator[Asking]:
    client.wait_until_up(read_server(shop.settings.endpoints_dir)["url"])
    asker = Asking(read_server(shop.settings.endpoints_dir)["url"])
    asker.start()
    yield asker
    asker.done.set()
    asker.join(30)


@pytest.mark.slow
def test_killed_at_random_points_nothing_is_lost_or_doubled(snapshot, tmp_path, request, played_clock):
    kills, chance = request.config.getoption("--kills"), random.Random(5)
    shop = copy_shop(snapshot, tmp_path / "shop")
    sources = [make_source(tmp_path / f"source-{n}", 2_000, 2, 400, seed=n) for n in range(2)]
    for source in sources:
        (source / "sku_to_content.csv").unlink()  # its run would be one more to wait for
    valid = {shop.current(name) for name in ("intent", "recommendation")}
    killed = []
    settings = {
        "BIGGER_BOAT_PORT": str(shop.settings.port),
        "BIGGER_BOAT_CLOCK_FILE": str(played_clock),
        "BIGGER_BOAT_MAX_WORKERS": "1",  # the process that is killed is the one that works
    }
    with (
        webhook() as (address, told),
        web_ui(shop.root, BIGGER_BOAT_ALERT_WEBHOOK=address, **settings) as ui,
        asking(shop) as asker,
    ):
        for number in range(kills):
            land(sources[number % 2], shop.root / "landing", replace=DAYS, now=clock.utc_now())
            clock.set_to(played_clock, clock.utc_now() + timedelta(seconds=SETTLE_S))  # nobody waits for real
            victim = VICTIMS[number % len(VICTIMS)]
            pid = process(victim, ui, shop)
            time.sleep(chance.uniform(0, 3))
            if victim == "server":
                asker.is_down.set()
            with contextlib.suppress(ProcessLookupError):  # a run may have ended
                os.kill(pid, signal.SIGKILL)
                killed.append(victim)
            if victim == "server":
                ui.wait(lambda pid=pid: (read_server(shop.settings.endpoints_dir) or {"pid": pid})["pid"] != pid)
                client.wait_until_up(asker.url)
                asker.is_down.clear()
            wait_until_made(ui, shop)
            print(f"kill {number + 1} of {kills}: {victim}; {asker.asked:,} answers")
        a_failure_is_told(ui, shop, told)
    assert set(killed) == set(VICTIMS[:kills])
    assert asker.faults == []
    assert asker.asked > 0
    assert asker.versions <= valid
    once_made = tables(shop.root)
    first, last = (day.isoformat() for day in DAYS)
    code, said = cli(shop.root, "backfill", "--from", first, "--to", last, BIGGER_BOAT_SIZE="quick")
    assert code == 0, said
    assert tables(shop.root) == once_made
    assert raw_rows(shop.root) == {day: entry.rows["browsing"] for day, entry in shop.index.days.items()}
    shop.instance.dispose()


def a_failure_is_told(ui: WebUI, shop: Shop, told: list[str]) -> None:
    """Somebody loads a day whose landed file is away for a while: what failed, and what goes on serving."""
    [file] = files_for(shop.root / "landing", "browsing", "2026-10-03")
    away = file.rename(shop.root / "away")
    assert ui.end_of(ui.launch(["raw/browsing_train"], "2026-10-03")) == "FAILURE"
    text = "A run failed.\nraw__browsing_train: A landed file cannot be loaded"
    [alert] = ui.wait(lambda: [alert for alert in told if alert.startswith(text)])
    assert f"intent: version {shop.current('intent')} goes on serving." in alert
    away.rename(file)


def process(victim: str, ui: WebUI, shop: Shop) -> int:
    if victim == "server":
        return read_server(shop.settings.endpoints_dir)["pid"]
    return {"run": run_process, "daemon": daemon, "host": run_host}[victim](ui)


def daemon(ui: WebUI) -> int:
    """Return the process of the daemon."""
    return ui.wait(lambda: next((p.pid for p in processes(ui) if "dagster._daemon" in " ".join(p.cmdline())), 0))


def run_host(ui: WebUI) -> int:
    """Wait for a run; return the process that it was forked from."""
    run_process(ui)
    above = daemon(ui)
    return ui.wait(
        lambda: next((p.pid for p in processes(ui) if p.ppid() == above and "run_host" in str(p.cmdline())), 0)
    )


def processes(ui: WebUI) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(ui.pid).children(recursive=True)
    return []


def run_process(ui: WebUI) -> int:
    """Wait for a run; return its process."""
    run = ui.wait(lambda: next((one for one in runs(ui) if one["status"] in ("STARTED", "STARTING")), None))

    def told() -> int:
        messages = [event.get("message", "") for event in ui.events(run["runId"])]
        said = [text for text in messages if text.startswith(STARTED)]
        return int(said[0].removeprefix(STARTED).split(")")[0]) if said else 0

    return ui.wait(told)


def runs(ui: WebUI) -> list[dict]:
    """Return the runs; none while the web UI is being started again."""
    try:
        return ui.runs()
    except (urllib.error.URLError, OSError, ServerError):
        return []


def wait_until_made(ui: WebUI, shop: Shop) -> None:
    """Wait until nothing runs and no day is behind."""
    over = ("SUCCESS", "FAILURE", "CANCELED")

    def made() -> bool:
        found = runs(ui)
        going = not found or any(run["status"] not in over for run in found)
        return not going and not shop.plan(select="group:raw or group:warehouse").days

    ui.wait(made)


def tables(root: Path) -> dict[str, tuple[int, str]]:
    """Return the number of rows of each table by day, and a digest of them, whatever their order."""
    query = "select count(*), md5(string_agg(row, chr(10) order by row)) from (select {0}::text as row from {1} as {0})"
    with duckdb.connect(str(root / "warehouse.duckdb"), read_only=True) as connection:
        return {name: connection.execute(query.format("t", name)).fetchone() for name in TABLES}


def raw_rows(root: Path) -> dict[str, int]:
    query = "select epoch_ms(server_timestamp_epoch_ms)::date::text as day, count(*) from raw.browsing_train group by 1"
    with duckdb.connect(str(root / "warehouse.duckdb"), read_only=True) as connection:
        return dict(connection.execute(query).fetchall())
