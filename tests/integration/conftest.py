"""One snapshot for all: the default shop, landed, and the whole graph made once by ``bigger-boat run``.

Tests change copies of it. Two test processes share one snapshot: the first that needs it makes it.
"""

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no test folder on the path

from forked_cli import ForkedCli
from whole_shop import Shop, cli, copy_shop, environment, make_source, start_cli

from bigger_boat import clock
from bigger_boat.data.landing import land
from bigger_boat.demo import SELECTION
from bigger_boat.resources import local_server
from bigger_boat.serving import client

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """``made_once(name, make)``: a folder that the first test process that needs it makes, and others only read."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, make: Callable[[Path], None]) -> Path:
        finished, unfinished = base / name, base / f"{name}-in-the-making"
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not finished.exists():
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(finished)
        return finished

    return made


@pytest.fixture(scope="session")
def snapshot(made_once, tmp_path_factory) -> Path:
    """The data folder of a finished run, of what ``make run`` makes; what it printed lies in it. Never change it."""

    def make(root: Path) -> None:
        land(make_source(tmp_path_factory.mktemp("source") / "shop"), root / "landing", now=NOW)
        code, said = cli(root, "run", "--select", SELECTION, "--size", "quick", BIGGER_BOAT_TRACKING="mlflow")
        assert code == 0, said
        (root / "said.txt").write_text(said)

    return made_once("snapshot", make)


@pytest.fixture(scope="session")
def four_days(made_once) -> Path:
    """The data folder of a small shop of four days whose tables are made, its source beside it. Never change it."""

    def make(folder: Path) -> None:
        land(make_source(folder / "source", 900, 4, 60), folder / "data" / "landing", now=NOW)
        code, said = cli(folder / "data", "run", "--select", "+cart_sessions")
        assert code == 0, said

    return made_once("four-days", make) / "data"


@pytest.fixture
def shop(snapshot, tmp_path) -> Iterator[Shop]:
    """A copy of the snapshot to change."""
    shop = copy_shop(snapshot, tmp_path / "shop")
    yield shop
    shop.instance.dispose()


@pytest.fixture(scope="session")
def live(snapshot, tmp_path_factory) -> Iterator[Shop]:
    """A copy whose server runs, in a process of its own; each test leaves it as it was. ``live.url`` is its address."""
    shop = copy_shop(snapshot, tmp_path_factory.mktemp("live") / "shop")
    with (shop.root / "server.txt").open("w") as said:  # a pipe that nobody reads would be full some day
        server = start_cli(shop.root, "serve", "--port", str(shop.settings.port), out=said)
    shop.url = f"http://127.0.0.1:{shop.settings.port}"
    try:
        client.wait_until_up(shop.url)
        yield shop
    finally:
        local_server.stop(shop.settings.endpoints_dir)
        server.wait(30)
        shop.instance.dispose()


@pytest.fixture
def played_clock(tmp_path) -> Iterator[Path]:
    """A file that says how far this process's clock is apart (``clock.set_to``); other processes follow by setting."""
    file = tmp_path / "clock.txt"
    clock.set_to(file, datetime.now(UTC))
    clock.follow(file)
    yield file
    clock.follow(None)


@pytest.fixture(scope="module")
def forked(tmp_path_factory) -> Iterator[ForkedCli]:
    """The command line in processes that start in a tenth of a second."""
    command_line = ForkedCli(environment(tmp_path_factory.mktemp("forked")))
    yield command_line
    command_line.close()
