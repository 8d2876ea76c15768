"""Faults of a file: nothing of it lands, the message names it and says what to do, and the other files land."""

import gzip
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from landing_source import BROWSING, DAY_ONE, NOW, browsing, csv_text, only_browsing, shop, write_source

from bigger_boat.data.landing import land
from bigger_boat.data.landing_index import files_for, read_index
from bigger_boat.errors import LandingError

MANY = csv_text(BROWSING, [browsing(f"{i:064x}", url=f"{i * 7919:064x}") for i in range(5000)])


def cut_gzip(path: Path) -> Path:
    path = path.with_suffix(".csv.gz")
    path.write_bytes(gzip.compress(MANY.encode())[:-2000])
    return path


def cut_zip(path: Path) -> Path:
    whole = damaged_zip(path, lambda data: data)
    whole.write_bytes(whole.read_bytes()[:-2000])
    return whole


def flipped_zip(path: Path) -> Path:
    return damaged_zip(path, lambda data: data[:5000] + bytes([data[5000] ^ 255]) + data[5001:])


def damaged_zip(path: Path, damage) -> Path:
    path = path.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("browsing_train.csv", MANY)
    path.write_bytes(damage(path.read_bytes()))
    return path


def cut_parquet(path: Path) -> Path:
    path = path.with_suffix(".parquet")
    pl.read_csv(MANY.encode(), infer_schema=False).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-100])
    return path


def flipped_parquet(path: Path) -> Path:
    """One character of a page that carries a checksum: what it turns into would look like any other id."""
    path = path.with_suffix(".parquet")
    table = pl.read_csv(MANY.encode(), infer_schema=False).to_arrow()
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    data = path.read_bytes()
    at = data.index(b"0" * 61, 5000) + 30
    return written(path, data[:at] + b"1" + data[at + 1 :])


def locked_zip(path: Path) -> Path:
    """A .zip that asks for a password: a flag in both of its headers."""
    return headed_zip(path, {6: 1}, {8: 1})


def strange_zip(path: Path) -> Path:
    """A .zip packed by a method that nobody knows."""
    return headed_zip(path, {8: 99}, {10: 99})


def headed_zip(path: Path, local: dict[int, int], central: dict[int, int]) -> Path:
    """A .zip with bits set in the headers of its last member: by place, beside its content and in the directory."""
    path = damaged_zip(path, lambda data: data)
    data = bytearray(path.read_bytes())
    for signature, bits in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        for place, value in bits.items():
            data[data.rindex(signature) + place] |= value
    return written(path, bytes(data))


def zip_of(text: bytes, name: str = "browsing_train.csv"):
    def make(path: Path) -> Path:
        path = path.with_suffix(".zip")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("notes.txt", b"\xff\xfe")
            archive.writestr(name, text)
        return path

    return make


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def late(data: bytes) -> bytes:
    """Good rows, then a line with the given bytes in its URL, then good rows."""
    bad = b",".join([b"s1", b"pageview", b"", b"", b"1767571200000", data]) + b"\n"
    return MANY.encode() + bad + MANY.encode().split(b"\n", 1)[1]


