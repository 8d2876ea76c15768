"""Making the disk keep what was written, through a loss of power. Standard library only: the server imports it.

Belongs here: syncing. Does not belong here: what is written, and which rename makes it count (its writers' business).
"""

import os
from pathlib import Path


def sync_directory(path: Path) -> None:
    """Have the names in a directory (files made, renamed, removed) on disk when it returns. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
