"""dbt in process: a parsed manifest, dagster-dbt's events, errors that name the place, a file that is free after."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest

from bigger_boat.errors import WarehouseError
from bigger_boat.resources.dbt import DbtInProcess
from bigger_boat.resources.dbt_manifest import PROJECT_DIR, ensure_manifest, load_manifest
from bigger_boat.resources.duckdb_warehouse import DuckDBWarehouse


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project with two small models and a test, so that parsing takes a moment only."""
    folder = tmp_path / "dbt_project"
    (folder / "models").mkdir(parents=True)
    (folder / "macros").mkdir()
    for name in ("dbt_project.yml", "profiles.yml", "macros/session.sql"):
        shutil.copy(PROJECT_DIR / name, folder / name)
    (folder / "models" / "good.sql").write_text("select 1 as x")
    (folder / "models" / "after_good.sql").write_text("select * from {{ ref('good') }}")
    (folder / "models" / "good.yml").write_text(
        "version: 2\nmodels:\n  - name: good\n    columns:\n      - name: x\n        data_tests: [not_null]\n"
    )
    return folder


@pytest.fixture
def dbt(project: Path, tmp_path: Path) -> DbtInProcess:
    warehouse = DuckDBWarehouse(path=str(tmp_path / "warehouse.duckdb"), threads=1)
    return DbtInProcess(
        project_dir=str(project), state_dir=str(tmp_path / "state"), environment=warehouse.dbt_environment()
    )


def build(dbt: DbtInProcess) -> list:
    manifest = json.loads(ensure_manifest(Path(dbt.project_dir)).read_bytes())
    return list(dbt.cli(["build"], manifest=manifest).stream())


def test_events_are_dagster_dbts_own_and_nothing_is_left_behind(
    dbt: DbtInProcess, project: Path, tmp_path: Path
) -> None:
    directory, before = os.getcwd(), set(os.environ)
    events = build(dbt)
    assert [type(event).__name__ for event in events] == [
        "AssetMaterialization",
        "AssetCheckEvaluation",
        "AssetMaterialization",
    ]
    assert [event.asset_key.to_user_string() for event in events] == ["good", "good", "after_good"]
    assert events[1].passed
    assert (os.getcwd(), set(os.environ)) == (directory, before)
    assert sorted(path.name for path in project.iterdir()) == [
        "dbt_project.yml",
        "macros",
        "models",
        "profiles.yml",
        "target",
    ]
    assert (tmp_path / "state" / "dbt" / "dbt.log").exists()
    other = f"import duckdb; duckdb.connect({str(tmp_path / 'warehouse.duckdb')!r})"
    assert subprocess.run([sys.executable, "-c", other], check=False).returncode == 0


def test_the_database_can_be_opened_otherwise_at_once(dbt: DbtInProcess, project: Path, monkeypatch) -> None:
    """Whoever still refers to what dbt connected with: DuckDB refuses another configuration beside an open one."""
    from dbt.adapters.duckdb import environments

    (project / "models" / "good.sql").write_text("select no_such_column")
    create, kept = environments.create, []
    monkeypatch.setattr(environments, "create", lambda credentials: kept.append(create(credentials)) or kept[-1])
    with pytest.raises(dg.Failure, match="no_such_column"):
        build(dbt)
    other = DuckDBWarehouse(path=dbt.environment["DBT_DUCKDB_PATH"], threads=1, memory_limit="77MB", lock_timeout_s=0)
    with other.connect():
        assert len(kept) == 1


def test_a_failed_model_names_file_message_and_compiled_sql(dbt: DbtInProcess, project: Path) -> None:
    (project / "models" / "good.sql").write_text("select no_such_column as x from (select 1 as y)")
    with pytest.raises(dg.Failure) as failed:
        build(dbt)
    text = failed.value.description
    assert "model good failed (models/good.sql)" in text
    assert "no_such_column" in text
    compiled = text.split("compiled SQL: ")[1].split("\n")[0]
    assert "no_such_column" in Path(compiled).read_text()
    assert failed.value.metadata["failed"].value == ["model.bigger_boat.good"]


def test_a_failed_test_comes_with_its_events_and_is_not_retried(dbt: DbtInProcess, project: Path) -> None:
    (project / "models" / "good.sql").write_text("select cast(null as int) as x")
    manifest = json.loads(ensure_manifest(project).read_bytes())
    events = []
    with pytest.raises(dg.Failure, match="test not_null_good_x failed") as failed:
        events.extend(iter_into(events, dbt.cli(["build"], manifest=manifest).stream()))
    assert not failed.value.allow_retries
    assert [type(event).__name__ for event in events] == ["AssetMaterialization", "AssetCheckEvaluation"]
    assert not events[1].passed


def iter_into(events: list, stream) -> list:
    for event in stream:
        events.append(event)
    return []


def test_a_command_that_cannot_start_says_why(dbt: DbtInProcess) -> None:
    manifest = json.loads(ensure_manifest(Path(dbt.project_dir)).read_bytes())
    with pytest.raises(dg.Failure, match=r"could not start.*no-such-flag"):
        list(dbt.cli(["build", "--no-such-flag"], manifest=manifest).stream())


def test_the_manifest_is_built_once_and_again_after_a_change(project: Path) -> None:
    path = ensure_manifest(project)
    assert path == project / "target" / "manifest.json"
    stamp = path.stat().st_mtime_ns
    assert ensure_manifest(project).stat().st_mtime_ns == stamp
    assert "model.bigger_boat.good" in load_manifest(project).nodes

    (project / "models" / "third.sql").write_text("select 3 as z")
    assert "model.bigger_boat.third" in json.loads(ensure_manifest(project).read_bytes())["nodes"]
    assert sorted(path.name for path in (project / "target").iterdir()) == [
        ".manifest.lock",
        "manifest.json",
        "manifest.sha256",
        "partial_parse.msgpack",
    ]


def test_several_at_once_build_one_manifest(project: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from bigger_boat.resources.dbt_manifest import ensure_manifest; "
        "print(ensure_manifest(Path(sys.argv[1])).stat().st_mtime_ns)"
    )
    command = [sys.executable, "-c", code, str(project)]
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: subprocess.run(command, capture_output=True, text=True, check=True), range(2)))
    assert len({run.stdout for run in runs}) == 1


def test_a_project_that_cannot_be_parsed_is_a_sentence(project: Path) -> None:
    (project / "models" / "good.sql").write_text("select {{ ref('nowhere') }}")
    with pytest.raises(WarehouseError, match=r"(?s)cannot be parsed:.*nowhere"):
        ensure_manifest(project)
