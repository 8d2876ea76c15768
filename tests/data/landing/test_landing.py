import csv
import json
import random
import subprocess
import sys
import zipfile
from datetime import date, timedelta

import polars as pl
import pyarrow as pa
import pytest
from landing_source import (
    BROWSING,
    DAY_MS,
    DAY_ONE,
    DAY_ONE_MS,
    DAY_TWO,
    NOW,
    VECTOR,
    browsing,
    csv_text,
    only_browsing,
    product,
    shop,
    write_source,
)

from bigger_boat.data import landing_days
from bigger_boat.data.landing import land
from bigger_boat.data.landing_index import catalog_files, files_for, read_index, read_manifest
from bigger_boat.errors import LandingError


def landed_rows(root, table, day):
    return [row for path in files_for(root, table, day) for row in pl.read_parquet(path).iter_rows()]


def everything(root):
    """The landing zone's content, apart from the times in manifests and index."""
    index = read_index(root)
    state = {part: (entry.version, entry.fingerprint, entry.rows) for part, entry in index.parts.items()}
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*.parquet"))
    return state, files


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "source", shop())


def test_rows_arrive_typed_and_by_utc_day(source, root):
    report = land(source, root, now=NOW)

    assert (report.read, report.landed, dict(report.rejected)) == (12, 12, {})
    assert report.days_changed == [DAY_ONE, DAY_TWO, "catalog"]
    assert landed_rows(root, "browsing", DAY_ONE) == [
        ("s1", "event_product", "detail", "p1", DAY_ONE_MS, "u1", None, None),
        ("s1", "pageview", None, None, DAY_ONE_MS, "u1", None, None),
        ("s2", "pageview", None, None, DAY_ONE_MS + 5, "u2", None, None),
        ("s2", "event_product", "add", "p2", DAY_ONE_MS + 10, "u1", None, None),
        ("s2", "event_product", "purchase", "p2", DAY_ONE_MS + DAY_MS - 1, "u1", None, None),
    ]
    assert [row[0] for row in landed_rows(root, "browsing", DAY_TWO)] == ["s3", "s3"]
    first, second = landed_rows(root, "search", DAY_ONE)
    assert first == ("s1", pytest.approx(VECTOR), ["p1"], ["p1", "p2", "p3"], DAY_ONE_MS + 7, None, None)
    assert second == ("s2", None, None, [], DAY_ONE_MS + 8, None, None)
    assert files_for(root, "search", DAY_TWO) == []
    products = pl.read_parquet(catalog_files(root)).rows()
    assert [(sku, category, price) for sku, _, category, _, price in products] == [
        ("p1", "c1/c2", 3),
        ("p2", "c1", 10),
        ("p3", None, None),
    ]
    assert products[0][3] == pytest.approx(VECTOR[::-1])


def test_parquet_types_are_plain(source, root):
    land(source, root, now=NOW)

    schema = pa.parquet.read_schema(files_for(root, "search", DAY_ONE)[0])

    assert schema.field("session_id_hash").type == pa.string()
    assert schema.field("query_vector").type == pa.list_(pa.float32())
    assert schema.field("clicked_skus_hash").type == pa.list_(pa.string())
    assert schema.field("server_timestamp_epoch_ms").type == pa.int64()


def test_the_index_counts_and_fingerprints_each_day(source, root):
    assert read_index(root).first_day is None
    land(source, root, now=NOW)

    index = read_index(root)

    assert (index.first_day, index.last_day, list(index.days)) == (DAY_ONE, DAY_TWO, [DAY_ONE, DAY_TWO])
    assert index.days[DAY_ONE].rows == {"browsing": 5, "search": 2, "rejected": 0}
    assert index.days[DAY_TWO].rows == {"browsing": 2, "search": 0, "rejected": 0}
    assert index.days[DAY_ONE].fingerprint != index.days[DAY_TWO].fingerprint
    assert index.catalog.rows == {"catalog": 3, "rejected": 0}
    manifest = read_manifest(root, DAY_ONE, 1)
    assert manifest.time == NOW.isoformat()
    assert [file.rows for file in manifest.files["browsing"]] == [5]


