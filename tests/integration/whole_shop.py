"""A data folder with the whole graph made, driven in this process on its own instance, or by the command line."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg

from bigger_boat.assets.verdicts import RANGE_END, RANGE_START
from bigger_boat.automation.plan import Plan, make_plan
from bigger_boat.automation.runner import failures_of
from bigger_boat.automation.selection import select_assets
from bigger_boat.data.landing_index import LandingIndex, read_index
from bigger_boat.data.simulator import simulate
from bigger_boat.resources.dbt_manifest import ensure_manifest
from bigger_boat.resources.local_endpoint_host import LocalEndpointHost
from bigger_boat.resources.storage import LocalStorage
from bigger_boat.serving.published import PublishedEndpoint
from bigger_boat.settings import PROJECT_DIR, Settings

LAST_DAY = date(2026, 10, 28)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Ran:
    """How a run ended. ``failures``: sentence by step; ``made``: the metadata of what was materialized, by asset."""

    success: bool
    failures: dict[str, str]
    refused: bool
    made: dict[str, dict[str, Any]]


class Shop:
    """The graph over the data folder ``root``, with the sizes of ``make run``."""

    def __init__(self, root: Path):
        ensure_manifest()
        from bigger_boat.definitions import build_definitions

        self.root = root
        self.settings = Settings(
            _env_file=None, data_dir=root, size="quick", max_workers=1, warehouse_wait_s=20, port=free_port()
        )
        self.definitions = build_definitions(self.settings)
        self.graph = self.definitions.resolve_asset_graph()
        self.job = self.definitions.resolve_implicit_global_asset_job_def()
        self.storage = LocalStorage(base_dir=str(root))
        self.host = LocalEndpointHost(endpoints_dir=str(self.settings.endpoints_dir), port=self.settings.port)
        self.instance = open_instance(root)

    def run(self, *names: str, days: Sequence[str] = ()) -> Ran:
        """Materialize these assets alone, with their checks; ``days``: of those by day, the first to the last."""
        result = self.job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey.from_user_string(name) for name in names],
            tags={RANGE_START: min(days), RANGE_END: max(days)} if days else {},
            run_config=QUIET,
            raise_on_error=False,
        )
        failures, refused = failures_of(self.instance, result.run_id)
        made = [event.step_materialization_data.materialization for event in result.get_asset_materialization_events()]
        values = {
            each.asset_key.to_user_string(): {k: v.value for k, v in each.metadata.items() if hasattr(v, "value")}
            for each in made
        }
        return Ran(result.success, dict(failures), refused, values)

    def plan(self, size: str = "quick", select: str = "*", **options: Any) -> Plan:
        """Return what ``bigger-boat run`` would do."""
        selected = select_assets(select, self.graph)
        return make_plan(self.graph, self.instance, selected, self.index, size, **options)

    @property
    def index(self) -> LandingIndex:
        return read_index(self.settings.landing_dir)

    def address(self, asset: str) -> str:
        return json.loads(self._address_file(asset).read_text())["address"]

    def point(self, asset: str, address: str) -> None:
        """Make another version the asset's present one, as a run of a faulty step would."""
        self._address_file(asset).write_text(json.dumps({"address": address, "run_id": ""}))

    def folder(self, asset: str) -> Path:
        return self.storage.fetch(self.address(asset))

    def current(self, endpoint: str) -> str:
        return PublishedEndpoint(self.settings.endpoints_dir, endpoint).current()

    def _address_file(self, asset: str) -> Path:
        return self.root / "addresses" / f"{asset}.json"


def open_instance(root: Path) -> dg.DagsterInstance:
    """Open the instance of a data folder, whichever folder this process's environment names."""
    folder = root / "instance"
    folder.mkdir(exist_ok=True)
    text = (PROJECT_DIR / "dagster.yaml").read_text()
    (folder / "dagster.yaml").write_text(re.sub(r"\n +env: DAGSTER_INSTANCE_DIR", f" {root / 'dagster'}", text))
    return dg.DagsterInstance.from_config(str(folder))


def copy_shop(snapshot: Path, root: Path) -> Shop:
    shutil.copytree(snapshot, root)
    return Shop(root)


def make_source(folder: Path, sessions: int = 27_000, days: int = 28, products: int = 2_000, seed: int = 1) -> Path:
    """Simulate a shop until 2026-10-28; by default the one that ``make run`` simulates."""
    simulate(folder, sessions=sessions, days=days, products=products, seed=seed, end_date=LAST_DAY)
    return folder


def environment(root: Path, **settings: str) -> dict[str, str]:
    """Return the environment of a process that works on a data folder."""
    own = {"BIGGER_BOAT_DATA_DIR": str(root), "BIGGER_BOAT_PORT": str(free_port()), "PYTHONHASHSEED": "0"}
    return {**os.environ, **own, **settings}


def start_cli(root: Path, *arguments: str, out: Any = subprocess.PIPE, **settings: str) -> subprocess.Popen:
    """Start ``bigger-boat`` as a process; standard error goes with standard output to ``out``."""
    return subprocess.Popen(
        [sys.executable, "-m", "bigger_boat.cli", *arguments],
        env=environment(root, **settings),
        stdout=out,
        stderr=subprocess.STDOUT,
        text=True,
    )


def cli(root: Path, *arguments: str, **settings: str) -> tuple[int, str]:
    """Run ``bigger-boat`` to its end; return its exit code and what it said, with lines joined."""
    process = start_cli(root, *arguments, **settings)
    said, _ = process.communicate(timeout=900)
    return process.returncode, said


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]
