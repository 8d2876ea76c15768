"""Files damaged and rows malformed at random (hypothesis): each row lands or is put aside, or nothing of the file does.

``landed + rejected = read`` for every file that lands, the same numbers lie in the zone, and nothing but a LandingError
is ever raised. The many examples of ``make test-slow`` are drawn anew each time, the few of ``make test`` are fixed.
"""

import csv
import gzip
import io
import json
import tempfile
import zipfile
from datetime import timedelta
from functools import cache
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from landing_source import (
    BROWSING,
    CATALOG,
    DAY_MS,
    DAY_ONE_MS,
    NOW,
    SEARCH,
    VECTOR,
    browsing,
    csv_text,
    product,
    search,
    shop,
)

from bigger_boat.data.landing import land
from bigger_boat.data.landing_index import catalog_files, files_for, read_index, rejected_files
from bigger_boat.errors import LandingError

STEMS = {"browsing": "browsing_train", "search": "search_train", "catalog": "sku_to_content"}
PACKINGS = ("csv", "csv.gz", "zip", "parquet")
FEW = {"deadline": timedelta(seconds=10), "database": None, "suppress_health_check": list(HealthCheck)}


def pack(packing, stem, text):
    """Return the file name and the bytes of a table in one of the packings; a .zip holds another file besides."""
    data, buffer = text.encode(), io.BytesIO()
    if packing == "csv.gz":
        buffer.write(gzip.compress(data, mtime=0))
    elif packing == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("README.txt", "a shop")
            archive.writestr(f"{stem}.csv", data)
    elif packing == "parquet":
        header, *rows = csv.reader(io.StringIO(text, newline=""))
        columns = {name: [row[place] for row in rows] for place, name in enumerate(header)}
        pa.parquet.write_table(pa.table(columns, pa.schema([(name, pa.string()) for name in header])), buffer)
    else:
        buffer.write(data)
    return f"{stem}.{packing}", buffer.getvalue()


def in_the_zone(root, table):
    """Return (rows that landed, rows put aside) as they lie in the zone."""
    index = read_index(root)
    good = catalog_files(root) if table == "catalog" else [f for day in index.days for f in files_for(root, table, day)]
    bad = [file for part in index.parts for file in rejected_files(root, part)]
    return [pl.concat([pl.read_parquet(file) for file in files]) if files else None for files in (good, bad)]


def land_or_refuse(source, root):
    try:
        return land(source, root, now=NOW), None
    except LandingError as refusal:
        return None, refusal


def land_and_count(table, name, data):
    """Land one file in a zone of its own and hold the report against the zone; return report, landed and put aside."""
    with tempfile.TemporaryDirectory() as folder:
        source, root = Path(folder) / "source", Path(folder) / "zone"
        source.mkdir()
        (source / name).write_bytes(data)
        report, refusal = land_or_refuse(source, root)
        if refusal:
            assert str(source) in refusal.message
            assert refusal.hint
            assert not list(root.rglob("*.parquet")), "nothing of it has landed"
            assert not (root / "index.json").exists()
            return None
        landed, rejected = in_the_zone(root, table)
        heights = [0 if frame is None else frame.height for frame in (landed, rejected)]
        assert heights == [report.landed, sum(report.rejected.values())]
        assert report.read == sum(heights)
        assert not list((root / "_staging").iterdir())
        return report, landed, rejected


EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "repeat", "end"]),
        st.integers(0, 1 << 14),
        st.one_of(st.sampled_from([b'"', b"\n", b",", b"\0", b"\xff", b"\r", b"\0" * 8]), st.binary(max_size=6)),
    ),
    min_size=1,
    max_size=5,
)


def damage(data, edits):
    damaged = bytearray(data)
    for edit, place, payload in edits:
        at = place % (len(damaged) + 1)
        if edit == "flip":
            damaged[at : at + 1] = bytes(byte ^ 255 for byte in damaged[at : at + 1])
        elif edit == "cut":
            del damaged[at : at + 1 + len(payload) ** 2]
        elif edit == "insert":
            damaged[at:at] = payload
        elif edit == "repeat":
            damaged[at:at] = damaged[at : at + 80]
        else:
            del damaged[at:]
    return bytes(damaged)


