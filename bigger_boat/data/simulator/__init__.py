"""A shop that does not exist, in the format of the SIGIR eCom 2021 challenge: ``simulate`` writes its three files.

Read ``parameters`` (the numbers), ``catalogue`` (products), ``shoppers`` (sessions), ``writer`` (files), in this order.
Nothing here reads settings or knows what becomes of the files.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from bigger_boat.data.simulator import writer
from bigger_boat.data.simulator.catalogue import Catalogue, make_catalogue, write_catalogue
from bigger_boat.data.simulator.parameters import CHALLENGE_LIKE, SHOPS, YOOCHOOSE_LIKE, ShopParameters
from bigger_boat.data.simulator.shoppers import ADD, PURCHASE, Calendar, simulate_block
from bigger_boat.data.simulator.writer import Buckets, browsing_rows, search_rows, write_browsing, write_search

__all__ = ["CHALLENGE_LIKE", "SHOPS", "YOOCHOOSE_LIKE", "ShopParameters", "SimulationReport", "simulate"]

BLOCK_SESSIONS = 16_384
"""Sessions simulated together, each block from a seed of its own. Changing it changes what every seed means."""

EXPECTED_ROWS_PER_SESSION = 7.3
EXPECTED_SEARCHES_PER_SESSION = 0.16

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done so far, of how many)."""


@dataclass(frozen=True)
class SimulationReport:
    """What was written. ``rows`` by file name; ``events`` are browsing rows; ``carts`` sessions with an add."""

    files: tuple[Path, ...]
    rows: dict[str, int]
    sessions: int
    events: int
    carts: int
    purchases: int


def simulate(
    out: Path,
    *,
    sessions: int,
    days: int,
    products: int,
    seed: int,
    end_date: date,
    progress: Progress | None = None,
    parameters: ShopParameters = YOOCHOOSE_LIKE,
) -> SimulationReport:
    """Write ``browsing_train.csv``, ``search_train.csv`` and ``sku_to_content.csv`` of a shop into ``out``.

    The shop covers ``days`` days up to and including ``end_date`` (UTC). The same arguments give the same bytes. Memory
    does not grow with ``sessions``. Each file appears whole or not at all. Raises ValueError for sizes
    that make no shop and for a negative seed.
    """
    if seed < 0:
        raise ValueError(f"A seed is a whole number from 0 up; got {seed}.")
    if sessions < 1 or days < 1 or products < 10:
        raise ValueError(
            "A shop needs at least 1 session, 1 day and 10 products; "
            f"got {sessions} sessions, {days} days, {products} products."
        )
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    calendar = Calendar(end_date - timedelta(days=days - 1), days)
    catalogue = make_catalogue(parameters, products, calendar.weeks, seed)
    names = ("browsing_train.csv", "search_train.csv", "sku_to_content.csv")
    with tempfile.TemporaryDirectory(prefix=".simulating-", dir=out) as temporary:
        work = Path(temporary)
        browsing = Buckets(work / "browsing", int(sessions * EXPECTED_ROWS_PER_SESSION), writer.BUCKET_ROWS, [seed, 4])
        searches = Buckets(
            work / "search", int(sessions * EXPECTED_SEARCHES_PER_SESSION), writer.SEARCH_BUCKET_ROWS, [seed, 5]
        )
        carts, purchases = _simulate_sessions(
            parameters, catalogue, calendar, sessions, browsing, searches, progress or _silent
        )
        _write(work, browsing, searches, catalogue, parameters, progress or _silent)
        for name in names:
            _publish(work / name, out / name)
    rows = {"browsing_train.csv": browsing.rows, "search_train.csv": searches.rows, "sku_to_content.csv": products}
    return SimulationReport(tuple(out / name for name in names), rows, sessions, browsing.rows, carts, purchases)


def _silent(what: str, done: int, total: int) -> None:
    """Report nothing."""


def _simulate_sessions(
    parameters: ShopParameters,
    catalogue: Catalogue,
    calendar: Calendar,
    sessions: int,
    browsing: Buckets,
    searches: Buckets,
    progress: Progress,
) -> tuple[int, int]:
    """Fill the buckets; return how many sessions have an add, and how many a purchase."""
    carts = purchases = 0
    for block, first in enumerate(range(0, sessions, BLOCK_SESSIONS)):
        rng = np.random.default_rng([catalogue.seed, 3, block])
        count = min(BLOCK_SESSIONS, sessions - first)
        events = simulate_block(parameters, catalogue, calendar, count, rng)
        browsing.add(browsing_rows(events, parameters, catalogue, first, rng))
        searches.add(search_rows(events, first))
        carts += len(np.unique(events.session[events.action == ADD]))
        purchases += len(np.unique(events.session[events.action == PURCHASE]))
        progress("sessions", first + count, sessions)
    return carts, purchases


def _write(
    work: Path,
    browsing: Buckets,
    searches: Buckets,
    catalogue: Catalogue,
    parameters: ShopParameters,
    progress: Progress,
) -> None:
    written = 0

    def tick(rows: int) -> None:
        nonlocal written
        written += rows
        progress("rows", written, browsing.rows)

    write_browsing(browsing, catalogue, parameters, work / "browsing_train.csv", tick)
    write_search(searches, catalogue, work / "search_train.csv")
    write_catalogue(catalogue, parameters, work / "sku_to_content.csv")


def _publish(temporary: Path, target: Path) -> None:
    """Move a finished file to its place: after a crash there is the old file, or the new one, whole."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, target)
