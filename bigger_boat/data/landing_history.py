"""The landing zone as it stood at some time: the index folded again from the manifests' versions of then.

``write_past`` makes a landing zone of such a state, with an index and manifests of its own and the same files. What
belongs elsewhere: reading the present state (``landing_index.py``), writing (``landing_store.py``).
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from bigger_boat.data.landing_index import (
    MANIFESTS,
    REJECTED,
    TABLES,
    DayEntry,
    Manifest,
    read_index,
    read_manifest,
)
from bigger_boat.data.landing_store import entry_of, write_index, write_manifest
from bigger_boat.errors import LandingError

SHARED = (*TABLES, REJECTED)
"""The folders of immutable files, which a past state shares with the present one."""


@dataclass(frozen=True)
class Past:
    """What stood at the end of ``day`` (UTC): each part's entry and manifest; ``rewritten`` parts have lost rows since.

    A part is a day, ``catalog`` or ``unknown``. Rows are lost by ``forget`` only.
    """

    day: date
    entries: Mapping[str, DayEntry]
    manifests: Mapping[str, Manifest]

    @property
    def rewritten(self) -> dict[str, str]:
        """By part, when rows were taken out of what then stood."""
        return {part: manifest.rewritten for part, manifest in self.manifests.items() if manifest.rewritten}


def versions(root: Path, part: str, last: int) -> Iterator[Manifest]:
    """Yield the committed versions of a part's manifest, oldest first; ``last`` is the one the index names.

    A later one that lies there was being written when a landing died: it was never in force.
    """
    for version in range(1, last + 1):
        yield read_manifest(root, part, version)


def past_state(root: Path, day: date) -> Past:
    """Return the state at the end of ``day`` (UTC). Raises LandingError if nothing had landed by then."""
    index = read_index(root)
    end = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC)
    entries: dict[str, DayEntry] = {}
    manifests: dict[str, Manifest] = {}
    for part, present in index.parts.items():
        for manifest in versions(root, part, present.version):
            if datetime.fromisoformat(manifest.time) < end:
                manifests[part] = manifest
                entries[part] = entry_of(manifest, entries.get(part))
    if not entries:
        first = min((read_manifest(root, part, 1).time for part in index.parts), default="")
        hint = f"The first landing was at {first[:16]} UTC: name its day, or a later one." if first else "Land a shop."
        raise LandingError(f"Nothing had landed by the end of {day}.", hint)
    return Past(day, entries, manifests)


def write_past(root: Path, past: Past, target: Path) -> None:
    """Make ``target`` a landing zone of that state, again if it is one already; files are shared with ``root``.

    Raises LandingError, with nothing written, if a file that was in force then is gone.
    """
    root, target = Path(root), Path(target)
    _require_files(root, past)
    target.mkdir(parents=True, exist_ok=True)
    for name in SHARED:
        link = target / name
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(root / name, target), target_is_directory=True)
    staging = Path(tempfile.mkdtemp(prefix=".writing-", dir=target))
    try:
        shutil.rmtree(target / MANIFESTS, ignore_errors=True)
        for manifest in past.manifests.values():
            write_manifest(target, staging, manifest)
        write_index(target, staging, past.entries, read_index(root).shifts)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _require_files(root: Path, past: Past) -> None:
    for manifest in past.manifests.values():
        for files in (*manifest.files.values(), *manifest.rejected.values()):
            for file in files:
                if not (root / file.path).is_file():
                    raise LandingError(
                        f"{root / file.path}, in force at the end of {past.day}, is gone.",
                        "Restore it from a backup, or choose a day whose files are still there.",
                    )
