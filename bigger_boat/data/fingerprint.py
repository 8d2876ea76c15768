"""From what landed content a day of a table was made: the value that tells an up-to-date day from one to make again.

Standard library only. What belongs elsewhere: the landing zone's own digests (``landing*.py``), what to run
(``automation/plan.py``).
"""

import hashlib
from collections.abc import Callable
from datetime import date, timedelta

from bigger_boat.data.landing_index import CATALOG, LandingIndex

FINGERPRINT = "source_fingerprint"
"""Metadata key under which every table made from landed files records it."""

RAW_TABLES = {"browsing_train": "browsing", "search_train": "search"}
"""The landing zone's table behind each raw table by day."""

_BOTH = tuple(RAW_TABLES.values())
_SOURCES = {"browsing_train": ("browsing",), "stg_browsing": ("browsing",)} | {
    "search_train": ("search",),
    "stg_search": ("search",),
}
_REACH_DAYS = {"session_stats": 1, "sessions": 1, "cart_sessions": 1}
"""Tables whose day also depends on the days beside it, because sessions reach over midnight."""

Content = Callable[[str, str], str]
"""(landing table, day) -> fingerprint of the content of that day, "" where there is none."""


def source_fingerprint(content: Content, table: str, day: str) -> str:
    """Return the fingerprint of what ``table`` is made from on ``day`` (ISO), given what is landed, or loaded."""
    reach, middle = _REACH_DAYS.get(table, 0), date.fromisoformat(day)
    days = [(middle + timedelta(days=offset)).isoformat() for offset in range(-reach, reach + 1)]
    parts = [content(source, each) for source in _SOURCES.get(table, _BOTH) for each in days]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


def landed_content(index: LandingIndex) -> Content:
    """Return the content in force in the landing zone."""
    return lambda table, day: index.days[day].fingerprints.get(table, "") if day in index.days else ""


def catalog_fingerprint(index: LandingIndex) -> str:
    """Return the fingerprint of the catalogue's files in force; "empty" where there are none."""
    return (index.catalog.fingerprints.get(CATALOG) if index.catalog else None) or "empty"


def loaded_content(fingerprints: dict[tuple[str, str], str]) -> Content:
    """Return the content that is loaded, from the warehouse's record by (raw table, day)."""
    raw = {source: table for table, source in RAW_TABLES.items()}
    return lambda table, day: fingerprints.get((raw[table], day), "")
