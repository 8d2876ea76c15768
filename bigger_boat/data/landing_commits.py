"""The landing zone as a log of commits: how copies of it that land apart become one.

A commit is the next version of each part that changed; commit N is made once, on what N - 1 left. What was landed here
meanwhile is brought in file by file: what it added is added, what it superseded goes. Nothing here depends on whose
turn it was: files are immutable and named by their content.

Belongs here: what a commit says, joining, and bringing commits into force in a local copy. Does not belong here:
objects (``resources/landing_mirror.py``), the copy's lock and files (``landing_store.py``).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bigger_boat.data.landing_index import (
    LandedFile,
    LandingIndex,
    Manifest,
    parse_manifest,
    read_index,
    read_manifest,
)
from bigger_boat.data.landing_store import entry_of, write_index, write_json, write_manifest

KNOWN_FILE = "_known.json"
COMMIT_FORMAT = 1


@dataclass(frozen=True)
class Commit:
    """``manifests``: the next version of each part that changed. ``shifts``: all notes of shifts after it.

    ``sha256``: of the bytes of each file that no commit before it names, by its path. ``after``: the ``digest`` of the
    commit before it ("" for the first), so that a log that was replaced by another one is recognised.
    """

    manifests: tuple[Manifest, ...]
    shifts: tuple[Mapping[str, object], ...]
    sha256: Mapping[str, str]
    after: str = ""

    @property
    def digest(self) -> str:
        """What tells this commit from any other."""
        return hashlib.sha256(self.to_text().encode()).hexdigest()[:32]

    def to_text(self) -> str:
        said = {"format": COMMIT_FORMAT, "after": self.after, "shifts": list(self.shifts), "sha256": dict(self.sha256)}
        return json.dumps({**said, "manifests": [asdict(manifest) for manifest in self.manifests]}, indent=1)

    @classmethod
    def from_text(cls, text: str) -> "Commit":
        """Read a commit. Raises ValueError for what is none, or of another format."""
        try:
            raw = json.loads(text)
            if raw["format"] != COMMIT_FORMAT:
                raise ValueError(f"its format is {raw['format']!r}, this version reads {COMMIT_FORMAT}")
            manifests = tuple(map(parse_manifest, raw["manifests"]))
            return cls(manifests, tuple(raw["shifts"]), raw["sha256"], raw["after"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it lacks {error}") from error


@dataclass(frozen=True)
class Known:
    """What of the log at ``address`` is in force in a local copy: the last commit, its digest, and what it left."""

    address: str
    commit: int = 0
    digest: str = ""
    versions: Mapping[str, int] = field(default_factory=dict)
    shifts: tuple[Mapping[str, object], ...] = ()

    @classmethod
    def read(cls, root: Path, address: str) -> "Known":
        """Return what a copy knows; nothing where it never met this log, so that all it holds is new to the log."""
        raw = _read_known(root)
        if raw is None or raw["address"] != address:
            return cls(address)
        return cls(**{**raw, "shifts": tuple(raw["shifts"])})

    @staticmethod
    def address_of(root: Path) -> str | None:
        """Return where the log is that a folder is a copy of; None for a landing zone of its own."""
        raw = _read_known(root)
        return raw["address"] if raw else None

    def write(self, root: Path, staging: Path) -> None:
        write_json(staging, Path(root) / KNOWN_FILE, asdict(self))

    def after(self, commits: Sequence[Commit]) -> "Known":
        """Return what is known once these commits are in force."""
        versions = {manifest.part: manifest.version for commit in commits for manifest in commit.manifests}
        if not commits:
            return self
        last = commits[-1]
        return Known(self.address, self.commit + len(commits), last.digest, {**self.versions, **versions}, last.shifts)


def _read_known(root: Path) -> dict | None:
    try:
        return json.loads((Path(root) / KNOWN_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def landed_apart(index: LandingIndex, known: Known) -> list[str]:
    """Return the parts that changed here since the last commit that is known."""
    return [part for part, entry in index.parts.items() if entry.version != known.versions.get(part, 0)]


@dataclass(frozen=True)
class Joined:
    """The next version of a part, and the files in it that the log does not know."""

    manifest: Manifest
    added: tuple[LandedFile, ...]


def joined(root: Path, index: LandingIndex, known: Known, since: Sequence[Commit]) -> tuple[Joined, ...]:
    """Return the next version of each part that changed here, on top of what the commits ``since`` then say."""
    theirs = {manifest.part: manifest for commit in since for manifest in commit.manifests}
    found = []
    for part in landed_apart(index, known):
        base = _manifest(root, part, known.versions.get(part, 0))
        mine = _manifest(root, part, index.parts[part].version)
        found.append(_join(base, mine, theirs.get(part, base)))
    return tuple(each for each in found if each)


def files_of(manifest: Manifest) -> Iterator[LandedFile]:
    """Yield every file that a manifest names, of good rows and of rejected ones."""
    for by_table in (manifest.files, manifest.rejected):
        for files in by_table.values():
            yield from files


def bring_into_force(root: Path, staging: Path, commits: Sequence[Commit]) -> None:
    """Let the copy be what the commits left, in place of what was landed here; their files must lie in it already.

    Call it while holding the lock. Killed at any time, doing it again ends the same.
    """
    entries = dict(read_index(root).parts)
    for manifest in (manifest for commit in commits for manifest in commit.manifests):
        write_manifest(root, staging, manifest)
        entries[manifest.part] = entry_of(manifest, entries.get(manifest.part))
    write_index(root, staging, entries, commits[-1].shifts)


def _manifest(root: Path, part: str, version: int) -> Manifest:
    return read_manifest(root, part, version) if version else Manifest(part, 0, "")


def _join(base: Manifest, mine: Manifest, theirs: Manifest) -> Joined | None:
    files = _join_files(base.files, mine.files, theirs.files)
    rejected = _join_files(base.rejected, mine.rejected, theirs.rejected)
    if theirs is not base and (files, rejected) == (dict(theirs.files), dict(theirs.rejected)):
        return None  # it is there; a version here that only repeats the base is a version there, too
    manifest = Manifest(theirs.part, theirs.version + 1, max(mine.time, theirs.time), files, rejected)
    there = {file.path for file in files_of(theirs)}
    return Joined(manifest, tuple(file for file in files_of(manifest) if file.path not in there))


def _join_files(
    base: Mapping[str, tuple[LandedFile, ...]],
    mine: Mapping[str, tuple[LandedFile, ...]],
    theirs: Mapping[str, tuple[LandedFile, ...]],
) -> dict[str, tuple[LandedFile, ...]]:
    result = {}
    for table in sorted({*mine, *theirs}):
        was = {file.path for file in base.get(table, ())}
        superseded = was - {file.path for file in mine.get(table, ())}
        kept = [file for file in theirs.get(table, ()) if file.path not in superseded]
        there = was | {file.path for file in kept}
        result[table] = (*kept, *(file for file in mine.get(table, ()) if file.path not in there))
    return result
