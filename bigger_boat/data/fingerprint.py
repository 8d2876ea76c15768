"""From what landed content a day of a table was made: the value that tells an up-to-date day from one to make again.

Standard library only. What belongs elsewhere: the landing zone's own digests (``landing*.py``), what to run
(``automation/plan.py``).
"""

import hashlib
from datetime import date, timedelta

from bigger_boat.data.landing_index import LandingIndex

FINGERPRINT = "source_fingerprint"
"""Metadata key under which every table made from landed files records it."""

REACH_DAYS = {"session_stats": 1, "sessions": 1, "cart_sessions": 1}
"""Tables whose day also depends on the days beside it, because sessions reach over midnight."""


def source_fingerprint(index: LandingIndex, table: str, day: str | None) -> str:
    """Return the fingerprint of what ``table`` is made from on ``day`` (ISO; None: the catalogue)."""
    if day is None:
        return index.catalog.fingerprint if index.catalog else ""
    reach = REACH_DAYS.get(table, 0)
    middle = date.fromisoformat(day)
    days = [(middle + timedelta(days=offset)).isoformat() for offset in range(-reach, reach + 1)]
    parts = [index.days[each].fingerprint if each in index.days else "" for each in days]
    return parts[0] if reach == 0 else hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]
