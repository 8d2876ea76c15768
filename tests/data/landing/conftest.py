"""Makes ``landing_source`` importable for the tests of this folder, and gives them an empty landing zone."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "landing"
