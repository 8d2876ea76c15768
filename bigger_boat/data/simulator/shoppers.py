"""What shoppers do: blocks of sessions, simulated step by step and all sessions of a block at once.

In: parameters, a catalogue, how many sessions, a random generator. Out: events as arrays. Files: ``writer.py``.
"""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from bigger_boat.data.simulator.catalogue import Catalogue
from bigger_boat.data.simulator.parameters import PRODUCT_MODES, STATES, STEP_ACTIONS, ShopParameters

VIEW, DETAIL, ADD, REMOVE, PURCHASE, SEARCH, END = range(len(STEP_ACTIONS))
SAME, BACK, CART, RELATED, CATEGORY, ANYWHERE = range(len(PRODUCT_MODES))
ORDINARY, FIRST_ADD_CHEAP, FIRST_ADD_DEAR, AFTER_REMOVE, AFTER_PURCHASE = range(5)
"""Places in ``transition_tables``."""

NONE = -1
DEAR_ABOVE = 5  # price bucket
DAY_MS = 86_400_000
MAX_STEPS = 1_000
LATEST_MARGIN_MS = 3_600_000


@dataclass(frozen=True)
class Calendar:
    """The days of the shop, UTC."""

    first_day: date
    days: int

    @property
    def start_ms(self) -> int:
        """Midnight of the first day, epoch milliseconds."""
        return (self.first_day - date(1970, 1, 1)).days * DAY_MS

    @property
    def end_ms(self) -> int:
        """Midnight after the last day, epoch milliseconds."""
        return self.start_ms + self.days * DAY_MS

    @property
    def weeks(self) -> int:
        """Weeks begun."""
        return -(-self.days // 7)


@dataclass(frozen=True)
class Events:
    """E events. ``session`` counts within the block; ``product`` is -1 where none.

    ``query`` is -1 unless the event is a search; the product of a search is the one clicked.
    """

    session: np.ndarray  # int64
    action: np.ndarray  # int8, index into STEP_ACTIONS
    product: np.ndarray  # int32
    query: np.ndarray  # int32
    time_ms: np.ndarray  # int64, epoch


def action_probabilities(parameters: ShopParameters) -> np.ndarray:
    """Return P(action) by (state, last action, cart not empty, a product seen, cart full), shape (S, A, 2, 2, 2, A).

    The last axis follows ``STEP_ACTIONS``. Impossible combinations hold probabilities too; they are never asked.
    """
    table = np.empty((len(STATES), len(STEP_ACTIONS), 2, 2, 2, len(STEP_ACTIONS)))
    table[:, :, 0] = np.array(parameters.idle_actions)[:, None, None, None, :]
    table[:, :, 1] = np.array(parameters.cart_actions)[:, None, None, None, :]
    for action in (VIEW, DETAIL):
        table[:, action, ..., action] *= np.array(parameters.repeat_factor)[:, None, None, None]
    elsewhere = [action for action in range(len(STEP_ACTIONS)) if action != DETAIL]
    table[:, elsewhere, ..., ADD] *= parameters.add_elsewhere_factor
    table[:, :, :, 0, :, ADD] = 0.0
    table[..., 1, ADD] = 0.0
    return table / table.sum(axis=-1, keepdims=True)


def transition_tables(parameters: ShopParameters) -> np.ndarray:
    """Return (5, S, S): ordinary, first add of a cheap product, of a dear one, after remove, after purchase."""
    return np.array(
        [
            parameters.transitions,
            parameters.first_add_cheap,
            parameters.first_add_dear,
            parameters.after_remove,
            parameters.after_purchase,
        ]
    )


def _pick(cumulative_rows: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Return the drawn column of each row of cumulative probabilities (N, K)."""
    return np.minimum((uniform[:, None] >= cumulative_rows).sum(axis=1), cumulative_rows.shape[1] - 1)


def _decaying(count: int, decay: float) -> np.ndarray:
    weights = decay ** np.arange(count)
    return np.cumsum(weights / weights.sum())


def gaps_ms(parameters: ShopParameters, pace: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return times between steps in ms: log-logistic with the pace's median, cut at the longest gap."""
    median = np.array(parameters.pace_medians_s)[pace]
    ceiling = 1 / (1 + (parameters.longest_gap_s / median) ** (-1 / parameters.pace_spread))
    uniform = np.maximum(rng.random(len(pace)), 1e-9) * ceiling
    seconds = median * (uniform / (1 - uniform)) ** parameters.pace_spread
    return (np.maximum(seconds, 0.5) * 1000).astype(np.int64)


def start_times_ms(parameters: ShopParameters, calendar: Calendar, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return when sessions start: by weekday, then by hour, evenly within the hour."""
    weekdays = [(calendar.first_day + timedelta(days=day)).weekday() for day in range(calendar.days)]
    day_weights = np.array(parameters.weekday_weights)[weekdays]
    hour_weights = np.array(parameters.hour_weights)
    day = rng.choice(calendar.days, count, p=day_weights / day_weights.sum())
    hour = rng.choice(24, count, p=hour_weights / hour_weights.sum())
    within_ms = rng.integers(0, 3_600_000, count)
    return calendar.start_ms + day * DAY_MS + hour * 3_600_000 + within_ms


def simulate_block(
    parameters: ShopParameters, catalogue: Catalogue, calendar: Calendar, sessions: int, rng: np.random.Generator
) -> Events:
    """Return all events of some sessions, in no particular order. No event is outside the calendar."""
    start_ms = start_times_ms(parameters, calendar, sessions, rng)
    looking = rng.random(sessions) < parameters.looking_only
    parts = [_looking_only(parameters, catalogue, np.flatnonzero(looking), rng)]
    shoppers = np.flatnonzero(~looking)
    week = (start_ms[shoppers] - calendar.start_ms) // (7 * DAY_MS)
    parts += _Shoppers(parameters, catalogue, shoppers, week, rng).run()
    session, action, product, query, offset_ms = (np.concatenate(column) for column in zip(*parts, strict=True))
    last_ms = np.zeros(sessions, dtype=np.int64)
    np.maximum.at(last_ms, session, offset_ms)
    latest_ms = calendar.end_ms - last_ms - rng.integers(1, LATEST_MARGIN_MS, sessions)  # at random: no end is marked
    start_ms = np.maximum(np.where(start_ms + last_ms < calendar.end_ms, start_ms, latest_ms), calendar.start_ms)
    return Events(
        session, action.astype(np.int8), product.astype(np.int32), query.astype(np.int32), start_ms[session] + offset_ms
    )


def _looking_only(
    parameters: ShopParameters, catalogue: Catalogue, sessions: np.ndarray, rng
) -> tuple[np.ndarray, ...]:
    """Return events (session, action, product, query, offset in ms) of sessions with pageviews and searches only."""
    length = np.minimum(rng.geometric(parameters.looking_only_end, len(sessions)), MAX_STEPS)
    total = int(length.sum())
    session = np.repeat(sessions, length)
    first = np.repeat(np.cumsum(length) - length, length)
    pace = rng.choice(len(parameters.pace_medians_s), total, p=parameters.pace_shares[0])
    gap = gaps_ms(parameters, pace, rng)
    is_first = first == np.arange(total)
    gap[is_first] = 0
    elapsed = np.cumsum(gap)
    offset = elapsed - elapsed[first]
    search = ~is_first & (rng.random(total) < parameters.looking_only_search / 2.5)
    query = np.where(search, rng.integers(0, len(catalogue.results), total), NONE)
    return session, np.where(search, SEARCH, VIEW), np.full(total, NONE), query, offset


class _Shoppers:
    """The shoppers of one block, advanced together; row i is one of them. Rows that ended are dropped."""

    def __init__(self, parameters: ShopParameters, catalogue: Catalogue, sessions: np.ndarray, week: np.ndarray, rng):
        self.parameters, self.catalogue, self.rng = parameters, catalogue, rng
        count = len(sessions)
        self.session, self.week = sessions, week
        self.state = rng.choice(len(STATES), count, p=parameters.first_state)
        self.last = np.full(count, VIEW)
        self.offset_ms = np.zeros(count, dtype=np.int64)
        self.seen = np.full((count, parameters.memory), NONE, dtype=np.int32)  # most recent first
        self.seen_count = np.zeros(count, dtype=np.int64)
        self.cart = np.full((count, parameters.cart_limit), NONE, dtype=np.int32)  # most recent first
        self.cart_count = np.zeros(count, dtype=np.int64)
        self.added = np.zeros(count, dtype=bool)
        self.events: list[tuple[np.ndarray, ...]] = []
        self._actions = np.cumsum(action_probabilities(parameters), axis=-1)
        self._transitions = np.cumsum(transition_tables(parameters), axis=-1)
        self._paces = np.cumsum(np.array(parameters.pace_shares), axis=-1)
        self._modes = np.cumsum(np.array(parameters.product_modes), axis=-1)

    def run(self) -> list[tuple[np.ndarray, ...]]:
        """Return events as (session, action, product, query, offset in ms), one tuple per step and action."""
        for step in range(MAX_STEPS):
            action = self._draw_actions(step)
            self._keep(action != END)
            action = action[action != END]
            if not len(action):
                break
            if step:
                pace = _pick(self._paces[self.state], self.rng.random(len(action)))
                self.offset_ms += gaps_ms(self.parameters, pace, self.rng)
            kinds = np.zeros(len(action), dtype=np.int64)  # of transition
            for value, act in enumerate(
                (self._view, self._detail, self._add, self._remove, self._purchase, self._search)
            ):
                rows = np.flatnonzero(action == value)
                if len(rows):
                    kinds[rows] = act(rows)
            self.last = action
            self.state = _pick(self._transitions[kinds, self.state], self.rng.random(len(action)))
        return self.events

    def _keep(self, mask: np.ndarray) -> None:
        for name in (
            "session",
            "week",
            "state",
            "last",
            "offset_ms",
            "seen",
            "seen_count",
            "cart",
            "cart_count",
            "added",
        ):
            setattr(self, name, getattr(self, name)[mask])

    def _draw_actions(self, step: int) -> np.ndarray:
        uniform = self.rng.random(len(self.session))
        if step == 0:
            return _pick(
                np.broadcast_to(np.cumsum(self.parameters.first_action), (len(uniform), len(STEP_ACTIONS))), uniform
            )
        has_cart, has_seen = (self.cart_count > 0).astype(int), (self.seen_count > 0).astype(int)
        full = (self.cart_count == self.parameters.cart_limit).astype(int)
        return _pick(self._actions[self.state, self.last, has_cart, has_seen, full], uniform)

    def _emit(self, rows: np.ndarray, action: int, product: np.ndarray, query: np.ndarray | int = NONE) -> None:
        whole = np.broadcast_to(np.asarray(query), len(rows))
        self.events.append((self.session[rows], np.full(len(rows), action), product, whole, self.offset_ms[rows]))

    def _view(self, rows: np.ndarray) -> int:
        self._emit(rows, VIEW, np.full(len(rows), NONE))
        return ORDINARY

    def _detail(self, rows: np.ndarray) -> int:
        product = self._draw_products(rows)
        self._emit(rows, DETAIL, product)
        self._remember(rows, product)
        return ORDINARY

    def _remember(self, rows: np.ndarray, product: np.ndarray) -> None:
        self.seen[rows, 1:] = self.seen[rows, :-1]
        self.seen[rows, 0] = product
        self.seen_count[rows] = np.minimum(self.seen_count[rows] + 1, self.parameters.memory)

    def _draw_products(self, rows: np.ndarray) -> np.ndarray:
        """Return a product for each row: first how the shopper comes to it, then which."""
        rng, parameters, catalogue = self.rng, self.parameters, self.catalogue
        mode = _pick(self._modes[self.state[rows]], rng.random(len(rows)))
        seen, in_cart = self.seen_count[rows], self.cart_count[rows]
        mode[(seen == 0) | ((mode == BACK) & (seen < 2)) | ((mode == CART) & (in_cart == 0))] = ANYWHERE
        product = np.empty(len(rows), dtype=np.int32)
        for value in range(len(PRODUCT_MODES)):
            here = np.flatnonzero(mode == value)
            if not len(here):
                continue
            row, uniform = rows[here], rng.random(len(here))
            if value == SAME:
                product[here] = self.seen[row, 0]
            elif value == BACK:
                product[here] = self.seen[row, 1 + (uniform * (seen[here] - 1)).astype(int)]
            elif value == CART:
                product[here] = self.cart[row, (uniform * in_cart[here]).astype(int)]
            elif value == RELATED:
                weights = _decaying(parameters.memory, parameters.memory_decay)
                origin = np.searchsorted(weights, uniform * weights[seen[here] - 1], side="right")
                ranks = _decaying(parameters.related_products, parameters.related_decay)
                rank = np.searchsorted(ranks, rng.random(len(here)) * ranks[-1], side="right")
                origin = np.minimum(origin, seen[here] - 1)
                product[here] = catalogue.successors[self.seen[row, origin], np.minimum(rank, len(ranks) - 1)]
            elif value == CATEGORY:
                product[here] = catalogue.draw_from_category(uniform, catalogue.category[self.seen[row, 0]])
            else:
                product[here] = catalogue.draw_anywhere(uniform, self.week[row])
        return product

    def _add(self, rows: np.ndarray) -> np.ndarray:
        product = self.seen[rows, 0]
        self._emit(rows, ADD, product)
        dear = np.where(self.catalogue.price[product] > DEAR_ABOVE, FIRST_ADD_DEAR, FIRST_ADD_CHEAP)
        kind = np.where(self.added[rows], ORDINARY, dear)
        self.cart[rows, 1:] = self.cart[rows, :-1]
        self.cart[rows, 0] = product
        self.cart_count[rows] += 1
        self.added[rows] = True
        return kind

    def _remove(self, rows: np.ndarray) -> int:
        """Take one product out, any: its place is taken by the one added first."""
        place = (self.rng.random(len(rows)) * self.cart_count[rows]).astype(int)
        oldest = self.cart_count[rows] - 1
        self._emit(rows, REMOVE, self.cart[rows, place])
        self.cart[rows, place] = self.cart[rows, oldest]
        self.cart[rows, oldest] = NONE
        self.cart_count[rows] -= 1
        return AFTER_REMOVE

    def _purchase(self, rows: np.ndarray) -> int:
        """Buy the whole cart: one event per product, all at the same time."""
        for place in range(self.parameters.cart_limit):
            buying = rows[self.cart_count[rows] > place]
            self._emit(buying, PURCHASE, self.cart[buying, place])
        self.cart[rows] = NONE
        self.cart_count[rows] = 0
        return AFTER_PURCHASE

    def _search(self, rows: np.ndarray) -> int:
        """Search near the last product, or anywhere; a click opens the product's page some seconds later."""
        rng, parameters, catalogue = self.rng, self.parameters, self.catalogue
        start = np.where(self.seen_count[rows] > 0, self.seen[rows, 0], NONE)
        anywhere = catalogue.draw_anywhere(rng.random(len(rows)), self.week[rows])
        category = catalogue.category[np.where(start == NONE, anywhere, start)]
        query = category * parameters.queries_per_category + rng.integers(0, parameters.queries_per_category, len(rows))
        positions = _decaying(parameters.results_per_query, parameters.click_decay)
        place = np.minimum(np.searchsorted(positions, rng.random(len(rows)), side="right"), len(positions) - 1)
        clicked = rng.random(len(rows)) < parameters.click_share
        product = np.where(clicked, catalogue.results[query, place], NONE)
        self._emit(rows, SEARCH, product, query)
        opened, pages = rows[clicked], product[clicked]
        low, high = parameters.click_to_detail_s
        self.offset_ms[opened] += (rng.uniform(low, high, len(opened)) * 1000).astype(np.int64)
        self._emit(opened, DETAIL, pages)
        self._remember(opened, pages)
        return ORDINARY
