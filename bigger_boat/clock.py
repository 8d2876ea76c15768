"""What day it is, for all that thinks in days. Anyone may import it; standard library only.

It is the machine's clock, or one that is so many seconds apart from it, as a file says (``BIGGER_BOAT_CLOCK_FILE``):
weeks can be played in minutes, by several processes at once, and the clock put forward while they run. What belongs
elsewhere: how long something takes (``time.monotonic``), the age of files, Dagster's own records: they have real time.
"""

import time
from datetime import UTC, datetime
from pathlib import Path

_file: Path | None = None


def follow(file: Path | None) -> None:
    """Let this process's clock be apart by the seconds that ``file`` holds, read at every look; None: by nothing."""
    global _file
    _file = file


def set_to(file: Path, moment: datetime) -> None:
    """Let the clock of all who follow ``file`` be at ``moment`` now, atomically; it goes on from there."""
    draft = file.with_name(f".{file.name}.tmp")
    draft.write_text(f"{moment.timestamp() - time.time():.3f}")
    draft.replace(file)


def timestamp() -> float:
    """Return the time in s since 1970. Raises FileNotFoundError, ValueError where the file says nothing."""
    return time.time() + (float(_file.read_text()) if _file else 0.0)


def utc_now() -> datetime:
    return datetime.fromtimestamp(timestamp(), UTC)
