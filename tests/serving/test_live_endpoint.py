"""One endpoint that follows its directory: a full disk loses nothing that was loaded, and what is replaced is freed."""

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_models import knn_bundle

from bigger_boat.errors import BundleError
from bigger_boat.resources.local_endpoint_host import LocalEndpointHost
from bigger_boat.serving import endpoints, published
from bigger_boat.serving.endpoints import EndpointsHost, LiveEndpoint
from bigger_boat.serving.graph import Graph
from bigger_boat.serving.published import PublishedEndpoint, WantedChallenger

NAME = "recommendation"


class Disk:
    """Full or not, for all that a server writes down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.is_full, self._write = False, published.replace_file
        monkeypatch.setattr(published, "replace_file", self.replace_file)

    def replace_file(self, path: Path, content: bytes) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device", str(path))
        self._write(path, content)


@pytest.fixture
def disk(monkeypatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """The versions that were loaded, in order, however often."""
    loaded: list[str] = []

    def load(path: Path) -> SimpleNamespace:
        loaded.append(path.name)
        return SimpleNamespace(bundle=SimpleNamespace(name=NAME, version=path.name, kind="tiny"))

    monkeypatch.setattr(endpoints.Predictor, "load", staticmethod(load))
    return loaded


@pytest.fixture
def live(tmp_path, disk, loads) -> LiveEndpoint:
    """It serves v1; versions called bad fail their golden requests."""
    where = PublishedEndpoint(tmp_path, NAME)
    where.directory.mkdir()
    where.point_at("v1")

    def verify(predictor: SimpleNamespace) -> None:
        if predictor.bundle.version == "bad":
            raise BundleError("It answers otherwise.")

    live = LiveEndpoint(where, verify)
    live.start()
    return live


def look_five_times(live: LiveEndpoint) -> None:
    for _ in range(5):
        with pytest.raises(OSError, match="No space"):
            live.follow()


def test_a_challenger_is_loaded_once_and_answers_although_nothing_can_be_written(live, disk, loads):
    live.published.set_challenger(WantedChallenger("v2", 0.1, shadow=False))
    disk.is_full = True
    look_five_times(live)
    assert loads == ["v1", "v2"]
    assert live.challenger.version == "v2"
    disk.is_full = False
    live.follow()
    assert live.published.challenging()["version"] == "v2"
    assert loads == ["v1", "v2"]


def test_a_challenger_that_cannot_answer_is_loaded_once_and_refused_when_there_is_room(live, disk, loads):
    live.published.set_challenger(WantedChallenger("bad", 0.1, shadow=False))
    disk.is_full = True
    look_five_times(live)
    assert loads == ["v1", "bad"]
    disk.is_full = False
    live.follow()
    assert live.published.challenger() is None
    assert live.published.refused()["reasons"] == ["It answers otherwise."]
    assert loads == ["v1", "bad"]


def test_a_version_that_cannot_serve_is_loaded_once_and_put_back_when_there_is_room(live, disk, loads):
    live.published.point_at("bad")
    disk.is_full = True
    look_five_times(live)
    assert loads == ["v1", "bad"]
    disk.is_full = False
    live.follow()
    assert live.published.current() == "v1"
    assert live.published.refused()["version"] == "bad"
    live.published.point_at("bad")
    live.follow()
    assert loads == ["v1", "bad", "bad"], "whoever publishes it again gets another look"


def test_a_challenge_that_ended_before_it_could_be_said_is_not_said(live, disk):
    live.published.set_challenger(WantedChallenger("v2", 0.1, shadow=False))
    disk.is_full = True
    look_five_times(live)
    live.published.set_challenger(None)
    disk.is_full = False
    live.follow()
    assert live.challenger is None
    assert live.published.challenging() is None


def test_a_full_disk_is_told_once_until_it_has_room_again(tmp_path, caplog):
    host = EndpointsHost(tmp_path, verify=lambda _predictor: None)

    def full() -> None:
        raise OSError(28, "No space left on device")

    for step in (full, full, full, lambda: None, full):
        host._guarded(NAME, step)
    assert [record.message for record in caplog.records] == [
        "The endpoints directory cannot be used: [Errno 28] No space left on device"
    ] * 2


def test_a_version_that_was_replaced_or_refused_leaves_no_graph_behind(tmp_path):
    host = LocalEndpointHost(endpoints_dir=str(tmp_path / "endpoints"))
    bundles = [knn_bundle(tmp_path / "bundles", seed, products=50, dimensions=4) for seed in (1, 2, 3)]
    host.publish(NAME, bundles[0].directory)
    loaded: list[weakref.ref] = []

    def verify(predictor: endpoints.Predictor) -> None:
        graph = next(value for value in vars(predictor).values() if isinstance(value, Graph))
        loaded.append(weakref.ref(graph._call._session.graph))  # TensorFlow's: a cycle
        if predictor.bundle.version == bundles[2].version:
            raise BundleError("It answers otherwise.")

    live = LiveEndpoint(PublishedEndpoint(tmp_path / "endpoints", NAME), verify)
    live.start()
    gc.disable()  # nothing but the endpoint itself frees them
    try:
        for bundle, alive in ((bundles[1], [False, True]), (bundles[2], [False, True, False])):
            host.publish(NAME, bundle.directory)
            live.follow()  # loads it
            live.follow()  # a look later: what nobody uses any more goes
            assert [graph() is not None for graph in loaded] == alive
    finally:
        gc.enable()
    assert live.served.version == bundles[1].version
