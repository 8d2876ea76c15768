"""Versions on S3: written once, whole or not at all, encrypted, verified; and what is said when AWS refuses."""

import json
import os
import subprocess
import sys

import dagster as dg
import pytest
from batch_stand_in import BUCKET, REPOSITORY

from bigger_boat.errors import CloudError, DatasetError
from bigger_boat.resources.object_store import FILES, ObjectStore
from bigger_boat.resources.s3_storage import S3AddressIOManager, S3Storage
from bigger_boat.settings import Settings

MIB = 2**20


@pytest.fixture
def root(tmp_path, aws) -> str:
    return f"s3://{BUCKET}/{tmp_path.name}"


@pytest.fixture
def machines(tmp_path, root) -> list[S3Storage]:
    """Two machines that share the bucket only."""
    return [S3Storage(base_dir=str(tmp_path / name), root=root) for name in ("one", "other")]


def write(storage: S3Storage, text: str = "1", version: str | None = None) -> str:
    with storage.draft("datasets/some", version) as draft:
        (draft.path / "rows").mkdir()
        (draft.path / "rows" / "a.txt").write_text(text)
        (draft.path / "dataset.json").write_text("{}")
    return draft.address


def keys(aws, root) -> set[str]:
    prefix = root.removeprefix(f"s3://{BUCKET}/")
    return {key.removeprefix(prefix + "/") for key in aws.objects(prefix)}


def test_what_one_machine_publishes_another_fetches(machines, aws, root):
    address = write(machines[0])
    folder = machines[1].fetch(address)
    assert (folder / "rows" / "a.txt").read_text() == "1"
    assert sorted(path.name for path in folder.parent.iterdir()) == [address.split("/")[-1]]
    assert keys(aws, root) == {f"{address}/{name}" for name in ("rows/a.txt", "dataset.json", FILES)}
    head = aws.client("s3").head_object(Bucket=BUCKET, Key=f"{root.split('/', 3)[3]}/{address}/rows/a.txt")
    assert head["ServerSideEncryption"] == "AES256"


def test_a_bundle_is_fetched_with_what_lies_beside_it(machines, tmp_path):
    version = tmp_path / "one" / "bundles" / "intent_model" / "v1"
    (version / "bundle").mkdir(parents=True)
    (version / "bundle" / "bundle.json").write_text("{}")
    (version / "model.tar.gz").write_bytes(b"packed")
    address = machines[0].publish(version / "bundle")
    assert address == "bundles/intent_model/v1/bundle"
    assert machines[0].publish(version / "bundle") == address
    assert (machines[1].fetch(address).parent / "model.tar.gz").read_bytes() == b"packed"


def test_versions_are_write_once_whoever_writes(machines):
    address = write(machines[0], "first", "v")
    with pytest.raises(FileExistsError, match=r"datasets/some/v is published already"):
        write(machines[1], "second", "v")
    assert (machines[0].fetch(address) / "rows" / "a.txt").read_text() == "first"
    assert machines[0].store.read_text(f"{address}/rows/a.txt") == "first"


def test_what_was_never_published_is_not_there(machines):
    with pytest.raises(DatasetError, match=r"There is no datasets/some/v under s3://") as error:
        machines[0].fetch("datasets/some/v")
    assert error.value.hint.endswith("bigger-boat run --select some")


def test_an_altered_object_is_not_taken(machines, aws, root, tmp_path):
    address = write(machines[0])
    key = f"{root.split('/', 3)[3]}/{address}/rows/a.txt"
    aws.client("s3").put_object(Bucket=BUCKET, Key=key, Body=b"2")
    with pytest.raises(CloudError, match=r"rows/a.txt was altered"):
        machines[1].fetch(address)
    assert list((tmp_path / "other" / "datasets" / "some").iterdir()) == []


KILLED = """
import os, signal, sys
from bigger_boat.resources.object_store import ObjectStore
from pathlib import Path
store, left = ObjectStore(sys.argv[1]), int(sys.argv[3])
put = store.root.fs.put_file
def counted(*args, **more):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return put(*args, **more)
store.root.fs.put_file = counted
store.upload(Path(sys.argv[2]), "datasets/some/v")
"""


def test_a_kill_in_the_middle_leaves_no_version_and_the_same_again_makes_it(machines, root, tmp_path, aws):
    folder = tmp_path / "one" / "datasets" / "some" / "v"
    folder.mkdir(parents=True)
    for name in "abc":
        (folder / name).write_text(name)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", KILLED, root, str(folder), "2"]
    assert subprocess.run(command, env=environment, check=False).returncode == -9
    assert keys(aws, root) == {"datasets/some/v/a", "datasets/some/v/b"}
    with pytest.raises(DatasetError):
        machines[1].fetch("datasets/some/v")
    machines[0].publish(folder)
    assert {path.name: path.read_text() for path in machines[1].fetch("datasets/some/v").iterdir()} == dict(
        zip("abc", "abc", strict=True)
    )


