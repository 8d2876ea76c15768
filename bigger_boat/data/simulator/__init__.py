"""A shop that does not exist, in the format of the SIGIR eCom 2021 challenge: ``simulate`` writes its three files.

Read ``parameters`` (the numbers), ``catalogue`` (products), ``shoppers`` (sessions), ``writer`` (files) and ``truth``
(what can be known about buyers), in this order.
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
from bigger_boat.data.simulator.truth import TruthFile, intent_truth
from bigger_boat.data.simulator.writer import Buckets, browsing_rows, search_rows, write_browsing, write_search

__all__ = ["CHALLENGE_LIKE", "SHOPS", "YOOCHOOSE_LIKE", "ShopParameters", "SimulationReport", "simulate"]

BLOCK_SESSIONS = 16_384
"""Sessions simulated together, each block from a seed of its own. Changing it changes what every seed means."""

EXPECTED_ROWS_PER_SESSION = 7.3
EXPECTED_SEARCHES_PER_SESSION = 0.16

SOURCE_FILES = ("browsing_train.csv", "search_train.csv", "sku_to_content.csv")
TRUTH_FILE = Path("truth") / "intent.parquet"
"""Beside the three files, for whoever judges models (``truth.TRUTH_COLUMNS``). Landing does not see it."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done so far, of how many)."""


@dataclass(frozen=True)
class SimulationReport:
    """What was written. ``rows`` by file name; ``events`` are browsing rows; ``carts`` sessions with an add.

    ``truth`` is the file with the true probabilities of a purchase.
    """

    files: tuple[Path, ...]
    rows: dict[str, int]
    sessions: int
    events: int
    carts: int
    purchases: int
    truth: Path


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
    """Write the files of a shop into ``out``: ``SOURCE_FILES``, and ``TRUTH_FILE`` in a folder of its own.

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
    with tempfile.TemporaryDirectory(prefix=".simulating-", dir=out) as temporary:
        work = Path(temporary)
        browsing = Buckets(work / "browsing", int(sessions * EXPECTED_ROWS_PER_SESSION), writer.BUCKET_ROWS, [seed, 4])
        searches = Buckets(
            work / "search", int(sessions * EXPECTED_SEARCHES_PER_SESSION), writer.SEARCH_BUCKET_ROWS, [seed, 5]
        )
        (work / TRUTH_FILE).parent.mkdir()
        with TruthFile(work / TRUTH_FILE) as truth:
            carts, purchases = _simulate_sessions(
                parameters, catalogue, calendar, sessions, browsing, searches, truth, progress or _silent
            )
        _write(work, browsing, searches, catalogue, parameters, progress or _silent)
        for name in (*SOURCE_FILES, TRUTH_FILE):
            _publish(work / name, out / name)
    rows = dict(zip(SOURCE_FILES, (browsing.rows, searches.rows, products), strict=True))
    files = tuple(out / name for name in SOURCE_FILES)
    return SimulationReport(files, rows, sessions, browsing.rows, carts, purchases, out / TRUTH_FILE)


def _silent(what: str, done: int, total: int) -> None:
    """Report nothing."""


def _simulate_sessions(
    parameters: ShopParameters,
    catalogue: Catalogue,
    calendar: Calendar,
    sessions: int,
    browsing: Buckets,
    searches: Buckets,
    truth: TruthFile,
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
        truth.add(intent_truth(parameters, catalogue, calendar, events), first, catalogue.seed)
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
    target.parent.mkdir(exist_ok=True)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, target)
