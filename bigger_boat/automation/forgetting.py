"""Where sessions are besides the landing zone, and a note of a forgetting that is not finished yet.

What belongs elsewhere: the landing zone (``data/landing_forget.py``), the order of things (``cli/forget.py``).
"""

import json
import mmap
import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bigger_boat.data.prediction_forget import Forgotten, forget_answers, is_being_written
from bigger_boat.errors import ServerError, WarehouseError
from bigger_boat.resources.storage import LocalStorage
from bigger_boat.resources.warehouse import Warehouse
from bigger_boat.serving.published import server_kept_away

SESSION_COLUMNS = {
    "raw.browsing_train": "session_id_hash",
    "raw.search_train": "session_id_hash",
    "distinct_events": "session_id",
    "session_stats": "session_id",
    "sessions": "session_id",
    "cart_sessions": "session_id",
}
"""The tables that name sessions, and by which column."""

TRAINED = ("bundles/*/*/bundle/bundle.json", "embeddings/*/*/*.json", "endpoints/*/versions/*/bundle.json")
"""Files that say which data sets a model was fitted on."""

GOLDEN = ("bundles/*/*/bundle/golden.json", "endpoints/*/versions/*/golden.json")
FINISH_TIMEOUT_S = 30.0
LOG_PASSES = 3
"""How often the log is gone through while sessions that are forgotten go on asking."""


@dataclass
class Note:
    """What is being forgotten, kept in ``DATA_DIR/forgetting.json`` until it is done: a kill loses nothing of it.

    ``trained``: folders of bundles and embeddings that were fitted on the sessions, relative to the data folder;
    ``golden``: folders of bundles whose golden requests hold events of theirs; ``requests``: answers that their events
    say they follow from.
    """

    path: Path
    sessions: list[str] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)
    golden: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, data_dir: Path) -> "Note":
        """Return the note that lies there, or an empty one."""
        path = data_dir / "forgetting.json"
        try:
            return cls(path, **json.loads(path.read_text()))
        except FileNotFoundError:
            return cls(path)

    def write(self) -> None:
        """Write it, atomically."""
        draft = self.path.with_name(f".{self.path.name}.partial")
        with draft.open("w") as file:
            json.dump({name: getattr(self, name) for name in ("sessions", "trained", "golden", "requests")}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)


def rows_in_tables(warehouse: Warehouse, sessions: Collection[str]) -> dict[str, dict[str, int]]:
    """Return by session its rows by table; tables that are not there have none.

    Raises WarehouseError where the warehouse cannot be opened: what cannot be looked at is not said to be clean.
    """
    warehouse.prepare()
    found: dict[str, dict[str, int]] = {}
    some = ", ".join("?" * len(sessions))
    for table, column in SESSION_COLUMNS.items():
        query = (
            f"select {column} as session_id, count(*) as row_count from {table} where {column} in ({some}) group by 1"
        )
        try:
            with warehouse.read(query, list(sessions)) as reader:
                rows = reader.read_all().to_pylist()
        except WarehouseError:
            if table.startswith("raw."):
                raise
            continue  # dbt has not built it yet
        for row in rows:
            found.setdefault(row["session_id"], {})[table] = row["row_count"]
    return found


def datasets_with(data_dir: Path, sessions: Collection[str]) -> dict[Path, dict[str, int]]:
    """Return the versions of data sets that hold rows of the sessions: by version, rows by session."""
    import polars as pl

    found = {}
    for version in sorted(path for path in data_dir.glob("datasets/*/*") if path.is_dir()):
        rows: Counter[str] = Counter()
        for file in sorted(version.glob("*.parquet")):
            frame = pl.scan_parquet(file)
            if "session_id" in frame.collect_schema():
                theirs = frame.filter(pl.col("session_id").is_in(list(sessions)))
                rows.update(dict(theirs.group_by("session_id").len().collect().iter_rows()))
        if rows:
            found[version] = dict(rows)
    return found


def trained_on(data_dir: Path, versions: Iterable[Path]) -> list[str]:
    """Return the folders of bundles, published copies and embeddings whose manifests name one of the data sets."""
    names = [version.name for version in versions]
    manifests = [path for pattern in TRAINED for path in sorted(data_dir.glob(pattern))]
    fitted = [path for path in manifests if any(name in path.read_text() for name in names)]
    return list(dict.fromkeys(path.parent.relative_to(data_dir).as_posix() for path in fitted))