@pytest.mark.parametrize("packing", [".csv", ".csv.gz", ".zip", ".csv.zip"])
def test_every_packing_lands_the_same(tmp_path, root, packing):
    land(write_source(tmp_path / "plain", shop()), root, now=NOW)
    before = everything(root)

    report = land(write_source(tmp_path / "packed", shop(), packing), root, now=NOW)

    assert (report.files_added, report.days_changed, report.files_unchanged) == ([], [], 4)
    assert everything(root) == before


def test_one_zip_with_a_folder_and_other_files(tmp_path, source, root):
    land(source, root, now=NOW)
    before = everything(root)
    path = tmp_path / "challenge.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("README.txt", "hello")
        archive.writestr("__MACOSX/train/._browsing_train.csv", b"\x00\x05\x16\x07")
        for stem, text in shop().items():
            archive.writestr(f"train/{stem}.csv", text)

    report = land(path, root, now=NOW)

    assert report.read == 12
    assert everything(root) == before


def test_a_folder_one_level_down(tmp_path, root):
    write_source(tmp_path / "download" / "train", shop())

    assert land(tmp_path / "download", root, now=NOW).landed == 12


def test_typed_parquet_lands_the_same_as_csv(tmp_path, source, root):
    land(source, root, now=NOW)
    before = everything(root)
    typed = tmp_path / "typed"
    typed.mkdir()
    for stem, columns in {
        "browsing_train": {"server_timestamp_epoch_ms": pl.Int64},
        "search_train": {"server_timestamp_epoch_ms": pl.Datetime("ms")},
        "sku_to_content": {"price_bucket": pl.Float64},
    }.items():
        table = pl.read_csv(source / f"{stem}.csv", infer_schema=False)
        if stem == "search_train":
            table = table.with_columns(
                pl.Series("query_vector", [VECTOR, None]),
                pl.Series("clicked_skus_hash", [["p1"], None]),
                pl.Series("product_skus_hash", [["p1", "p2", "p3"], []]),
                pl.col("server_timestamp_epoch_ms").cast(pl.Int64),
            )
        table.with_columns(pl.col(name).cast(kind) for name, kind in columns.items()).write_parquet(
            typed / f"{stem}.parquet"
        )

    land(typed, root, now=NOW)

    assert everything(root) == before


def test_column_order_quoting_and_extra_columns_do_not_matter(tmp_path, source, root):
    land(source, root, now=NOW)
    before = everything(root)
    odd = tmp_path / "odd"
    odd.mkdir()
    for stem, text in shop().items():
        header, *rows = csv.reader(text.splitlines())
        columns = ("", *reversed(header))
        lines = csv_text(columns, [(f"{i},x", *reversed(row)) for i, row in enumerate(rows)], csv.QUOTE_ALL)
        (odd / f"{stem}.csv").write_text("\ufeff" + lines.replace("\n", "\r\n"), newline="")

    assert land(odd, root, now=NOW).files_added == []
    assert everything(root) == before


@pytest.mark.parametrize("missing", ["", '""', "nan", "NaN", "None", "null", "NULL"])
def test_every_way_to_write_a_missing_cell(tmp_path, root, missing):
    directory = tmp_path / "source"
    directory.mkdir()
    row = f"s1,pageview,{missing},{missing},{DAY_ONE_MS},{missing}"
    (directory / "browsing_train.csv").write_text(f"{','.join(BROWSING)}\n{row}\n")

    land(directory, root, now=NOW)

    assert landed_rows(root, "browsing", DAY_ONE) == [
        ("s1", "pageview", None, None, DAY_ONE_MS, None, None, None),
    ]


