"""How the local server's process is set up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bigger_boat.resources import local_server
from bigger_boat.settings import Settings

ASKS_TENSORFLOW = """
from bigger_boat.resources.local_server import prefer_onednn
prefer_onednn()
from tensorflow.python.util import _pywrap_util_port
print(_pywrap_util_port.IsMklEnabled())
"""


@pytest.mark.parametrize(("setting", "answer"), [(None, "True"), ("0", "False")])
def test_tensorflow_uses_onednn_unless_somebody_decides_otherwise(setting, answer):
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    if setting is not None:
        environment["TF_ENABLE_ONEDNN_OPTS"] = setting
    command = [sys.executable, "-c", ASKS_TENSORFLOW]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == answer


def test_the_server_starts_with_onednn(tmp_path, monkeypatch):
    told = []
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    run = "bigger_boat.serving.server.run_server"
    monkeypatch.setattr(run, lambda *_, **__: told.append(os.environ.pop("TF_ENABLE_ONEDNN_OPTS", None)))
    local_server.serve(Settings(data_dir=tmp_path), "127.0.0.1", 0, Path(tmp_path / "bundle"))
    assert told == ["1"]
