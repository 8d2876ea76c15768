"""Bundles of tiny models and the starter of real servers. Their making is in ``tiny_models.py`` beside it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no test folder on the path

from tiny_models import (
    FOLLOWS,
    Server,
    export_intent,
    export_recommender,
    intent_golden,
    make_bundle,
    recommendation_golden,
)

from bigger_boat.ml.bundle import Bundle


@pytest.fixture(scope="session")
def bundles(tmp_path_factory) -> dict[str, Bundle]:
    """Good versions (first < second), and one whose graph answers otherwise than its golden answers say."""
    root = tmp_path_factory.mktemp("bundles")
    other = FOLLOWS[::-1].copy()
    return {
        "first": make_bundle(root, "recommendation", export_recommender, recommendation_golden()),
        "second": make_bundle(
            root, "recommendation", lambda path: export_recommender(path, other), recommendation_golden(other)
        ),
        "disagrees": make_bundle(
            root, "recommendation", lambda path: export_recommender(path, other), recommendation_golden()
        ),
        "intent": make_bundle(root, "intent", export_intent, intent_golden()),
    }


@pytest.fixture(scope="module")
def start_server() -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(mode: str, directory: Path, port: int = 0, **told: Any) -> Server:
        started.append(Server(mode, directory, port, **told))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.stop()
