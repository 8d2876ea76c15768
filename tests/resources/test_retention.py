"""Which versions stay when old ones are swept: the newest, and all that something refers to."""

import json
import os
from pathlib import Path

import pytest

from bigger_boat.resources.local_endpoint_host import LocalEndpointHost
from bigger_boat.resources.retention import CHECKPOINT_AGE_S, sweep
from bigger_boat.resources.storage import LocalStorage


@pytest.fixture
def storage(tmp_path) -> LocalStorage:
    return LocalStorage(base_dir=str(tmp_path))


@pytest.fixture
def host(tmp_path) -> LocalEndpointHost:
    return LocalEndpointHost(endpoints_dir=str(tmp_path / "endpoints"))


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def versions(root: Path, name: str) -> list[str]:
    return sorted(path.name for path in (root / name).iterdir())


def test_the_newest_stay_and_what_is_referred_to(storage, host, tmp_path):
    for number in range(1, 8):
        write(tmp_path / f"datasets/intent_dataset/v{number}/dataset.json", {})
        write(tmp_path / f"bundles/intent_model/v{number}/bundle/bundle.json", {"info": {}})
    write(tmp_path / "addresses/intent_dataset.json", {"address": "datasets/intent_dataset/v2"})
    write(tmp_path / "addresses/intent_report.json", {"address": "reports/intent_report/v1"})
    write(tmp_path / "reports/intent_report/v1/report.json", {"chosen": {"bundle": "bundles/intent_model/v3/bundle"}})
    lineage = {"info": {"data_versions": {"intent_dataset": "v4"}}}
    write(tmp_path / "endpoints/intent/versions/w/bundle.json", lineage)
    write(
        tmp_path / "bundles/intent_model/v7/bundle/bundle.json", {"info": {"data_versions": {"intent_dataset": "v5"}}}
    )
    swept = sweep(storage, host, keep=1)
    assert versions(tmp_path, "datasets/intent_dataset") == ["v2", "v4", "v5", "v7"]
    assert versions(tmp_path, "bundles/intent_model") == ["v3", "v7"]
    assert versions(tmp_path, "reports/intent_report") == ["v1"]
    assert len(swept.addresses) == 3 + 5
    assert sweep(storage, host, keep=1).addresses == ()


def test_a_sweep_that_was_killed_is_ended_by_the_next(storage, host, tmp_path):
    write(tmp_path / "datasets/intent_dataset/.swept-0123/dataset.json", {})
    write(tmp_path / "datasets/intent_dataset/v1/dataset.json", {})
    sweep(storage, host, keep=1)
    assert versions(tmp_path, "datasets/intent_dataset") == ["v1"]


def test_a_checkpoint_goes_a_week_after_its_last_epoch(storage, host, tmp_path):
    for name, age_s in (("young", CHECKPOINT_AGE_S - 600), ("old", CHECKPOINT_AGE_S + 600)):
        folder = storage.checkpoints(name)
        for path in (folder / "lstm.npz", folder):
            path.touch()
            stamp = path.stat().st_mtime - age_s
            os.utime(path, (stamp, stamp))
    [gone] = sweep(storage, host, keep=1).addresses
    assert gone == storage.address(tmp_path / "checkpoints" / Path(gone).name)
    assert versions(tmp_path, "checkpoints") == [path.name for path in (storage.checkpoints("young"),)]


def test_nothing_to_sweep(storage, host):
    assert sweep(storage, host, keep=5).sentence == "0 old versions and checkpoints were removed, 0.0 MiB."