FAULTS = {
    "empty": (lambda path: written(path, b""), r"browsing_train\.csv is empty"),
    "wrong header": (lambda path: written(path, b"a,b\n1,2\n"), r"line 1: .*session_id_hash.*is missing.*names: a, b"),
    "missing column": (
        lambda path: written(path, MANY.replace("hashed_url", "url", 1).encode()),
        r"line 1: .*hashed_url is missing",
    ),
    "doubled column": (
        lambda path: written(path, b"hashed_url," + MANY.encode().replace(b"\n", b"\nx,").removesuffix(b"x,")),
        "hashed_url is there twice",
    ),
    "semicolons": (lambda path: written(path, MANY.replace(",", ";").encode()), "is missing"),
    "cut gzip": (cut_gzip, r"browsing_train\.csv\.gz cannot be read to its end"),
    "cut zip": (cut_zip, r"browsing_train\.zip cannot be read to its end: File is not a zip file"),
    "flipped zip": (flipped_zip, r"browsing_train\.zip.* cannot be read to its end"),
    "cut parquet": (cut_parquet, r"browsing_train\.parquet cannot be read to its end"),
    "no gzip": (
        lambda path: written(path.with_suffix(".csv.gz"), MANY.encode()),
        r"browsing_train\.csv\.gz cannot be read to its end",
    ),
    "no parquet": (
        lambda path: written(path.with_suffix(".parquet"), MANY.encode()),
        r"browsing_train\.parquet cannot be read to its end",
    ),
    "not UTF-8": (lambda path: written(path, late(b"caf\xe9")), r"browsing_train\.csv, line 5002: .*not valid UTF-8"),
    "UTF-16": (lambda path: written(path, MANY.encode("utf-16")), r"browsing_train\.csv"),
    "not UTF-8 in a torn row": (
        lambda path: written(path, MANY.encode() + b"caf\xe9\n"),
        r"browsing_train\.csv, line 5002: .*not valid UTF-8",
    ),
    "not UTF-8 in a gzip": (
        lambda path: written(path.with_suffix(".csv.gz"), gzip.compress(late(b"caf\xe9"))),
        r"browsing_train\.csv\.gz, line 5002: .*not valid UTF-8",
    ),
    "not UTF-8 in a zip": (zip_of(late(b"caf\xe9")), r"in it browsing_train\.csv, line 5002: .*not valid UTF-8"),
    "not UTF-8 in the header": (
        lambda path: written(path, b"\xe9" + MANY.encode()),
        r"browsing_train\.csv, line 1: .*not valid UTF-8",
    ),
    "cut within a row": (
        lambda path: written(path, MANY.encode()[:-100]),
        r"browsing_train\.csv, line 5001: the file ends within a row, after 1 of 6 cells",
    ),
    "cut within a quotation": (
        lambda path: written(path, MANY.encode() + b's1,pageview,"","1,2'),
        r"browsing_train\.csv, line 5002: the file ends within a row, after 4 of 6 cells",
    ),
    "cut within a row, then packed": (
        lambda path: written(path.with_suffix(".csv.gz"), gzip.compress(MANY.encode()[:-100])),
        r"browsing_train\.csv\.gz, line 5001: the file ends within a row",
    ),
    "NUL bytes where a crash left a hole": (
        lambda path: written(path, MANY.encode() + b"\0" * 4096),
        r"browsing_train\.csv, line 5002: the file ends within a row",
    ),
    "a hole at the start": (lambda path: written(path, b"\0" * 4096 + MANY.encode()), r"line 1: .*is missing"),
    "empty in a zip": (zip_of(b""), r"in it browsing_train\.csv is empty"),
    "empty parquet": (lambda path: written(path.with_suffix(".parquet"), b""), r"browsing_train\.parquet"),
    "flipped parquet": (flipped_parquet, r"browsing_train\.parquet cannot be read to its end: .*CRC"),
    "locked zip": (locked_zip, r"in it browsing_train\.csv cannot be read to its end: .*encrypted"),
    "strange zip": (strange_zip, r"in it browsing_train\.csv cannot be read to its end: .*not supported"),
    "an endless row": (lambda path: written(path, late(b'"' + b"x" * (40 << 20))), "row longer than 16 MB"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_of_a_bad_file_lands_and_the_others_do(tmp_path, root, fault):
    make, message = FAULTS[fault]
    source = write_source(tmp_path / "source", {name: text for name, text in shop().items() if "browsing" not in name})
    make(source / "browsing_train.csv")

    with pytest.raises(LandingError, match=message) as caught:
        land(source, root, now=NOW)

    assert str(source / "browsing_train") in caught.value.message
    assert re.search(r"[Ff]etch it again|[Ww]rite it|Check|Keep one|quotation mark", caught.value.hint)
    assert "Nothing of it has landed; landed have" in caught.value.message
    assert caught.value.report.landed == 5
    index = read_index(root)
    assert index.days[DAY_ONE].rows == {"browsing": 0, "search": 2, "rejected": 0}
    assert index.catalog.rows["catalog"] == 3
    assert files_for(root, "browsing", DAY_ONE) == []
    assert not list((root / "_staging").iterdir())


def test_a_bad_file_replaces_nothing(tmp_path, root):
    from datetime import date

    land(only_browsing(tmp_path / "a", [browsing()]), root, now=NOW)
    before = read_index(root)
    bad = cut_gzip(tmp_path / "browsing_train.csv")
    day = date.fromisoformat(DAY_ONE)

    with pytest.raises(LandingError):
        land(bad, root, replace=(day, day), now=NOW)

    assert read_index(root) == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "nowhere", "There is no"),
        (lambda path: path, "holds none of browsing_train, search_train, sku_to_content"),
        (lambda path: written(path / "events.csv", b"x"), "holds none of"),
        (lambda path: written(path / "data.zip", b"x"), r"data\.zip is no readable \.zip"),
        (lambda path: zip_of(b"a,b\n", "other.csv")(path / "data.csv"), r"data\.zip holds none of .*sku_to_content"),
    ],
)
def test_what_is_no_source(tmp_path, root, make, message):
    with pytest.raises(LandingError, match=message):
        land(make(tmp_path), root, now=NOW)


