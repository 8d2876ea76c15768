import dataclasses
import json
from datetime import UTC, datetime

import pytest

from bigger_boat.data.dataset_manifest import (
    CheckOutcome,
    describe_dataset,
    read_manifest,
    require_passed,
    write_manifest,
)
from bigger_boat.data.recommendation_dataset import RECOMMENDATION_COLUMNS, build_recommendation_dataset
from bigger_boat.data.split_files import split_path
from bigger_boat.errors import DatasetError

PASSED = CheckOutcome("sessions_disjoint", True, True, "The 4 sessions are each in one split.", 0.0)
WARNING = CheckOutcome("vocabulary_coverage", False, False, "Training knows 40.0% of the products of test.", 0.4)
FAILED = CheckOutcome("class_balance", False, True, "test has 3 examples, and none with a purchase.", None)


@pytest.fixture
def publish(tmp_path, make_session, to_batches, four_days):
    def publish(*checks, version="v1", hour=12):
        sessions = to_batches([make_session(f"s{day}", day, "detail:A detail:B") for day in range(4)])
        rows = build_recommendation_dataset(sessions, four_days, tmp_path)
        manifest = describe_dataset(
            tmp_path,
            name="recommendation_dataset",
            version=version,
            created_at=datetime(2026, 1, 5, hour, tzinfo=UTC),
            splits=four_days,
            inputs={"sessions/2026-01-01": "f00d"},
            rows=rows,
            schema=RECOMMENDATION_COLUMNS,
            checks=checks or (PASSED,),
        )
        write_manifest(tmp_path, manifest)
        return manifest

    return publish


def test_what_is_written_is_read_again(publish, tmp_path):
    manifest = publish(PASSED, WARNING)
    assert read_manifest(tmp_path) == manifest
    require_passed(manifest)  # a warning does not block
    assert manifest.created_at == "2026-01-05T12:00:00+00:00"
    assert manifest.rows == {"train": 2, "validation": 1, "test": 1}
    assert manifest.days == {
        "first": "2026-01-01",
        "last": "2026-01-04",
        "count": 4,
        "splits": {
            "train": {"first": "2026-01-01", "last": "2026-01-02", "count": 2},
            "validation": {"first": "2026-01-03", "last": "2026-01-03", "count": 1},
            "test": {"first": "2026-01-04", "last": "2026-01-04", "count": 1},
        },
    }
    assert manifest.schema["items"] == "list<item: string>"
    assert not list(tmp_path.glob(".*"))  # nothing unfinished is left


def test_the_data_version_follows_the_rows_and_nothing_else(publish, tmp_path):
    first = publish(version="v1", hour=1).data_version
    assert publish(version="v2", hour=2).data_version == first
    altered = dataclasses.replace(read_manifest(tmp_path), files={"train.parquet": "0"})
    assert altered.data_version != first


def test_a_failed_blocking_check_is_named(publish):
    with pytest.raises(DatasetError, match=r"failed 1 of its 3 checks\. class_balance: test has 3 examples") as refused:
        require_passed(publish(PASSED, FAILED, WARNING))
    assert "vocabulary_coverage" not in str(refused.value)


def test_a_data_set_that_was_never_checked_is_refused(publish):
    with pytest.raises(DatasetError, match="carries no results of blocking checks"):
        require_passed(publish(WARNING))


def test_an_altered_file_is_found(publish, tmp_path):
    publish()
    path = split_path(tmp_path, "test")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"test\.parquet is not the file that was checked"):
        read_manifest(tmp_path)
    assert read_manifest(tmp_path, verify=False).name == "recommendation_dataset"


def test_a_missing_file_is_found(publish, tmp_path):
    publish()
    split_path(tmp_path, "validation").unlink()
    with pytest.raises(DatasetError, match=r"validation\.parquet is missing"):
        read_manifest(tmp_path)


def test_a_manifest_that_does_not_name_a_split_is_refused(publish, tmp_path):
    manifest = publish()
    files = {name: digest for name, digest in manifest.files.items() if name != "test.parquet"}
    write_manifest(tmp_path, dataclasses.replace(manifest, files=files))
    with pytest.raises(DatasetError, match=r"names no test\.parquet"):
        read_manifest(tmp_path)


def test_a_folder_without_a_manifest_is_no_data_set(tmp_path):
    with pytest.raises(DatasetError, match=r"There is no data set in .*: it has no dataset\.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format_version": 1, "checks": []}'])
def test_a_damaged_manifest_is_said_to_be_one(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DatasetError, match="is not a readable manifest"):
        read_manifest(tmp_path)


def test_a_manifest_of_another_format_is_refused(publish, tmp_path):
    publish()
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 2}))
    with pytest.raises(DatasetError, match="is of format 2; this version reads format 1"):
        read_manifest(tmp_path)
