"""Every test process gets a data folder and days of its own, before anything of ours reads the environment."""

import gc
import os
import tempfile
from pathlib import Path

import pytest

for name in [name for name in os.environ if name.startswith("BIGGER_BOAT_")]:
    del os.environ[name]
_data_dir = tempfile.TemporaryDirectory(prefix="bigger-boat-tests-")
os.environ["BIGGER_BOAT_DATA_DIR"] = _data_dir.name
os.environ["BIGGER_BOAT_TRACKING"] = "off"  # MLflow takes seconds to import; tests of it say so
os.environ["BIGGER_BOAT_START_DATE"] = "2026-10-01"
os.environ["DAGSTER_HOME"] = str(Path(__file__).resolve().parent.parent)
os.environ["DAGSTER_INSTANCE_DIR"] = _data_dir.name
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--histories N``: how many random histories of landings, corrections and runs the slow test of healing tries.

    ``--kills N``: how often the slow test of the web UI kills one of its runs, its daemon or the server.
    """
    parser.addoption("--kills", type=int, default=3, help="how often a part of `up` is killed (default: 3)")
    parser.addoption("--histories", type=int, default=40, help="random histories of days that heal (default: 40)")


def pytest_collection_finish() -> None:
    gc.freeze()  # what the tests' modules have made stays: it is looked at never again


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the snapshot come first: one of two test processes makes it while the other does all the rest."""
    items.sort(key=lambda item: "snapshot" not in getattr(item, "fixturenames", ()))
