"""Sessions by the book, in plain Python, written apart from the SQL: DESIGN's "Sessions" read aloud.

A history is a list of events ``(session, ms, action, sku, url)``; actions are ours, ``search`` and ``click`` included.
"""

from collections import defaultdict
from dataclasses import dataclass

DAY_MS = 86_400_000
ORDER = ["search", "click", "view", "detail", "add", "remove", "purchase"]
PRODUCT_ACTIONS = {"detail", "add", "remove", "purchase"}


@dataclass(frozen=True)
class Event:
    session: str
    ms: int
    action: str
    sku: str = ""
    url: str = ""

    @property
    def day(self) -> int:
        return self.ms // DAY_MS


def distinct(history: list[Event]) -> set[Event]:
    """One of each; a view of the page and time of a product event of the same session is not counted."""
    once = set(history)
    product_pages = {(event.session, event.ms, event.url) for event in once if event.action in PRODUCT_ACTIONS}
    return {
        event for event in once if event.action != "view" or (event.session, event.ms, event.url) not in product_pages
    }


def sessions(history: list[Event]) -> tuple[dict[tuple[str, int], list[Event]], int]:
    """Return the events of each session by (id, day number) in order, and how many events belong to none."""
    by_id: dict[str, dict[int, list[Event]]] = defaultdict(lambda: defaultdict(list))
    for event in distinct(history):
        by_id[event.session][event.day].append(event)
    found: dict[tuple[str, int], list[Event]] = {}
    dropped = 0
    for session, days in by_id.items():
        start = previous = None
        for day in sorted(days):
            if previous is None or day > previous + 1:
                start = day
                found[session, start] = []
            if day <= start + 1:
                found[session, start] += days[day]
            else:
                dropped += len(days[day])
            previous = day
    return {key: sorted(events, key=_order) for key, events in found.items()}, dropped


def _order(event: Event) -> tuple[int, int, str, str]:
    return event.ms, ORDER.index(event.action), event.sku, event.url