@cache
def whole(table, packing):
    texts = shop()
    texts["browsing_train"] += "é,event_product,zoom,p1,5,u1\n"
    return pack(packing, STEMS[table], texts[STEMS[table]])


def check_damaged_bytes(packing, table, edits):
    name, data = whole(table, packing)
    land_and_count(table, name, damage(data, edits))


DAMAGED = given(packing=st.sampled_from(PACKINGS), table=st.sampled_from(list(STEMS)), edits=EDITS)


@DAMAGED
@settings(max_examples=150, derandomize=True, **FEW)
@example("zip", "browsing", [("flip", 130, b"")])  # zlib.error is no OSError
@example("csv", "browsing", [("insert", 300, b"\n\xe9\n")])  # a torn row that is not UTF-8
def test_damaged_bytes(packing, table, edits):
    check_damaged_bytes(packing, table, edits)


@pytest.mark.slow
@DAMAGED
@settings(max_examples=3000, **FEW)
def test_damaged_bytes_many_times(packing, table, edits):
    check_damaged_bytes(packing, table, edits)


WORDS = ["nan", "None", "pageview", "event_product", "add", "purchase", "zoom", "p1", "[]", "['p1']", "[1]", "-1", "0"]
SIGNS = ["'", '"', "\ufeff", "é", "1767571200", "1e999"]
NUMBERS = [str(DAY_ONE_MS), f"{DAY_ONE_MS}.5", str(10**18), "9" * 40]
ODD = ["", "a b", "\0", "\n", "\r\n", "\u2028", "x" * 300, json.dumps(VECTOR), json.dumps(VECTOR)[:-1]]
TEXT = st.one_of(st.sampled_from([*WORDS, *SIGNS, *NUMBERS, *ODD]), st.text(max_size=12))
GOOD = {
    "browsing": st.builds(
        lambda sku, at: [product(sku=sku, ms=DAY_ONE_MS + at), browsing(ms=DAY_ONE_MS + at)][at % 2],
        st.sampled_from(["p1", "p2"]),
        st.integers(0, 2 * DAY_MS),
    ),
    "search": st.builds(lambda at: search(vector=json.dumps(VECTOR), ms=DAY_ONE_MS + at), st.integers(0, DAY_MS)),
    "catalog": st.just(("p1", json.dumps(VECTOR), "c1/c2", "", "3")),
}
HEADERS = {"browsing": BROWSING, "search": SEARCH, "catalog": CATALOG}


@st.composite
def tables(draw):
    """Return table, header in any order, rows, and whether each is good; good ones have ids of their own."""
    table = draw(st.sampled_from(list(GOOD)))
    header = HEADERS[table]
    bad = st.tuples(*[TEXT] * len(header))
    kinds = draw(st.lists(st.booleans(), max_size=12))
    rows = [(f"good-{place}", *draw(GOOD[table])[1:]) if good else draw(bad) for place, good in enumerate(kinds)]
    order = draw(st.permutations(range(len(header))))
    return table, [header[place] for place in order], [[row[place] for place in order] for row in rows], kinds


def check_malformed_rows(packing, drawn):
    table, header, rows, kinds = drawn
    name, data = pack(packing, STEMS[table], csv_text(header, rows, csv.QUOTE_ALL))

    outcome = land_and_count(table, name, data)

    assert outcome, "however bad its rows are, the file is in order"
    report, landed, rejected = outcome
    assert report.read == len(rows)
    ids = [] if landed is None else landed[HEADERS[table][0]].to_list()
    good = {f"good-{place}" for place, is_good in enumerate(kinds) if is_good}
    assert good <= set(ids), "every good row has landed"
    lines = [] if rejected is None else sorted(rejected["line"].to_list())
    first = 1 if packing == "parquet" else 2
    assert set(lines) <= {first + place for place, is_good in enumerate(kinds) if not is_good}


MALFORMED = given(packing=st.sampled_from(PACKINGS), drawn=tables())


@MALFORMED
@settings(max_examples=80, derandomize=True, **FEW)
def test_malformed_rows(packing, drawn):
    check_malformed_rows(packing, drawn)


@pytest.mark.slow
@MALFORMED
@settings(max_examples=1500, **FEW)
def test_malformed_rows_many_times(packing, drawn):
    check_malformed_rows(packing, drawn)


