import math

import numpy as np
import pytest

from bigger_boat.ml import intervals
from bigger_boat.ml.intent_metrics import auc
from bigger_boat.ml.intervals import mean_interval, paired_interval, statistic_interval


def test_the_same_seed_draws_the_same_and_the_interval_is_the_normal_one():
    values = np.random.default_rng(0).random(400)
    sessions = np.arange(400)
    one = mean_interval(values, sessions, seed=1)
    assert one == mean_interval(values, sessions, seed=1)
    assert one != mean_interval(values, sessions, seed=2)
    deviation = values.std() / math.sqrt(400)  # the normal interval: +- 1.96 standard errors
    assert (one.value, one.count) == (pytest.approx(values.mean()), 400)
    assert one.low == pytest.approx(values.mean() - 1.96 * deviation, abs=0.2 * deviation)
    assert one.high == pytest.approx(values.mean() + 1.96 * deviation, abs=0.2 * deviation)


def test_sessions_are_drawn_and_not_predictions():
    values = np.repeat(np.random.default_rng(0).random(50), 20)
    by_session = mean_interval(values, np.repeat(np.arange(50), 20))
    by_prediction = mean_interval(values, np.arange(1000))
    ratio = (by_session.high - by_session.low) / (by_prediction.high - by_prediction.low)
    assert ratio == pytest.approx(math.sqrt(20), rel=0.15)


def test_chunked_draws_still_make_the_asked_number(monkeypatch):
    monkeypatch.setattr(intervals, "DRAWS_PER_CHUNK", 50)
    interval = mean_interval(np.array([0.0, 1.0] * 10), np.arange(20), samples=99)
    assert 0.2 < interval.low < 0.5 < interval.high < 0.8


def test_a_paired_difference_is_narrower_than_its_parts():
    incumbent = np.random.default_rng(5).random(500)
    interval = paired_interval(incumbent + 0.01, incumbent, np.arange(500))
    assert interval[:3] == pytest.approx((0.01, 0.01, 0.01))


def test_any_statistic_agrees_with_the_mean_where_it_is_one():
    differences = np.random.default_rng(5).normal(0.1, 1.0, 400)
    sessions = np.repeat(np.arange(200), 2)
    drawn = statistic_interval(lambda rows: differences[rows].mean(), sessions, samples=2000, seed=1)
    mean = mean_interval(differences, sessions, samples=2000)
    assert drawn.value == pytest.approx(mean.value)
    assert (drawn.low, drawn.high) == pytest.approx((mean.low, mean.high), abs=0.02)
    assert drawn == statistic_interval(lambda rows: differences[rows].mean(), sessions, samples=2000, seed=1)


def test_a_clear_difference_in_auc_excludes_zero_and_none_is_zero():
    generator = np.random.default_rng(5)
    labels = generator.random(400) < 0.4
    noise, good = generator.random(400), labels + generator.normal(0, 0.7, 400)
    sessions = [f"session {row // 2}" for row in range(400)]

    def difference(second):
        return lambda rows: auc(labels[rows], second[rows]) - auc(labels[rows], noise[rows])

    clear = statistic_interval(difference(good), sessions, samples=200)
    assert 0 < clear.low < clear.value < clear.high
    assert statistic_interval(difference(noise), sessions, samples=50)[:3] == (0, 0, 0)


def test_what_says_nothing_has_no_bounds():
    assert mean_interval(np.array([1.0, 0.5]), ["same", "same"])[1:3] == (-np.inf, np.inf)
    assert statistic_interval(lambda rows: float("nan"), np.arange(10), samples=20)[1:3] == (-np.inf, np.inf)


def test_draws_without_a_buyer_say_nothing_of_the_auc_and_are_left_out():
    """Of 12 sessions 2 buy: one draw in nine ((10 / 12) ** 12) holds no buyer, and its AUC is NaN."""
    labels, scores = np.arange(12) < 2, np.array([0.9, 0.4, *np.linspace(0, 0.8, 10)])
    drawn = []

    def statistic(rows):
        drawn.append(auc(labels[rows], scores[rows]))
        return drawn[-1]

    interval = statistic_interval(statistic, np.arange(12), samples=300)
    lost = np.isnan(drawn[:300])
    assert 0 < lost.sum() < 150
    assert interval.value == pytest.approx((10 + 5) / 20)
    assert interval[1:3] == pytest.approx(np.quantile(np.array(drawn[:300])[~lost], [0.025, 0.975]))


def test_nothing_and_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="at least one prediction"):
        mean_interval(np.array([]), np.array([]))
    with pytest.raises(ValueError, match="2, 3, 2 given"):
        paired_interval(np.zeros(2), np.zeros(3), np.zeros(2))
