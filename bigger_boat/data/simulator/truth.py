"""The true P(a purchase comes later | all that can be observed so far), for every cut of the intent task.

Exact, by forward filtering over the shopper's hidden states: nobody can know more. It reads only what the three files
show of a session (what was done, with which product, when) and how the shop works. No asset reads what is written here.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bigger_boat.data.simulator import identifiers
from bigger_boat.data.simulator.catalogue import Catalogue
from bigger_boat.data.simulator.parameters import PRODUCT_MODES, STATES, STEP_ACTIONS, ShopParameters
from bigger_boat.data.simulator.shoppers import (
    ADD,
    AFTER_REMOVE,
    ANYWHERE,
    BACK,
    CART,
    CATEGORY,
    DAY_MS,
    DEAR_ABOVE,
    DETAIL,
    FIRST_ADD_CHEAP,
    FIRST_ADD_DEAR,
    NONE,
    ORDINARY,
    PURCHASE,
    RELATED,
    REMOVE,
    SAME,
    SEARCH,
    VIEW,
    Calendar,
    Events,
    action_probabilities,
    transition_tables,
)
from bigger_boat.data.vocabulary import INTENT_CUTS

SHORTEST_GAP_MS = 500

TRUTH_COLUMNS = pa.schema(
    [
        ("session_id_hash", pa.string()),
        ("cut", pa.int8()),
        ("probability", pa.float64()),
        ("bought", pa.bool_()),
    ]
)
"""One row per session with an add and cut of ``INTENT_CUTS`` that it reaches before it buys."""


@dataclass(frozen=True)
class IntentTruth:
    """R rows, ordered by session, then cut. ``session`` counts like ``Events.session``."""

    session: np.ndarray  # int64
    cut: np.ndarray  # int8
    probability: np.ndarray  # float64
    bought: np.ndarray  # bool


@dataclass(frozen=True)
class _Steps:
    """The N sessions with an add, longest first, as L steps in all, without the purchase and what follows it.

    Step j of session i is ``first[i] + j``. A search, its click and the page that opens are one step of three events.
    """

    session: np.ndarray  # (N,)
    week: np.ndarray  # (N,)
    bought: np.ndarray  # (N,) bool
    first: np.ndarray  # (N,)
    length: np.ndarray  # (N,)
    action: np.ndarray  # (L,)
    product: np.ndarray  # (L,): of a search, the one clicked
    gap_ms: np.ndarray  # (L,): since the step before ended
    events: np.ndarray  # (L,): 1 or 3


def intent_truth(parameters: ShopParameters, catalogue: Catalogue, calendar: Calendar, events: Events) -> IntentTruth:
    """Return the true probabilities of some whole sessions. Draws nothing at random."""
    steps = _cart_steps(events, calendar)
    rows = _Filter(parameters, catalogue, steps).run() if len(steps.session) else []
    index, cut, probability = (np.concatenate(column) for column in zip(*rows, strict=True)) if rows else [_EMPTY] * 3
    session = steps.session[index]
    order = np.lexsort((cut, session))
    return IntentTruth(session[order], cut[order].astype(np.int8), probability[order], steps.bought[index][order])


_EMPTY = np.zeros(0, dtype=np.int64)


class TruthFile:
    """Writes ``TRUTH_COLUMNS`` block by block. Use as a context manager."""

    def __init__(self, path: Path):
        self._writer = pq.ParquetWriter(path, TRUTH_COLUMNS, compression="zstd")
        self.rows = 0

    def __enter__(self) -> "TruthFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def add(self, truth: IntentTruth, first_session: int, seed: int) -> None:
        """Append the truth of a block whose sessions are numbered from ``first_session``."""
        ids = identifiers.hashed_ids(truth.session + first_session, identifiers.SESSION, seed)
        columns = [ids.cast(pa.string()), truth.cut, truth.probability, truth.bought]
        self._writer.write_batch(pa.RecordBatch.from_arrays([pa.array(c) for c in columns], schema=TRUTH_COLUMNS))
        self.rows += len(truth.session)


def _cart_steps(events: Events, calendar: Calendar) -> _Steps:
    kept = np.isin(events.session, events.session[events.action == ADD])
    order = np.flatnonzero(kept)[np.lexsort((events.time_ms[kept], events.session[kept]))]
    session, action, product, time = (
        getattr(events, name)[order] for name in ("session", "action", "product", "time_ms")
    )
    names, start, inverse = np.unique(session, return_index=True, return_inverse=True)
    purchases = np.cumsum(action == PURCHASE)
    before = purchases - (purchases[start] - (action[start] == PURCHASE))[inverse] == 0
    clicked = (action == SEARCH) & (product != NONE)
    opened = np.concatenate([[False], clicked[:-1]])
    ends = np.where(clicked, np.append(time[1:], 0), time)  # of a step
    is_step = before & ~opened
    length = np.bincount(inverse[is_step], minlength=len(names))
    by_length = np.argsort(-length, kind="stable")
    first = (np.cumsum(length) - length)[by_length]
    return _Steps(
        session=names[by_length],
        week=((time[start] - calendar.start_ms) // (7 * DAY_MS))[by_length],
        bought=(np.bincount(inverse[action == PURCHASE], minlength=len(names)) > 0)[by_length],
        first=first,
        length=length[by_length],
        action=action[is_step].astype(np.int64),
        product=product[is_step],
        gap_ms=time[is_step] - np.concatenate([[0], ends[is_step][:-1]]),
        events=np.where(clicked, 3, 1)[is_step],
    )


def purchase_values(parameters: ShopParameters) -> np.ndarray:
    """Return P(a purchase comes | state, last action, products in the cart) after the first add, shape (S, A, C + 1).

    The solution of the linear equations that say: it comes next, or it comes after the step that comes next.
    """
    actions, transitions = action_probabilities(parameters), transition_tables(parameters)
    states, kinds, limit = len(STATES), len(STEP_ACTIONS), parameters.cart_limit
    flow = np.zeros((states, kinds, limit + 1, states, kinds, limit + 1))
    ends_well = np.zeros((states, kinds, limit + 1))
    for cart in range(limit + 1):
        likely = actions[:, :, int(cart > 0), 1, int(cart == limit)]  # (S, A, A)
        if cart:
            ends_well[:, :, cart] = likely[:, :, PURCHASE]
        for action, change in ((VIEW, 0), (DETAIL, 0), (ADD, 1), (REMOVE, -1), (SEARCH, 0)):
            if 0 <= cart + change <= limit:
                table = transitions[AFTER_REMOVE if action == REMOVE else ORDINARY]
                flow[:, :, cart, :, action, cart + change] = likely[:, :, action, None] * table[:, None, :]
    size = ends_well.size
    return np.linalg.solve(np.eye(size) - flow.reshape(size, size), ends_well.ravel()).reshape(ends_well.shape)


def gap_likelihoods(parameters: ShopParameters, gap_ms: np.ndarray) -> np.ndarray:
    """Return P(gap of exactly so many milliseconds | state), shape (N, S): what ``shoppers.gaps_ms`` draws, rounded."""
    median = np.array(parameters.pace_medians_s)
    power = 1 / parameters.pace_spread

    def below(seconds: np.ndarray) -> np.ndarray:
        return 1 / (1 + (np.maximum(seconds, 1e-12)[..., None] / median) ** -power)

    low = np.where(gap_ms <= SHORTEST_GAP_MS, 0.0, gap_ms / 1000)
    share = (below((gap_ms + 1) / 1000) - below(low)) / below(np.array(parameters.longest_gap_s))
    return share @ np.array(parameters.pace_shares).T


class _Filter:
    """Beliefs about the hidden states of N shoppers, updated step by step; row i is session i of the steps."""

    def __init__(self, parameters: ShopParameters, catalogue: Catalogue, steps: _Steps):
        self.parameters, self.catalogue, self.steps = parameters, catalogue, steps
        count = len(steps.session)
        self.belief = np.tile(np.array(parameters.first_state), (count, 1))  # (N, S)
        self.last = np.full(count, NONE)
        self.seen = np.full((count, parameters.memory), NONE, dtype=np.int32)  # most recent first
        self.seen_count = np.zeros(count, dtype=np.int64)
        self.cart = np.full((count, parameters.cart_limit), NONE, dtype=np.int32)
        self.cart_count = np.zeros(count, dtype=np.int64)
        self.after_add = np.full(count, NONE)  # events since the first add
        self._actions, self._transitions = action_probabilities(parameters), transition_tables(parameters)
        self._values = purchase_values(parameters)

    def run(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Return (row, cut, probability) arrays."""
        steps, found = self.steps, []
        gaps = gap_likelihoods(self.parameters, steps.gap_ms)  # of first steps: meaningless, not used
        for number in range(int(steps.length[0])):
            rows = np.arange(np.searchsorted(-steps.length, -number, side="left"))  # those that go on
            at = steps.first[rows] + number
            action, product = steps.action[at], steps.product[at]
            likelihood = np.ones((len(rows), len(STATES)))
            if number:
                likelihood = self._action_likelihood(rows, action) * gaps[at]
            details = np.flatnonzero(action == DETAIL)
            likelihood[details] *= self._product_likelihood(rows[details], product[details])
            kind = self._happen(rows, action, product)
            belief = self.belief[rows] * likelihood
            belief /= belief.sum(axis=1, keepdims=True)
            self.belief[rows] = np.einsum("ns,nst->nt", belief, self._transitions[kind])
            self.last[rows] = action
            found += self._cuts(rows, steps.events[at])
        return found

    def _action_likelihood(self, rows: np.ndarray, action: np.ndarray) -> np.ndarray:
        cart, seen = self.cart_count[rows], self.seen_count[rows]
        full = (cart == self.parameters.cart_limit).astype(int)
        return self._actions[:, self.last[rows], (cart > 0).astype(int), (seen > 0).astype(int), full, action].T

    def _product_likelihood(self, rows: np.ndarray, product: np.ndarray) -> np.ndarray:
        """Return P(product of a detail | state), (n, S): what ``_Shoppers._draw_products`` draws."""
        parameters, catalogue = self.parameters, self.catalogue
        seen_count, cart_count = self.seen_count[rows], self.cart_count[rows]
        is_seen = self.seen[rows] == product[:, None]  # (n, M)
        by_mode = np.empty((len(rows), len(PRODUCT_MODES)))
        by_mode[:, SAME] = is_seen[:, 0]
        by_mode[:, BACK] = is_seen[:, 1:].sum(axis=1) / np.maximum(seen_count - 1, 1)
        by_mode[:, CART] = (self.cart[rows] == product[:, None]).sum(axis=1) / np.maximum(cart_count, 1)
        origin = parameters.memory_decay ** np.arange(parameters.memory) * (self.seen[rows] != NONE)
        rank = parameters.related_decay ** np.arange(parameters.related_products)
        leads = (catalogue.successors[self.seen[rows]] == product[:, None, None]) @ (rank / rank.sum())  # (n, M)
        by_mode[:, RELATED] = (leads * origin).sum(axis=1) / np.maximum(origin.sum(axis=1), 1e-300)
        category = catalogue.category[self.seen[rows, 0]]
        first, end = catalogue.category_start[category], catalogue.category_start[category + 1]
        share = catalogue.popularity[product] / (catalogue.cumulative[end] - catalogue.cumulative[first])
        by_mode[:, CATEGORY] = np.where(catalogue.category[product] == category, share, 0.0)
        place = self.steps.week[rows] * len(catalogue.category) + product
        cumulative = catalogue.weekly_cumulative
        before = np.where(product > 0, cumulative[place - 1], self.steps.week[rows])
        by_mode[:, ANYWHERE] = cumulative[place] - before
        possible = np.repeat(seen_count[:, None] > 0, len(PRODUCT_MODES), axis=1)
        possible[:, BACK] &= seen_count > 1
        possible[:, CART] &= cart_count > 0
        by_mode = np.where(possible, by_mode, by_mode[:, [ANYWHERE]])
        return by_mode @ np.array(parameters.product_modes).T

    def _happen(self, rows: np.ndarray, action: np.ndarray, product: np.ndarray) -> np.ndarray:
        """Bring what can be observed up to date; return which transition follows, (n,)."""
        kind = np.full(len(rows), ORDINARY)
        shown = ((action == DETAIL) | (action == SEARCH)) & (product != NONE)
        row = rows[shown]
        self.seen[row, 1:] = self.seen[row, :-1]
        self.seen[row, 0] = product[shown]
        self.seen_count[row] = np.minimum(self.seen_count[row] + 1, self.parameters.memory)
        added = action == ADD
        row = rows[added]
        dear = np.where(self.catalogue.price[product[added]] > DEAR_ABOVE, FIRST_ADD_DEAR, FIRST_ADD_CHEAP)
        kind[added] = np.where(self.after_add[row] == NONE, dear, ORDINARY)
        self.cart[row, self.cart_count[row]] = product[added]
        self.cart_count[row] += 1
        removed = action == REMOVE
        row = rows[removed]
        place = (self.cart[row] == product[removed, None]).argmax(axis=1)
        self.cart_count[row] -= 1
        self.cart[row, place] = self.cart[row, self.cart_count[row]]
        self.cart[row, self.cart_count[row]] = NONE
        kind[removed] = AFTER_REMOVE
        return kind

    def _cuts(self, rows: np.ndarray, events: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Count events since the first add; return (row, cut, probability) where a cut was reached or passed.

        Within a search, its click and the page, nothing is learned about the state: its three events share one truth.
        """
        before = self.after_add[rows]
        started = (before != NONE) | (self.last[rows] == ADD)
        after = np.where(started, before + events, NONE)
        self.after_add[rows] = after
        probability = (self.belief[rows] * self._values[:, self.last[rows], self.cart_count[rows]].T).sum(axis=1)
        found = []
        for cut in INTENT_CUTS:
            here = np.flatnonzero((before < cut) & (cut <= after))
            if len(here):
                found.append((rows[here], np.full(len(here), cut), probability[here]))
        return found
