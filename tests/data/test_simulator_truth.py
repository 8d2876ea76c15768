"""The true probability of a purchase: against paths written out, against draws, against what happens in the shop."""

from dataclasses import replace
from datetime import date, timedelta
from itertools import product as every

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from bigger_boat.data.intent_dataset import intent_examples
from bigger_boat.data.simulator import SHOPS, YOOCHOOSE_LIKE, simulate
from bigger_boat.data.simulator.calibration import cart_sessions
from bigger_boat.data.simulator.catalogue import make_catalogue
from bigger_boat.data.simulator.parameters import STATES
from bigger_boat.data.simulator.shoppers import (
    ADD,
    DETAIL,
    NONE,
    REMOVE,
    SEARCH,
    VIEW,
    Calendar,
    Events,
    _Shoppers,
    action_probabilities,
    gaps_ms,
    simulate_block,
    transition_tables,
)
from bigger_boat.data.simulator.truth import _Filter, _Steps, gap_likelihoods, intent_truth, purchase_values
from bigger_boat.data.source_files import find_source_files
from bigger_boat.data.vocabulary import INTENT_CUTS

END = date(2026, 11, 22)
CALENDAR = Calendar(END - timedelta(days=27), 28)
BLOCKS = 8


def _events(steps: list[tuple[int, int, int]]) -> Events:
    """One session of (action, product, seconds after the step before)."""
    action, product, gap_s = (np.array(column) for column in zip(*steps, strict=True))
    time_ms = CALENDAR.start_ms + 1000 * np.cumsum(gap_s)
    nothing = np.full(len(action), NONE)
    return Events(np.zeros(len(action), dtype=np.int64), action, product, nothing, time_ms)


# -- worked out in other ways


def test_values_by_hand():
    """With one purchase in ten steps and one end in five, whatever was done before, a third of the carts is bought."""
    row = (0.4, 0.3, 0.0, 0.0, 0.1, 0.0, 0.2)
    same = replace(YOOCHOOSE_LIKE, cart_actions=(row,) * 5, repeat_factor=(1.0,) * 5)
    assert purchase_values(same)[:, :, 1:] == pytest.approx(1 / 3)
    after_one_view = replace(same, repeat_factor=(2.0,) * 5)  # a view more likely again: 10 in 100 become 10 in 140
    values = purchase_values(after_one_view)
    view, detail, search = (values[0, action, 1] for action in (VIEW, DETAIL, SEARCH))
    assert view == pytest.approx((0.8 * view + 0.3 * detail + 0.1) / 1.4)
    assert detail == pytest.approx((0.4 * view + 0.6 * detail + 0.1) / 1.3)
    assert search == pytest.approx(0.4 * view + 0.3 * detail + 0.1)


def test_an_empty_cart_has_to_be_filled_first():
    values = purchase_values(YOOCHOOSE_LIKE)
    assert (values[..., 0] < values[..., 1]).all()
    assert ((values >= 0) & (values < 1)).all()


def test_filter_is_the_sum_over_all_paths_of_hidden_states():
    """Five steps and the state after them: 5^6 paths. All states choose products alike, so products say nothing."""
    parameters = replace(YOOCHOOSE_LIKE, product_modes=(YOOCHOOSE_LIKE.product_modes[0],) * len(STATES))
    catalogue = make_catalogue(parameters, 30, CALENDAR.weeks, 0)
    cheap = int(np.flatnonzero(catalogue.price <= 5)[0])
    steps = [(VIEW, NONE, 0), (DETAIL, cheap, 31), (ADD, cheap, 8), (VIEW, NONE, 90), (DETAIL, 3, 20)]
    later = [(REMOVE, cheap, 9), (VIEW, NONE, 400)]
    truth = intent_truth(parameters, catalogue, CALENDAR, _events(steps + later))
    assert truth.cut.tolist() == [0, 2, 4]
    assert not truth.bought.any()

    likely, moves = action_probabilities(parameters), transition_tables(parameters)
    before = [(VIEW, 0, 0), (DETAIL, 0, 1), (ADD, 1, 1), (VIEW, 1, 1), (DETAIL, 1, 1)]  # last action, cart, seen
    weight = np.zeros(len(STATES))  # of the state after the view that is two events after the add
    for path in every(range(len(STATES)), repeat=6):
        p = parameters.first_state[path[0]]
        for number in range(1, 5):
            (last, cart, seen), state = before[number - 1], path[number]
            table = 1 if last == ADD else 0
            p *= moves[table, path[number - 1], state]
            p *= likely[state, last, cart, seen, 0, steps[number][0]]
            p *= _density(parameters, state, steps[number][2])
        weight[path[5]] += p * moves[0, path[4], path[5]]
    values = purchase_values(parameters)
    assert truth.probability[1] == pytest.approx(weight @ values[:, DETAIL, 1] / weight.sum(), rel=1e-4)


def _density(parameters, state: int, gap_s: float) -> float:
    """Density of the log-logistic mixture, without its constant cut."""
    total = 0.0
    for share, median in zip(parameters.pace_shares[state], parameters.pace_medians_s, strict=True):
        beta = 1 / parameters.pace_spread
        x, whole = (gap_s / median) ** beta, (parameters.longest_gap_s / median) ** beta
        total += share * beta * x / gap_s / (1 + x) ** 2 * (1 + whole) / whole
    return total


