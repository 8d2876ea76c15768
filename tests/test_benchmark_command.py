"""``bigger-boat benchmark`` on tiny files, through the command line."""

import json

import pytest
from typer.testing import CliRunner

from bigger_boat.cli import app
from bigger_boat.errors import DatasetError


@pytest.fixture
def clicks(tmp_path):
    rows = [
        f"{n}\t{item}\t{100 * n + place}" for n in range(40) for place, item in enumerate("abc" if n % 2 else "bcd")
    ]
    path = tmp_path / "clicks.txt"
    path.write_text("\n".join(["SessionId\tItemId\tTime", *rows]) + "\n")
    return path


def test_one_file_is_split_by_time_and_the_result_written(clicks, tmp_path):
    out = tmp_path / "result.json"
    result = CliRunner().invoke(app, ["benchmark", str(clicks), "--json", str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    written = json.loads(out.read_text())
    assert (written["split"]["training_sessions"], written["split"]["predictions"]) == (34, 12)
    assert written["results"][-1]["recommender"] == "hybrid_recommender"


def test_two_files_are_training_and_test(clicks, tmp_path):
    out = tmp_path / "result.json"
    command = ["benchmark", str(clicks), str(clicks), "--ladder-only", "--json", str(out)]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    written = json.loads(out.read_text())
    assert (written["split"]["training_sessions"], written["split"]["predictions"]) == (40, 80)
    assert not written["differences"]


def test_a_bad_file_is_an_error(clicks):
    result = CliRunner().invoke(app, ["benchmark", str(clicks.parent / "none.txt")])
    assert isinstance(result.exception, DatasetError)
    assert result.exit_code == 1
    result = CliRunner().invoke(app, ["benchmark", *[str(clicks)] * 3])
    assert isinstance(result.exception, DatasetError)
    result = CliRunner().invoke(app, ["benchmark", str(clicks), "--json", str(clicks.parent / "no" / "result.json")])
    assert isinstance(result.exception, DatasetError)
