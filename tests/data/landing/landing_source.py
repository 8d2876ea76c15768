"""Small sources in the challenge's format for the landing tests, written with the standard library alone."""

import csv
import gzip
import io
import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY_ONE = "2026-01-05"
DAY_TWO = "2026-01-06"
DAY_ONE_MS = 1_767_571_200_000  # 2026-01-05T00:00:00Z
DAY_MS = 86_400_000
VECTOR = [round(i / 64 - 0.25, 6) for i in range(50)]

BROWSING = (
    "session_id_hash",
    "event_type",
    "product_action",
    "product_sku_hash",
    "server_timestamp_epoch_ms",
    "hashed_url",
)
SEARCH = ("session_id_hash", "query_vector", "clicked_skus_hash", "product_skus_hash", "server_timestamp_epoch_ms")
CATALOG = ("product_sku_hash", "description_vector", "category_hash", "image_vector", "price_bucket")


def browsing(session="s1", event_type="pageview", action="", sku="", ms=DAY_ONE_MS, url="u1") -> tuple:
    return (session, event_type, action, sku, str(ms), url)


def product(session="s1", action="detail", sku="p1", ms=DAY_ONE_MS, url="u1") -> tuple:
    return browsing(session, "event_product", action, sku, ms, url)


def search(session="s1", vector="", clicked="", shown="", ms=DAY_ONE_MS) -> tuple:
    return (session, vector, clicked, shown, str(ms))


def csv_text(columns: tuple, rows: list[tuple], quoting: int = csv.QUOTE_MINIMAL) -> str:
    text = io.StringIO()
    writer = csv.writer(text, quoting=quoting, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def shop() -> dict[str, str]:
    """Two days: 7 browsing rows (5 + 2), 2 searches on the first, 3 products."""
    rows = [
        browsing(),
        product(),
        product("s2", "add", "p2", DAY_ONE_MS + 10),
        browsing("s2", ms=DAY_ONE_MS + 5, url="u2"),
        product("s2", "purchase", "p2", DAY_ONE_MS + DAY_MS - 1),
        browsing("s3", ms=DAY_ONE_MS + DAY_MS),
        product("s3", "remove", "p3", DAY_ONE_MS + DAY_MS + 1),
    ]
    searches = [
        search("s1", json.dumps(VECTOR), "['p1']", "['p1', 'p2', 'p3']", DAY_ONE_MS + 7),
        search("s2", "", "", "[]", DAY_ONE_MS + 8),
    ]
    products = [
        ("p1", json.dumps(VECTOR), "c1/c2", json.dumps(VECTOR[::-1]), "3"),
        ("p2", "", "c1", "", "10.0"),
        ("p3", "", "", "", ""),
    ]
    return {
        "browsing_train": csv_text(BROWSING, rows),
        "search_train": csv_text(SEARCH, searches),
        "sku_to_content": csv_text(CATALOG, products),
    }


def write_source(directory: Path, tables: dict[str, str], packing: str = ".csv") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for stem, text in tables.items():
        path, data = directory / f"{stem}{packing}", text.encode()
        if packing == ".csv":
            path.write_bytes(data)
        elif packing == ".csv.gz":
            path.write_bytes(gzip.compress(data))
        elif packing in (".zip", ".csv.zip"):
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(f"{stem}.csv", data)
        else:
            raise ValueError(packing)
    return directory


def only_browsing(directory: Path, rows: list[tuple]) -> Path:
    return write_source(directory, {"browsing_train": csv_text(BROWSING, rows)})