TYPED = {
    "whole numbers": pa.array([1, None, DAY_ONE_MS]),
    "numbers": pa.array([1.5, None, 3.0]),
    "NaN": pa.array([float("nan")] * 3),
    "decimals": pa.array([1.5, None, 3.0]).cast(pa.decimal128(5, 1)),
    "booleans": pa.array([True, None, False]),
    "bytes": pa.array([b"a", b"\xff", None]),
    "large text": pa.array(["a", "b", None], pa.large_string()),
    "categories": pa.array(["a", "b", None]).dictionary_encode(),
    "times": pa.array([DAY_ONE_MS, None, 1], pa.timestamp("ns", "Europe/Rome")),
    "dates": pa.array([20_000, None, 3], pa.date32()),
    "durations": pa.array([1, None, 3], pa.duration("s")),
    "nothing": pa.nulls(3),
    "structs": pa.array([{"a": 1}] * 3),
    "lists of text": pa.array([["a"], None, []]),
    "lists of numbers": pa.array([VECTOR, None, []]),
    "vectors": pa.array([VECTOR] * 3, pa.list_(pa.float32(), 50)),
    "lists of lists": pa.array([[[1.5]], None, []]),
    "big numbers": pa.array([2**63 + 5, 1, None], pa.uint64()),
}


ROLES = {
    "browsing": ["session_id_hash", "product_action", "server_timestamp_epoch_ms"],
    "search": ["query_vector", "clicked_skus_hash"],
    "catalog": ["price_bucket"],
}
"""A column of each kind."""


@pytest.mark.parametrize("table", STEMS)
def test_parquet_columns_of_every_type(table):
    """Each kind of column in each type: judged cell by cell, or the whole file is refused."""
    sound = dict.fromkeys(HEADERS[table], pa.nulls(3, pa.string()))
    sound[HEADERS[table][0]] = pa.array(["a", "b", "c"])
    sound |= {"event_type": pa.array(["pageview"] * 3)} if table == "browsing" else {}
    sound |= {"server_timestamp_epoch_ms": pa.array([DAY_ONE_MS] * 3)} if table != "catalog" else {}
    refused, landed = [], 0
    for column in ROLES[table]:
        for kind, values in TYPED.items():
            buffer = io.BytesIO()
            pa.parquet.write_table(pa.table({**sound, column: values}), buffer)
            outcome = land_and_count(table, f"{STEMS[table]}.parquet", buffer.getvalue())
            if outcome is None:
                refused.append(kind)
            else:
                landed += 1
                assert outcome[0].read == 3
    assert {"booleans", "bytes", "structs", "lists of lists", "durations"} <= set(refused)
    assert not {"large text", "categories", "nothing", "NaN"} & set(refused)
    assert landed > len(ROLES[table]) * 4


def test_a_column_of_another_type_is_named_with_what_is_expected(tmp_path):
    source = tmp_path / "browsing_train.parquet"
    rows = [dict(zip(BROWSING, browsing(), strict=True))] * 3
    table = pa.Table.from_pylist(rows).set_column(0, "session_id_hash", pa.array([b"a"] * 3))
    pa.parquet.write_table(table, source)

    with pytest.raises(
        LandingError, match=r"the column session_id_hash is of type binary; expected are text or whole numbers"
    ):
        land(source, tmp_path / "zone", now=NOW)


def test_a_number_with_a_fraction_is_no_whole_number_in_any_type(tmp_path):
    prices = pa.array([1.5, 2.0, None]).cast(pa.decimal128(5, 1))
    missing = pa.nulls(3, pa.string())
    columns = {"product_sku_hash": pa.array(["a", "b", "c"]), "description_vector": missing, "category_hash": missing}
    pa.parquet.write_table(
        pa.table({**columns, "image_vector": missing, "price_bucket": prices}), tmp_path / "sku_to_content.parquet"
    )

    report = land(tmp_path, tmp_path / "zone", now=NOW)

    assert dict(report.rejected) == {"price_bucket_invalid": 1}
    assert pl.read_parquet(catalog_files(tmp_path / "zone"))["price_bucket"].to_list() == [2, None]
