"""The landing zone of several machines: a log of commits on S3, and a whole copy under each machine's data folder.

Belongs here: sending what was landed here, and bringing here what others landed. Does not belong here: what a commit
says and how changes made apart come together (``data/landing_commits.py``), landing (``data/landing.py``).

::

    STORAGE/landing/_commits/000000000012.json      made once, by whoever is first
    STORAGE/landing/browsing/date=.../land-<digest>.parquet     files, there before a commit names them

Files first, then the commit, then the copy: killed anywhere, the next look goes on. Whoever finds that another was
faster brings in what that one landed, and makes the commit after it.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bigger_boat.data.landing_commits import (
    Commit,
    Known,
    bring_into_force,
    joined,
    landed_apart,
)
from bigger_boat.data.landing_index import read_index
from bigger_boat.data.landing_store import landing_lock
from bigger_boat.errors import LandingError
from bigger_boat.resources.object_store import ObjectStore

LANDING = "landing"
COMMITS = f"{LANDING}/_commits"
AT_ONCE = 16
"""Objects that are asked for together."""


@dataclass(frozen=True)
class Synced:
    """What a look did: commits of others that are in force here now, and whether one was made of what landed here."""

    received: int = 0
    sent: bool = False


class LandingMirror:
    """The copy at ``root`` of the landing zone that lies in a store."""

    def __init__(self, root: Path, store: ObjectStore):
        self.root, self.store = Path(root), store

    def sync(self, *, waits: bool = True) -> Synced:
        """Send what was landed here, and bring here what others landed; one small read where nothing is new.

        With ``waits=False`` a landing that is under way here is not waited for: what it lands goes another time.
        Raises CloudError, and LandingError where log or copy cannot be read.
        """
        known = Known.read(self.root, self.store.root_address)
        if not landed_apart(read_index(self.root), known) and self._commit(known.commit + 1) is None:
            return Synced()
        try:
            with landing_lock(self.root, waits=waits) as staging:
                return self._sync(staging)
        except BlockingIOError:
            return Synced()

    def _sync(self, staging: Path) -> Synced:
        known = Known.read(self.root, self.store.root_address)
        received: list[Commit] = []
        while True:
            received += self._commits_after(known.commit + len(received))
            self._require_same_log(known, received)
            mine = self._commit_of_mine(known, received)
            if mine is None:
                break
            if self.store.create_text(_path(known.commit + len(received) + 1), mine.to_text()):
                break
        commits = [*received, *([mine] if mine else [])]
        if commits:
            self._fetch_files(commits)
            bring_into_force(self.root, staging, commits)
            known.after(commits).write(self.root, staging)
        return Synced(len(received), mine is not None)

    def _commit_of_mine(self, known: Known, received: Sequence[Commit]) -> Commit | None:
        """Return the commit of what was landed here, whose files lie in the store then; None where all is there."""
        index, there = read_index(self.root), known.after(received)
        changes = joined(self.root, index, known, received)
        new_shifts = tuple(shift for shift in index.shifts if shift not in there.shifts)
        if not changes and not new_shifts:
            return None
        sent = self._send_files(sorted(file.path for change in changes for file in change.added))
        return Commit(tuple(change.manifest for change in changes), (*there.shifts, *new_shifts), sent, there.digest)

    def _require_same_log(self, known: Known, received: Sequence[Commit]) -> None:
        """Raise LandingError where the log is not the one that this copy knows."""
        last = [] if received or not known.commit else [self._commit(known.commit)]
        digests = [known.digest, *(commit.digest for commit in received)]
        follows = [commit.after == before for commit, before in zip(received, digests, strict=False)]
        if not all(follows) or any(commit is None or commit.digest != known.digest for commit in last):
            raise LandingError(
                f"{self.store.root_address}/{COMMITS} is not the log of commits that {self.root} is a copy of.",
                f"If it was replaced on purpose, move {self.root} away: the next look brings what is there now.",
            )

    def _send_files(self, paths: Sequence[str]) -> dict[str, str]:
        """Send files that no commit names; return their digests by path."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            digests = pool.map(lambda path: self.store.create_file(self.root / path, f"{LANDING}/{path}"), paths)
            return dict(zip(paths, digests, strict=True))

    def _fetch_files(self, commits: Sequence[Commit]) -> None:
        digests = {path: digest for commit in commits for path, digest in commit.sha256.items()}
        missing = [path for path in digests if not (self.root / path).exists()]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            fetched = pool.map(
                lambda path: self.store.fetch_file(f"{LANDING}/{path}", self.root / path, digests[path]), missing
            )
            for _ in fetched:
                pass

    def _commits_after(self, number: int) -> Iterator[Commit]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            while True:
                found = list(pool.map(self._commit, range(number + 1, number + 1 + AT_ONCE)))
                commits = found[: found.index(None)] if None in found else found
                yield from commits
                if len(commits) < AT_ONCE:
                    return
                number += AT_ONCE

    def _commit(self, number: int) -> Commit | None:
        path = _path(number)
        text = self.store.read_text(path)
        try:
            return Commit.from_text(text) if text is not None else None
        except ValueError as error:
            raise LandingError(
                f"The commit {self.store.root_address}/{path} of the landing zone cannot be read: {error}.",
                "Use the version of this program that wrote it; if it was altered, restore it from a backup.",
            ) from error


def _path(number: int) -> str:
    return f"{COMMITS}/{number:012d}.json"