def test_row_order_does_not_matter(tmp_path, root):
    rng = random.Random(7)
    rows = [
        product(f"s{rng.randrange(9)}", "detail", f"p{rng.randrange(5)}", DAY_ONE_MS + rng.randrange(40))
        for _ in range(400)
    ]
    rows += [browsing(f"s{rng.randrange(9)}", ms=DAY_ONE_MS + rng.randrange(40)) for _ in range(400)]
    rows += [product(action="zoom")] * 3 + [browsing(ms="soon")] * 2
    land(only_browsing(tmp_path / "a", rows), root, now=NOW)
    before = everything(root)
    rng.shuffle(rows)

    report = land(only_browsing(tmp_path / "b", rows), root, now=NOW)

    assert report.files_added == []
    assert everything(root) == before
    times = [row[4] for row in landed_rows(root, "browsing", DAY_ONE)]
    assert times == sorted(times)


def test_spilling_and_sorting_in_pieces_change_nothing(tmp_path, root, monkeypatch):
    rng = random.Random(3)
    rows = [
        product(f"s{rng.randrange(50)}", "detail", f"p{rng.randrange(50)}", DAY_ONE_MS + rng.randrange(3 * DAY_MS))
        for _ in range(3000)
    ]
    rows += [browsing(ms=f"bad{i}") for i in range(500)]
    source = only_browsing(tmp_path / "source", rows)
    land(source, root, now=NOW)
    monkeypatch.setattr(landing_days, "SPILL_BYTES", 1 << 14)
    monkeypatch.setattr(landing_days, "SORT_BYTES", 1 << 14)
    monkeypatch.setattr("bigger_boat.data.csv_rows.BLOCK_BYTES", 1 << 14)
    other = tmp_path / "other"

    land(source, other, now=NOW)

    assert everything(other) == everything(root)
    for day in read_index(root).days:
        assert landed_rows(other, "browsing", day) == landed_rows(root, "browsing", day)


def test_landing_adds(tmp_path, root):
    land(only_browsing(tmp_path / "a", [browsing("a"), browsing("c", ms=DAY_ONE_MS + DAY_MS)]), root, now=NOW)
    before = read_index(root)

    report = land(only_browsing(tmp_path / "b", [browsing("b")]), root, now=NOW)

    assert report.days_changed == [DAY_ONE]
    assert [row[0] for row in landed_rows(root, "browsing", DAY_ONE)] == ["a", "b"]
    after = read_index(root)
    assert after.days[DAY_TWO] == before.days[DAY_TWO]
    assert (after.days[DAY_ONE].version, after.days[DAY_ONE].rows["browsing"]) == (2, 2)
    assert after.days[DAY_ONE].fingerprint != before.days[DAY_ONE].fingerprint
    assert [len(read_manifest(root, DAY_ONE, version).files["browsing"]) for version in (1, 2)] == [1, 2]


def test_replace_supersedes_only_this_producers_files_of_the_range(tmp_path, root):
    day = timedelta(days=1)
    three_days = [browsing("old", ms=DAY_ONE_MS + i * DAY_MS) for i in range(3)]
    land(only_browsing(tmp_path / "a", three_days), root, now=NOW)
    land(only_browsing(tmp_path / "b", three_days[:2]), root, producer="collect", now=NOW)
    kept_files = list(root.rglob("*.parquet"))
    one = date.fromisoformat(DAY_ONE)
    new = only_browsing(tmp_path / "c", [browsing("new"), browsing("new", ms=DAY_ONE_MS + 2 * DAY_MS)])

    report = land(new, root, replace=(one, one + day), now=NOW)

    sessions = [[row[0] for row in landed_rows(root, "browsing", one + i * day)] for i in range(3)]
    assert sessions == [["old", "new"], ["old"], ["old", "new"]]
    assert report.days_changed == [str(one + i * day) for i in range(3)]
    assert all(path.exists() for path in kept_files)
    assert land(new, root, replace=(one, one + day), now=NOW).days_changed == []