def test_gap_likelihoods_are_the_shares_of_gaps_drawn():
    bounds = np.array([0, 501, 5_000, 20_000, 60_000, 200_000, 900_000, 1_790_001])
    all_ms = np.arange(bounds[-1])
    by_state = np.add.reduceat(gap_likelihoods(YOOCHOOSE_LIKE, all_ms)[500:], np.maximum(bounds[:-1] - 500, 0))
    assert by_state.sum(axis=0) == pytest.approx(1, abs=1e-6)
    rng = np.random.default_rng(0)
    for state in (0, 2, 3):
        pace = rng.choice(4, 100_000, p=YOOCHOOSE_LIKE.pace_shares[state])
        drawn = np.histogram(gaps_ms(YOOCHOOSE_LIKE, pace, rng), bounds)[0] / 100_000
        assert by_state[:, state] == pytest.approx(drawn, abs=0.006)


@pytest.mark.parametrize("seen", [(), (4,), (4, 9, 4, 11)])
@pytest.mark.parametrize("cart", [(), (9, 7)])
def test_product_likelihoods_are_the_shares_of_products_drawn(seen, cart):
    products, draws = 40, 60_000
    parameters = SHOPS["yoochoose"]
    catalogue = make_catalogue(parameters, products, 2, 5)
    state = 2  # decided: goes back to the cart
    shoppers = _Shoppers(parameters, catalogue, np.arange(draws), np.ones(draws, dtype=int), np.random.default_rng(1))
    steps = _Steps(np.arange(products), np.ones(products, dtype=int), *(np.zeros(0, dtype=int) for _ in range(7)))
    belief = _Filter(parameters, catalogue, steps)
    for memory in (shoppers, belief):
        memory.seen[:, : len(seen)], memory.seen_count[:] = seen, len(seen)
        memory.cart[:, : len(cart)], memory.cart_count[:] = cart, len(cart)
    shoppers.state[:] = state
    drawn = np.bincount(shoppers._draw_products(np.arange(draws)), minlength=products) / draws
    expected = belief._product_likelihood(np.arange(products), np.arange(products))
    assert expected.sum(axis=0) == pytest.approx(1)
    assert drawn == pytest.approx(expected[:, state], abs=0.008)


# -- in a shop


@pytest.fixture(scope="module", params=SHOPS)
def truth(request):
    """The truth about some 130,000 sessions, as arrays: cut, probability, bought."""
    parameters = SHOPS[request.param]
    catalogue = make_catalogue(parameters, 2_000, CALENDAR.weeks, 11)
    blocks = [
        intent_truth(
            parameters,
            catalogue,
            CALENDAR,
            simulate_block(parameters, catalogue, CALENDAR, 16_384, np.random.default_rng([11, block])),
        )
        for block in range(BLOCKS)
    ]
    return tuple(
        np.concatenate([getattr(block, name) for block in blocks]) for name in ("cut", "probability", "bought")
    )


@pytest.mark.parametrize("cut", INTENT_CUTS)
def test_of_carts_with_probability_p_a_share_of_p_is_bought(truth, cut):
    """Deciles of the truth: expected and counted purchases differ as chance has it (chi-squared, 10 degrees)."""
    cuts, probability, bought = truth
    chosen = np.flatnonzero(cuts == cut)
    chosen = chosen[np.argsort(probability[chosen])]
    assert len(chosen) > 1_000
    distance = 0.0
    for decile in np.array_split(chosen, 10):
        p = probability[decile]
        distance += (bought[decile].sum() - p.sum()) ** 2 / (p * (1 - p)).sum()
    assert distance < 33  # once in 4,000 times by chance


def test_no_session_with_an_add_has_no_truth(truth):
    cuts, probability, _ = truth
    counts = [(cuts == cut).sum() for cut in INTENT_CUTS]
    assert counts == sorted(counts, reverse=True)
    assert 0 < probability.min() < 0.05
    assert 0.6 < probability.max() < 1


def test_blocks_without_carts_have_no_truth():
    catalogue = make_catalogue(YOOCHOOSE_LIKE, 30, CALENDAR.weeks, 0)
    none = intent_truth(YOOCHOOSE_LIKE, catalogue, CALENDAR, _events([(VIEW, NONE, 0), (DETAIL, 2, 9)]))
    assert [len(column) for column in (none.session, none.cut, none.probability, none.bought)] == [0] * 4


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Some 300 carts in files."""
    out = tmp_path_factory.mktemp("shop")
    return out, simulate(out, sessions=6_000, days=14, products=300, seed=4, end_date=END)


def test_file_has_exactly_the_rows_of_the_intent_data_set(shop):
    """The data set is made from the three files, without knowing how they were simulated."""
    directory, report = shop
    examples = intent_examples(cart_sessions(directory))
    expected = pl.from_arrow(pa.Table.from_batches([examples])).select("session_id", "cut", "label")
    written = pl.read_parquet(report.truth).select("session_id_hash", "cut", "bought", "probability")
    assert written["session_id_hash"].n_unique() == report.carts
    keys = written.select("session_id_hash", "cut", "bought").sort("session_id_hash", "cut")
    assert keys.rows() == expected.sort("session_id", "cut").rows()
    assert written["probability"].mean() == pytest.approx(written["bought"].mean(), abs=0.06)


def test_landing_does_not_see_the_truth(shop):
    directory, report = shop
    assert report.truth.is_file()
    assert [file.path.parent for file in find_source_files(directory)] == [directory] * 3
