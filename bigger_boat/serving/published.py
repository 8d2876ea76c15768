"""The endpoints directory: which versions are published, which is current, which serves, which was refused.

Belongs here: its layout and the atomic changes that publisher and server make to it. Does not belong here: loading
models (``live_endpoint.py``), deciding what may be published (``ml/gate.py``). Standard library only.

``ROOT/NAME/versions/V/`` bundles, ``described/V.json`` what each bundle said of itself (it stays when the version is
swept), ``current`` (the version that should serve), ``serving.json`` (what the server says
it serves, or served last), ``refused.json`` (what it refused, and why), ``excluded.json`` (versions that may not return
by themselves), ``challenger.json`` (the version that should answer a share, or in the shadow), ``challenging.json``
(what the server says of it). ``ROOT/server.json`` says where the server is; it holds a lock on ``ROOT/.server.lock``
while it lives.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bigger_boat import clock

REFUSED = "refused"
ROLLED_BACK = "rolled back"


@dataclass(frozen=True)
class WantedChallenger:
    """A version that should answer a ``share`` of the requests, or all of them unseen (``shadow``)."""

    version: str
    share: float
    shadow: bool


class PublishedEndpoint:
    """The directory of one endpoint. Several processes may use it at once."""

    def __init__(self, root: Path, name: str):
        self.name = name
        self.directory = Path(root) / name
        self.versions = self.directory / "versions"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the right to change ``current`` and what belongs to it; waits for the other holder."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / ".lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def current(self) -> str | None:
        """Return the version that should serve."""
        try:
            return (self.directory / "current").read_text().strip() or None
        except OSError:
            return None

    def point_at(self, version: str | None) -> None:
        """Make ``version`` (None: nothing) current, atomically. Call it while ``locked``."""
        if version is None:
            (self.directory / "current").unlink(missing_ok=True)
        else:
            replace_file(self.directory / "current", f"{version}\n".encode())

    def challenger(self) -> "WantedChallenger | None":
        """Return the version that should stand beside the one that serves."""
        told = read_json(self.directory / "challenger.json")
        try:
            return WantedChallenger(str(told["version"]), float(told["share"]), bool(told["shadow"])) if told else None
        except (KeyError, TypeError, ValueError):
            return None

    def set_challenger(self, wanted: "WantedChallenger | None") -> None:
        """Say which version should be the challenger (None: none), atomically. Call it while ``locked``."""
        if wanted is None:
            (self.directory / "challenger.json").unlink(missing_ok=True)
        else:
            write_json(self.directory / "challenger.json", {**asdict(wanted), "since": utc_now()})

    def drop_challenger(self, version: str, reasons: list[str]) -> None:
        """Take a challenger away that failed, unless another one was named meanwhile; note why."""
        with self.locked():
            wanted = self.challenger()
            if wanted and wanted.version == version:
                self.set_challenger(None)
        self.record_refusal(version, reasons)

    def challenging(self) -> dict[str, Any] | None:
        """Return what the server says of the challenger it has loaded: version, since, pid."""
        return read_json(self.directory / "challenging.json")

    def record_challenging(self, version: str, kind: str) -> None:
        record = {"version": version, "kind": kind, "since": utc_now(), "pid": os.getpid()}
        write_json(self.directory / "challenging.json", record)

    def put_back(self, refused: str, serving: str | None) -> None:
        """Undo a refused version, unless somebody made another one current meanwhile."""
        with self.locked():
            if self.current() == refused:
                self.point_at(serving)

    def path_of(self, version: str) -> Path:
        return self.versions / version

    def keep_description(self, version: str) -> None:
        """Keep what a published version's bundle says of itself, for when it is swept; a damaged one says nothing."""
        target, told = self.directory / "described" / f"{version}.json", self.path_of(version) / "bundle.json"
        if told.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(target, told.read_bytes())

    def description(self, version: str) -> dict[str, Any] | None:
        """Return the ``bundle.json`` of a version that is or was published here; None where there was none."""
        kept = read_json(self.directory / "described" / f"{version}.json")
        return kept or read_json(self.path_of(version) / "bundle.json")

    def list_versions(self) -> list[str]:
        """Return the versions that are there, oldest first."""
        if not self.versions.is_dir():
            return []
        return sorted(path.name for path in self.versions.iterdir() if not path.name.startswith("."))

    def serving(self) -> dict[str, Any] | None:
        """Return what the server serves or served last: version, since, checked."""
        return read_json(self.directory / "serving.json")

    def serving_version(self) -> str | None:
        return (self.serving() or {}).get("version")

    def refused(self) -> dict[str, Any] | None:
        """Return what the server refused last: version, reasons, at."""
        return read_json(self.directory / "refused.json")

    def record_serving(self, version: str, kind: str, checked: str) -> None:
        record = {"version": version, "kind": kind, "since": utc_now(), "checked": checked, "pid": os.getpid()}
        write_json(self.directory / "serving.json", record)

    def record_refusal(self, version: str, reasons: list[str]) -> None:
        with self.locked():
            self.exclude(version, REFUSED)
        write_json(self.directory / "refused.json", {"version": version, "reasons": reasons, "at": utc_now()})

    def forget_refusal(self) -> None:
        (self.directory / "refused.json").unlink(missing_ok=True)

    def excluded(self) -> dict[str, str]:
        """Return versions that may not return by themselves, with the reason."""
        return read_json(self.directory / "excluded.json") or {}

    def exclude(self, version: str, why: str | None) -> None:
        """Note (or with None, forget) why a version may not return. Call it while ``locked``."""
        known = self.excluded()
        changed = {name: reason for name, reason in known.items() if name != version}
        if why:
            changed[version] = why
        if changed != known:
            write_json(self.directory / "excluded.json", changed)


def endpoints_id(root: Path) -> str:
    """Return an id of the data directory, by which a client recognises the server of its own directory."""
    return hashlib.sha256(str(Path(root).resolve()).encode()).hexdigest()[:16]


def read_server(root: Path) -> dict[str, Any] | None:
    """Return where the server of this directory is (pid, url), or None if none is up."""
    with server_kept_away(root) as is_away:
        return None if is_away else read_json(Path(root) / "server.json")


@contextlib.contextmanager
def server_kept_away(root: Path) -> Iterator[bool]:
    """Yield whether no server of this directory is up; one that starts meanwhile waits, for two seconds."""
    with contextlib.ExitStack() as held:
        try:
            handle = held.enter_context((Path(root) / ".server.lock").open("r"))
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            is_away = True
        except OSError as error:
            is_away = isinstance(error, FileNotFoundError)  # no server ever was
        yield is_away


def was_killed(root: Path) -> bool:
    """Whether this directory's server ended without a word: one that is stopped takes its record away."""
    return read_json(Path(root) / "server.json") is not None and read_server(root) is None


def read_json(path: Path) -> Any | None:
    """Return the content of a small file, None if it is not there or not readable."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def write_json(path: Path, payload: Any) -> None:
    replace_file(path, json.dumps(payload, indent=2, sort_keys=True).encode() + b"\n")


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old or the new content, also after a kill."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def utc_now() -> str:
    return clock.utc_now().isoformat(timespec="milliseconds")