def test_a_day_without_rows_now_is_emptied_but_stays(tmp_path, source, root):
    land(source, root, now=NOW)
    one, two = date.fromisoformat(DAY_ONE), date.fromisoformat(DAY_TWO)

    report = land(only_browsing(tmp_path / "b", [browsing("b")]), root, replace=(one, two), now=NOW)

    index = read_index(root)
    assert report.days_changed == [DAY_ONE, DAY_TWO]
    assert index.days[DAY_TWO].rows == {"browsing": 0, "search": 0, "rejected": 0}
    assert index.days[DAY_TWO].version == 2
    assert files_for(root, "browsing", DAY_TWO) == []
    assert index.last_day == DAY_TWO
    assert index.days[DAY_ONE].rows["search"] == 2, "the source had no searches, so they stay"


def test_replace_of_a_range_that_never_landed_makes_no_days(source, root):
    land(source, root, replace=(date(2020, 1, 1), date(2026, 2, 1)), now=NOW)

    assert list(read_index(root).days) == [DAY_ONE, DAY_TWO]


def test_shift_moves_by_whole_weeks_and_is_noted(source, root):
    land(source, root, shift_weeks=-3, now=NOW)

    index = read_index(root)

    assert list(index.days) == ["2025-12-15", "2025-12-16"]
    assert landed_rows(root, "browsing", "2025-12-15")[0][4] == DAY_ONE_MS - 21 * DAY_MS
    assert index.shifts == ({"producer": "land", "weeks": -3},)


def test_a_shift_makes_future_times_usable(tmp_path, root):
    source = only_browsing(tmp_path / "a", [browsing(ms=DAY_ONE_MS + 364 * DAY_MS)])
    assert land(source, root, now=NOW).rejected == {"timestamp_in_future": 1}

    assert land(source, root, shift_weeks=-52, now=NOW).landed == 1
    assert list(read_index(root).days) == [DAY_ONE]


def test_wire_columns_are_kept(tmp_path, root):
    rows = [(*browsing(), "e1", "r1"), (*browsing(), "e 2", "")]
    text = csv_text((*BROWSING, "event_id", "request_id"), rows)

    report = land(write_source(tmp_path / "a", {"browsing_train": text}), root, now=NOW)

    assert dict(report.rejected) == {"event_id_malformed": 1}
    assert landed_rows(root, "browsing", DAY_ONE)[0][-2:] == ("e1", "r1")


def test_progress_tells_what_is_done(source, root):
    told = []

    land(source, root, now=NOW, progress=lambda *step: told.append(step))

    size = (source / "browsing_train.csv").stat().st_size
    assert ("reading browsing_train.csv", size, size) in told
    assert ("writing browsing", 2, 2) in told


def test_reading_the_index_needs_the_standard_library_only():
    heavy = ("pyarrow", "polars", "numpy")
    code = f"import sys, bigger_boat.data.landing_index; print(any(m in sys.modules for m in {heavy}))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_damaged_index_is_named(root):
    root.mkdir()
    (root / "index.json").write_text(json.dumps({"format": 99}))

    with pytest.raises(LandingError, match=r"index\.json is damaged.*format is 99"):
        read_index(root)


@pytest.mark.parametrize("producer", ["", "a-b", "../x", "a b", "é"])
def test_a_producer_is_a_plain_name(source, root, producer):
    with pytest.raises(LandingError, match="cannot name a producer"):
        land(source, root, producer=producer, now=NOW)


def test_landing_does_not_import_pandas(source, root):
    code = (
        "import sys; from datetime import UTC, datetime; from pathlib import Path\n"
        "from bigger_boat.data.landing import land\n"
        f"land(Path({str(source)!r}), Path({str(root)!r}), now=datetime.now(UTC)); print('pandas' in sys.modules)"
    )

    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert answer.stdout == "False\n", "importing it costs more than landing a small shop"
