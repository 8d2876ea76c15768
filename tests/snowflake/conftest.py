"""One stand-in for Snowflake per test process, a key pair, and a landed shop."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no test folder on the path

from snowflake_graph import DAYS, StandIn, new_key, stand_in, write_shop

from bigger_boat.data.landing import land
from bigger_boat.settings import get_settings


@pytest.fixture(scope="session")
def key_file(tmp_path_factory) -> Path:
    """A private key without passphrase."""
    path = tmp_path_factory.mktemp("key") / "rsa_key.p8"
    path.write_text(new_key())
    return path


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[StandIn]:
    """The stand-in; each test uses a database of its own."""
    with stand_in(tmp_path_factory.mktemp("stand-in")) as running:
        yield running


@pytest.fixture
def key(key_file, monkeypatch) -> Iterator[Path]:
    """Settings in which the key is set."""
    monkeypatch.setenv("BIGGER_BOAT_SNOWFLAKE_PRIVATE_KEY_PATH", str(key_file))
    get_settings.cache_clear()
    yield key_file
    monkeypatch.undo()
    get_settings.cache_clear()


@pytest.fixture(scope="session")
def landed(tmp_path_factory) -> Path:
    """A landing zone with three days and a catalogue."""
    root = tmp_path_factory.mktemp("shop")
    land(write_shop(root / "source", DAYS, sessions_a_day=12), root / "landing", now=datetime(2026, 11, 1, tzinfo=UTC))
    return root / "landing"
