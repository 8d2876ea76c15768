"""The population stability index, computed by hand."""

import numpy as np
import pytest

from bigger_boat.data.drift import drift, grouped


def test_by_hand():
    """Shares .5/.3/.2 become .3/.3/.4: (.3-.5) ln .6 + 0 + (.4-.2) ln 2 = .1022 + .1386 = .2408, less 2 * 2e-6."""
    found = drift("actions", {"a": 500_000, "b": 300_000, "c": 200_000}, {"a": 300_000, "b": 300_000, "c": 400_000})
    assert found.psi == pytest.approx(0.240794 - 2 * 2e-6, abs=1e-6)
    assert (found.largest, found.then, found.now) == ("c", 0.2, 0.4)


def test_it_is_symmetric():
    then, now = {"a": 70, "b": 30}, {"a": 40, "b": 60}
    assert drift("x", then, now).psi == pytest.approx(drift("x", now, then).psi)


def test_a_category_that_is_new_counts_and_stays_finite():
    """(.0001-.5) ln .0002 is about 4.258 for the one that vanished, and the same for the one that came."""
    found = drift("x", {"a": 500_000, "b": 500_000}, {"a": 500_000, "new": 500_000})
    assert found.psi == pytest.approx(2 * 0.4999 * np.log(5_000), abs=1e-4)
    assert {found.largest} <= {"b", "new"}


@pytest.mark.parametrize(("then", "now"), [({}, {"a": 1}), ({"a": 1}, {}), ({"a": 0}, {"a": 5}), ({}, {})])
def test_an_empty_window_tells_nothing(then, now):
    assert drift("x", then, now).psi == 0


def test_what_small_samples_make_by_chance_is_taken_off():
    """Of two samples of one distribution, the mean is near 0, and near (7 - 1) * 2 / 500 if nothing is taken off."""
    generator = np.random.default_rng(1)
    shares = np.array([0.3, 0.2, 0.15, 0.15, 0.1, 0.06, 0.04])
    found = []
    for _ in range(200):
        then, now = (dict(zip("abcdefg", generator.multinomial(500, shares), strict=True)) for _ in range(2))
        found.append(drift("x", then, now).psi)
    assert np.mean(found) < 0.012
    assert max(found) < 0.1


def test_the_rest_is_one_category():
    assert grouped({"a": 3, "b": 2, "c": 1}, {"a"}) == {"a": 3, "others": 3}
    assert grouped({"a": 3}, {"a", "gone"}) == {"a": 3, "others": 0}
