import os
import subprocess
import sys

import dagster as dg
import pytest

from bigger_boat.errors import DatasetError
from bigger_boat.resources.storage import AddressIOManager, LocalStorage


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(base_dir=str(tmp_path))


def test_a_draft_is_published_whole_by_leaving_it(storage, tmp_path):
    with storage.draft("datasets/some") as draft:
        (draft.path / "rows.txt").write_text("1")
        assert not (tmp_path / draft.address).exists()
    assert (storage.fetch(draft.address) / "rows.txt").read_text() == "1"


def test_an_error_publishes_nothing_and_leaves_nothing(storage, tmp_path):
    def fail() -> None:
        with storage.draft("datasets/some") as draft:
            (draft.path / "rows.txt").write_text("1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list((tmp_path / "datasets" / "some").iterdir()) == []


def test_versions_are_write_once(storage):
    with storage.draft("datasets/some", version="a") as draft:
        (draft.path / "rows.txt").write_text("first")
    with pytest.raises(FileExistsError), storage.draft("datasets/some", version="a") as again:
        (again.path / "rows.txt").write_text("second")
    assert (storage.fetch("datasets/some/a") / "rows.txt").read_text() == "first"


def test_fetching_what_is_not_there_says_how_to_make_it(storage):
    with pytest.raises(DatasetError, match="datasets/some/b") as error:
        storage.fetch("datasets/some/b")
    assert "bigger-boat run --select some" in error.value.hint


def test_drafts_of_killed_processes_are_swept_and_those_of_living_ones_stay(storage, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for pid in (dead.pid, os.getpid()):
        (tmp_path / "datasets" / "some" / f".draft-{pid}-v").mkdir(parents=True)
    swept = storage.sweep_drafts()
    assert [path.name for path in swept] == [f".draft-{dead.pid}-v"]
    assert (tmp_path / "datasets" / "some" / f".draft-{os.getpid()}-v").exists()


def test_what_was_never_made_is_none_where_the_input_says_so(tmp_path):
    @dg.asset
    def report(model: str | None) -> str:
        return f"of {model}"

    @dg.asset
    def champion(model: str) -> str:
        return f"from {model}"

    def made(asset):
        handed = {"io_manager": AddressIOManager(base_dir=str(tmp_path))}
        chosen = [asset, dg.AssetSpec("model")]
        return dg.materialize(chosen, resources=handed, selection=[asset], raise_on_error=False)

    assert made(report).output_for_node("report") == "of None"
    failed = made(champion)
    assert "model has not been made yet" in failed.failure_data_for_node("champion").error.to_string()
    (tmp_path / "model.json").write_text('{"address": "models/model/1"}')
    assert made(report).output_for_node("report") == "of models/model/1"