def test_two_files_for_one_table(tmp_path, root):
    source = write_source(write_source(tmp_path / "a", shop()), shop(), ".csv.gz")

    with pytest.raises(LandingError, match=r"two files for the browsing table: .*\.csv and .*\.csv\.gz"):
        land(source, root, now=NOW)


def test_an_unlucky_extra_column_is_ignored(tmp_path, root):
    rows = [(*browsing(), "1")] * 5000 + [(*browsing(), "not a number")]

    report = land(write_source(tmp_path / "a", {"browsing_train": csv_text((*BROWSING, "extra"), rows)}), root, now=NOW)

    assert report.landed == 5001


AS_NOBODY = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from bigger_boat.data.landing import land
from bigger_boat.errors import LandingError
now = datetime(2026, 3, 1, tzinfo=UTC)
land(Path(sys.argv[3]), Path(sys.argv[4]), now=now)  # imports all it needs: nobody may not be let into the installation
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    land(Path(sys.argv[1]), Path(sys.argv[2]), now=now)
except LandingError as error:
    print(error)
"""


@pytest.mark.parametrize("forbidden", ["source", "file", "root", "folder above"])
def test_missing_permissions_are_named(tmp_path_factory, forbidden):
    path = tmp_path_factory.mktemp("shared")
    for folder in (path, *(above for above in path.parents if Path(tempfile.gettempdir()) in above.parents)):
        folder.chmod(0o755)  # pytest's own folders are closed to others
    source, root = write_source(path / "source", shop()), path / "landing"
    rehearsal = [write_source(path / "rehearsal", shop()), path / "rehearsed"]
    root.mkdir(mode=0o777)
    root.chmod(0o500 if forbidden == "root" else 0o777)
    (source / "browsing_train.csv").chmod(0o000 if forbidden == "file" else 0o644)
    source.chmod(0o000 if forbidden == "source" else 0o755)
    if forbidden == "folder above":
        (path / "above").mkdir()
        source = source.rename(path / "above" / "source")
        source.parent.chmod(0o000)

    answer = subprocess.run([sys.executable, "-c", AS_NOBODY, source, root, *rehearsal], capture_output=True, text=True)
    source.parent.chmod(0o755)
    source.chmod(0o755)

    named = {"file": source / "browsing_train.csv", "root": root}.get(forbidden, source)
    assert str(named) in answer.stdout, answer.stderr
    assert "permission" in answer.stdout
    says = "cannot be written" if forbidden == "root" else "may not be read by this user"
    assert says in answer.stdout
