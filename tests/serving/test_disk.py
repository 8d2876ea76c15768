"""A disk that is really full: a small tmpfs where this process may mount one, injected ENOSPC where not."""

import errno
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from bigger_boat.assets import endpoints
from bigger_boat.errors import BundleError
from bigger_boat.resources import local_endpoint_host
from bigger_boat.resources.local_endpoint_host import LocalEndpointHost
from bigger_boat.serving.published import PublishedEndpoint

NAME = "recommendation"
DISK_BYTES, LEFT_BYTES = 4 * 1024 * 1024, 16 * 1024


class Disk:
    """``fill`` leaves a few KiB; ``empty`` undoes it."""

    def __init__(self, root: Path, fill: Callable[[], None], empty: Callable[[], None]):
        self.root, self.fill, self.empty = root, fill, empty


@pytest.fixture
def disk(tmp_path, monkeypatch) -> Iterator[Disk]:
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        yield _pretended(place, monkeypatch)
        return

    def fill() -> None:
        left = shutil.disk_usage(place).free - LEFT_BYTES
        (place / "filler").write_bytes(b"x" * left)

    yield Disk(place / "endpoints", fill, (place / "filler").unlink)
    subprocess.run(["umount", str(place)], check=True)


def _pretended(place: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The same to our code: no room is reported, and every synced copy fails as a full disk makes it fail."""
    usage, copy = shutil.disk_usage, local_endpoint_host._copy_synced

    def fails(source: str, target: str) -> str:
        Path(target).write_bytes(Path(source).read_bytes()[:1_000])
        raise OSError(errno.ENOSPC, "No space left on device", target)

    def fill() -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=LEFT_BYTES))
        monkeypatch.setattr(local_endpoint_host, "_copy_synced", fails)

    def empty() -> None:
        monkeypatch.setattr(shutil, "disk_usage", usage)
        monkeypatch.setattr(local_endpoint_host, "_copy_synced", copy)

    return Disk(place / "endpoints", fill, empty)


@pytest.mark.parametrize(
    ("spare_bytes", "reason"),
    [(None, "too little disk"), (-DISK_BYTES, "No space left on device")],
    ids=["foreseen", "while writing"],
)
def test_no_room_for_a_version_is_said_and_what_serves_stays(disk, bundles, monkeypatch, spare_bytes, reason):
    """Also where the room vanishes between looking and writing: then the kernel refuses, half way through a file."""
    host = LocalEndpointHost(endpoints_dir=str(disk.root))
    assert host.publish(NAME, bundles["first"].directory).state == "waiting"
    before = sorted(path for path in disk.root.rglob("*"))
    disk.fill()
    with monkeypatch.context() as patched:
        if spare_bytes is not None:
            patched.setattr(local_endpoint_host, "_SPARE_BYTES", spare_bytes)
        with pytest.raises(BundleError, match=reason):
            host.publish(NAME, bundles["second"].directory)
    assert sorted(path for path in disk.root.rglob("*")) == before
    assert PublishedEndpoint(disk.root, NAME).current() == bundles["first"].version
    disk.empty()
    assert host.publish(NAME, bundles["second"].directory).state == "waiting"
    assert host.serving_version(NAME) == bundles["second"].version


class Storage:
    """Addresses are paths."""

    @staticmethod
    def fetch(address: str) -> Path:
        return Path(address)


def test_the_assets_check_shows_that_there_was_no_room(disk, champion):
    host = LocalEndpointHost(endpoints_dir=str(disk.root))
    disk.root.mkdir()
    disk.fill()
    shown: list[dg.AssetCheckResult] = []
    with pytest.raises(dg.Failure, match="too little disk"):
        _collect(endpoints._publish(NAME, str(champion), Storage(), host), shown)
    assert [(check.check_name, check.passed) for check in shown] == [
        ("bundle_is_intact", True),
        ("passed_the_champions_gate", True),
        ("endpoint_agrees_with_offline", True),
        ("version_was_taken", False),
    ]
    assert "too little disk" in shown[-1].description
    assert host.serving_version(NAME) is None


def _collect(events: Iterator, into: list) -> None:
    for event in events:
        into.append(event)  # what came before a refusal stays


@pytest.fixture(scope="module")
def champion(tmp_path_factory) -> Path:
    """A tiny bundle that says it was judged."""
    from tiny_models import export_recommender, recommendation_golden

    from bigger_boat.ml.bundle import write_bundle

    info = {
        "gate": [{"name": "beats_popularity", "passed": True, "description": "It is better.", "value": 0.1}],
        "configuration": {},
        "refit": {"first_day": "2026-10-01", "last_day": "2026-10-28"},
    }
    root = tmp_path_factory.mktemp("champion")
    golden = recommendation_golden()
    return write_bundle(root, name=NAME, kind="tiny", export=export_recommender, golden=golden, info=info).directory