def requests_of(warehouse: Warehouse, sessions: Collection[str]) -> list[str]:
    """Return the ids of answers that events of the sessions say they follow from."""
    found: set[str] = set()
    some = ", ".join("?" * len(sessions))
    for table in ("raw.browsing_train", "raw.search_train"):
        query = f"select distinct request_id from {table} where session_id_hash in ({some}) and request_id is not null"
        with warehouse.read(query, list(sessions)) as reader:
            found.update(row["request_id"] for row in reader.read_all().to_pylist())
    return sorted(found)


def golden_with(data_dir: Path, warehouse: Warehouse, sessions: Collection[str]) -> list[str]:
    """Return the folders of bundles whose golden requests hold a session: all products and times of one are its own.

    A bundle's files are sealed: the requests go when the bundle does.
    """
    some = ", ".join("?" * len(sessions))
    query = f"select session_id, sku, timestamp_ms from distinct_events where session_id in ({some})"
    events: dict[str, set[tuple[str, int]]] = {}
    try:
        with warehouse.read(query, list(sessions)) as reader:
            for row in reader.read_all().to_pylist():
                events.setdefault(row["session_id"], set()).add((row["sku"], row["timestamp_ms"]))
    except WarehouseError:
        return []  # dbt has not built it yet: nothing was trained
    paths = sorted(path for pattern in GOLDEN for path in data_dir.glob(pattern))
    holding = [path for path in paths if any(_is_of(asked, events.values()) for asked in _golden_sessions(path))]
    return [path.parent.relative_to(data_dir).as_posix() for path in holding]


def _golden_sessions(path: Path) -> Iterator[set[tuple[str, int]]]:
    """Yield the products with their times of each session that is asked about."""
    for entry in json.loads(path.read_text()):
        for session in entry["request"].get("sessions", ()):
            timed = (one for one in session if isinstance(one, dict) and one.get("timestamp_ms") and one.get("sku"))
            yield {(one["sku"], one["timestamp_ms"]) for one in timed}


def _is_of(asked: set[tuple[str, int]], sessions: Iterable[set[tuple[str, int]]]) -> bool:
    return bool(asked) and any(asked <= events for events in sessions)


def forget_log(log: Path, tables: Path, endpoints: Path, note: Note) -> Forgotten:
    """Take the noted sessions out of the log of answers, and again where they were answered meanwhile.

    ``waiting`` answers of a session that does not stop asking stay in the file that the server is writing.
    """
    rows = 0
    for _ in range(LOG_PASSES):
        finish_log(log, endpoints)
        gone = forget_answers(log, tables, note.sessions, note.requests)
        rows += gone.rows
        if not gone.waiting:
            break
    return Forgotten(rows, gone.waiting)


def finish_log(log: Path, endpoints: Path) -> None:
    """Have the log's files finished, by the server if one is up. Raises ServerError where it does not do so."""
    from bigger_boat.serving.prediction_log import finish_spool, request_rotation

    if not is_being_written(log):
        return
    with server_kept_away(endpoints) as is_away:
        if is_away:
            finish_spool(log)
            return
    if not request_rotation(log, FINISH_TIMEOUT_S):
        raise ServerError(
            "The server that is up does not finish its log of answers.",
            "Stop it (bigger-boat serve --stop), then the same command once more.",
        )


def is_current(data_dir: Path, folder: str) -> bool:
    """Whether a folder is the version that its endpoint serves."""
    path = data_dir / folder
    current = path.parent.parent / "current"
    return path.parent.name == "versions" and current.is_file() and current.read_text().strip() == path.name


def remove_versions(data_dir: Path, versions: Iterable[Path]) -> None:
    """Remove versions of data sets; what a kill leaves is swept with other drafts."""
    for version in versions:
        draft = version.with_name(f".draft-{os.getpid()}-{version.name}")
        version.rename(draft)
        shutil.rmtree(draft)
    LocalStorage(base_dir=str(data_dir)).sweep_drafts()


def files_naming(data_dir: Path, sessions: Collection[str]) -> list[str]:
    """Return the files under the data folder whose bytes still hold one of the ids, relative to it."""
    wanted = [session.encode() for session in sessions]
    return [
        path.relative_to(data_dir).as_posix()
        for path in sorted(data_dir.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.name != "forgetting.json" and _holds(path, wanted)
    ]


def _holds(path: Path, wanted: list[bytes]) -> bool:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return any(content.find(text) >= 0 for text in wanted)
    except (ValueError, FileNotFoundError):  # an empty file; one that went meanwhile
        return False