def test_a_large_file_goes_in_parts_and_its_progress_is_told(root, tmp_path, aws, monkeypatch):
    monkeypatch.setattr("bigger_boat.resources.object_store.TOLD_BYTES", MIB)
    store, told = ObjectStore(root, part_bytes=5 * MIB), []
    folder = tmp_path / "big"
    folder.mkdir()
    content = os.urandom(MIB) * 21
    (folder / "model.tar.gz").write_bytes(content)
    store.upload(folder, "bundles/big/v", told.append)
    tag = aws.client("s3").head_object(Bucket=BUCKET, Key=f"{root.split('/', 3)[3]}/bundles/big/v/model.tar.gz")["ETag"]
    assert tag.strip('"').endswith("-5")
    assert told[-1] == "bundles/big/v/model.tar.gz: 100 % of 21 MiB"
    assert 3 <= len(told) <= 5
    assert store.download("bundles/big/v", tmp_path / "back", told.append)
    assert (tmp_path / "back" / "model.tar.gz").read_bytes() == content


def test_a_key_of_our_own_encrypts(root, tmp_path, aws):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a").write_text("a")
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    ObjectStore(root, kms_key=key).upload(tmp_path / "one", "datasets/some/v")
    head = aws.client("s3").head_object(Bucket=BUCKET, Key=f"{root.split('/', 3)[3]}/datasets/some/v/a")
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", key)


def test_a_bucket_that_is_not_there_is_named_with_what_to_do(tmp_path, aws):
    storage = S3Storage(base_dir=str(tmp_path), root="s3://no-such-bucket/x")
    for act in (lambda: write(storage), lambda: storage.fetch("datasets/some/v")):
        with pytest.raises(
            CloudError, match=r"s3://no-such-bucket/x/datasets/some/.* cannot be .*NoSuchBucket"
        ) as error:
            act()
        assert "BIGGER_BOAT_STORAGE" in error.value.hint


def test_a_path_that_speaks_of_a_bucket_is_no_missing_bucket(root):
    store = ObjectStore(f"{root}/my-bucket")
    assert store.read_text("addresses/bucket.json") is None
    assert store.files("datasets/bucket_list/v") is None


def test_a_download_that_is_killed_leaves_what_the_sweep_knows(machines, tmp_path, monkeypatch):
    address, fs = write(machines[0]), machines[1].store.root.fs
    get, seen = fs.get_file, []

    def look(*args, **more):
        seen.extend(path.name for path in (tmp_path / "other" / "datasets" / "some").iterdir())
        assert machines[1].sweep_drafts() == []  # whose process lives
        return get(*args, **more)

    monkeypatch.setattr(fs, "get_file", look)
    assert machines[1].fetch(address).is_dir()
    [draft] = set(seen)
    assert draft.startswith(f".draft-{os.getpid()}-")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = tmp_path / "other" / "datasets" / "some" / draft.replace(str(os.getpid()), str(gone.pid))
    left.mkdir()
    assert machines[1].sweep_drafts() == [left]


REFUSALS = [
    ("AccessDenied", 403, "lacks the permission"),
    ("PermanentRedirect", 301, "AWS_DEFAULT_REGION"),
    ("AuthorizationHeaderMalformed", 400, "AWS_DEFAULT_REGION"),
    ("InvalidAccessKeyId", 403, "Log in again"),
]


@pytest.mark.parametrize(("code", "status", "hint"), REFUSALS)
def test_a_refusal_says_what_where_and_what_to_do(machines, aws, code, status, hint):
    address = write(machines[0])
    with (
        aws.refusing("s3", "PUT", code, status),
        pytest.raises(CloudError, match=f"cannot be written: AWS answered {code}") as error,
    ):
        write(machines[0])
    assert hint in error.value.hint
    with (
        aws.refusing("s3", "GET", code, status),
        pytest.raises(CloudError, match=f"cannot be read: AWS answered {code}"),
    ):
        machines[1].fetch(address)
    assert machines[1].fetch(address).is_dir()


def test_a_short_outage_is_no_news(machines, aws):
    with aws.refusing("s3", "PUT", "SlowDown", 503, times=2):
        address = write(machines[0])
    assert machines[1].fetch(address).is_dir()


def test_without_a_root_the_first_use_says_so(tmp_path):
    with pytest.raises(CloudError, match="BIGGER_BOAT_STORAGE is not set"):
        write(S3Storage(base_dir=str(tmp_path), root=""))


def test_addresses_are_handed_on_by_the_bucket(root, tmp_path):
    @dg.asset
    def model() -> str:
        return "bundles/model/v1"

    @dg.asset
    def champion(model: str) -> str:
        return f"from {model}"

    handed = {"io_manager": S3AddressIOManager(base_dir=root)}
    assert dg.materialize([model], resources=handed).success
    result = dg.materialize([champion, dg.AssetSpec("model")], resources=handed, selection=[champion])
    assert result.output_for_node("champion") == "from bundles/model/v1"
    written = json.loads(ObjectStore(root).read_text("addresses/champion.json"))
    assert written == {"address": "from bundles/model/v1", "run_id": result.run_id}


def test_the_profile_says_where_versions_are(tmp_path):
    from bigger_boat.profiles import build_resources

    resources = build_resources(Settings(data_dir=tmp_path, profile="aws", storage="s3://b/p", _env_file=None))
    assert (resources["storage"].root, resources["address_io_manager"].base_dir) == ("s3://b/p", "s3://b/p")
