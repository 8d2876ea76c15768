import subprocess
import sys

import pyarrow as pa
import pytest

from bigger_boat.data import split_files
from bigger_boat.data.intent_dataset import build_intent_dataset
from bigger_boat.data.recommendation_dataset import build_recommendation_dataset
from bigger_boat.data.split_files import read_split, split_batches
from bigger_boat.errors import DatasetError

BUILDERS = [build_intent_dataset, build_recommendation_dataset]


@pytest.fixture
def shop(make_session):
    stories = [
        "detail:A add:A view view purchase:A",
        "search click:B detail:B add:B view",
        "view",
        "add:C purchase:C view",
    ]
    return [make_session(f"s{place:03d}", place % 4, stories[place % 3], second=place // 7) for place in range(200)]


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("build", BUILDERS)
def test_bytes_do_not_depend_on_the_batches_that_come_in(build, tmp_path, shop, to_batches, four_days, monkeypatch):
    monkeypatch.setattr(split_files, "ROWS_PER_GROUP", 16)  # so that row groups end inside, at and across batches
    for rows in (1, 7, 16, 1000):
        build(to_batches(shop, rows), four_days, tmp_path / str(rows))
    monkeypatch.setattr(split_files, "BATCH_ROWS", 3)
    build(to_batches(shop), four_days, tmp_path / "small")
    reference = contents(tmp_path / "1000")
    assert set(reference) == {"train.parquet", "validation.parquet", "test.parquet"}
    assert all(contents(tmp_path / name) == reference for name in ("1", "7", "16", "small"))
    assert [batch.num_rows for batch in split_batches(tmp_path / "7", "train")][:2] == [16, 16]


@pytest.mark.parametrize("build", BUILDERS)
def test_a_slice_of_a_batch_is_read_from_its_place(build, tmp_path, shop, to_batches, four_days):
    whole = to_batches(shop)[0]
    build([whole.slice(0, 63), whole.slice(63, 64), whole.slice(127)], four_days, tmp_path / "sliced")
    build([whole], four_days, tmp_path / "whole")
    assert contents(tmp_path / "sliced") == contents(tmp_path / "whole")


@pytest.mark.parametrize("build", BUILDERS)
def test_without_a_session_there_are_three_empty_files(build, tmp_path, four_days):
    assert build([], four_days, tmp_path) == {"train": 0, "validation": 0, "test": 0}
    assert [read_split(tmp_path, split).height for split in ("train", "validation", "test")] == [0, 0, 0]


def test_sessions_out_of_order_are_refused_even_between_batches(tmp_path, make_session, to_batches, four_days):
    early, late = make_session("early", 0, "add:A", second=1), make_session("late", 0, "add:A", second=2)
    with pytest.raises(DatasetError, match="session early of 2026-01-01 started at 2026-01-01 00:00:01 does not"):
        build_intent_dataset([*to_batches([late]), *to_batches([early])], four_days, tmp_path)


def test_a_session_that_comes_twice_is_refused(tmp_path, make_session, to_batches, four_days):
    with pytest.raises(DatasetError, match="must come once each"):
        build_intent_dataset(to_batches([make_session("s", 0, "add:A")] * 2), four_days, tmp_path)


@pytest.mark.parametrize("day", [-1, 4])
def test_a_day_outside_of_the_splits_is_refused(tmp_path, make_session, to_batches, four_days, day):
    with pytest.raises(DatasetError, match="not within the data set's days, 2026-01-01 to 2026-01-04"):
        build_intent_dataset(to_batches([make_session("s", day, "add:A")]), four_days, tmp_path)


def test_a_missing_column_is_named(tmp_path, make_session, to_batches, four_days):
    batch = to_batches([make_session("s", 0, "add:A")])[0].drop_columns(["skus"])
    with pytest.raises(DatasetError, match="lack the columns skus"):
        build_intent_dataset([batch], four_days, tmp_path)


def test_an_error_leaves_the_old_files_and_nothing_else(tmp_path, shop, to_batches, four_days):
    build_intent_dataset(to_batches(shop), four_days, tmp_path)
    before = contents(tmp_path)

    def breaks_off():
        yield to_batches(shop)[0].slice(0, 100)
        raise ConnectionError("the warehouse went away")

    with pytest.raises(ConnectionError):
        build_intent_dataset(breaks_off(), four_days, tmp_path)
    assert contents(tmp_path) == before


DIES = """
import os, sys
from pathlib import Path
import pyarrow as pa
from bigger_boat.data.intent_dataset import build_intent_dataset
from bigger_boat.data.splits import split_days

def dies(batch):
    yield batch
    print(sorted(os.listdir(sys.argv[2])), flush=True)
    os._exit(9)

batch = pa.ipc.open_stream(sys.argv[1]).read_next_batch()
build_intent_dataset(dies(batch), split_days(batch["session_date"].to_pylist()), Path(sys.argv[2]))
"""


def test_a_process_that_dies_leaves_no_file_under_its_name(tmp_path, shop, to_batches, four_days):
    batch, directory = to_batches(shop)[0], tmp_path / "draft"
    with pa.OSFile(str(tmp_path / "batch.arrow"), "wb") as file, pa.ipc.new_stream(file, batch.schema) as stream:
        stream.write_batch(batch)
    command = [sys.executable, "-c", DIES, str(tmp_path / "batch.arrow"), str(directory)]
    died = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert died.returncode == 9, died.stderr
    assert ".train.parquet.partial" in died.stdout  # it died in the middle of writing
    assert not list(directory.glob("*.parquet"))
    build_intent_dataset(to_batches(shop), four_days, directory)  # what is left does not disturb
    assert set(contents(directory)) == {"train.parquet", "validation.parquet", "test.parquet"}
