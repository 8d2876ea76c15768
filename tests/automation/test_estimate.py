"""What a plan will take, reckoned by hand."""

import pytest

from bigger_boat.automation.estimate import Observation, Work, credits_for, duration, estimate, expected_seconds


@pytest.mark.parametrize(
    ("observed", "rows", "seconds"),
    [
        ([], 100, None),
        ([(0, 4.0)], 0, 4.0),
        ([(0, 4.0), (0, 6.0), (0, 8.0), (0, 99.0)], 0, 6.0),  # the latest three
        ([(100, 10.0)], 300, 30.0),  # in proportion
        ([(100, 10.0), (100, 14.0)], 50, 6.0),  # half of the mean
        ([(100, 10.0), (300, 20.0)], 500, 30.0),  # 5 s + 0.05 s a row
        ([(100, 10.0), (300, 20.0)], 0, 15.0),  # without rows: the mean
        ([(100, 20.0), (300, 10.0)], 500, 15.0),  # a line that falls says nothing: the mean
        ([(100, 5.0), (300, 25.0)], 200, 16.0),  # it would start at -5 s; through zero: 8,000 / 100,000 s a row
        ([(0, 3.0)], 100, 3.0),
    ],
)
def test_expected_seconds(observed, rows, seconds):
    got = expected_seconds([Observation(*each) for each in observed], rows)
    assert got == (None if seconds is None else pytest.approx(seconds))


def test_an_estimate_adds_steps_up():
    work = [
        Work("load", 200, ("raw/a",), in_warehouse=True),
        Work("around", 200),
        Work("fit", 0, ("model",)),
        Work("new", 0, ("report", "endpoint")),
    ]
    history = {
        "load": [Observation(100, 10.0)],  # 20 s
        "around": [Observation(100, 3.0)],  # 6 s
        "fit": [Observation(0, 50.0), Observation(0, 70.0)],  # 60 s
    }
    got = estimate(2, 200, work, history)
    assert (got.days, got.rows, got.seconds, got.warehouse_s) == (2, 200, pytest.approx(86.0), pytest.approx(20.0))
    assert got.unknown == ("report", "endpoint")


def test_what_may_be_jobs_is_added_up_by_queue():
    work = [Work("a", 0, ("a",), job="gpu"), Work("b", 0, ("b",), job="gpu"), Work("c", 0, ("c",), job="cpu")]
    history = {"a": [Observation(0, 600.0)], "b": [Observation(0, 1200.0)]}  # c was never measured
    assert estimate(0, 0, [*work, Work("d", 0, ("d",))], history).jobs_s == {"gpu": pytest.approx(1800.0)}


def test_what_surrounds_the_work_is_no_estimate_of_it():
    got = estimate(0, 0, [Work("fit", 0, ("model",)), Work("around")], {"around": [Observation(0, 30.0)]})
    assert (got.seconds, got.unknown) == (None, ("model",))


@pytest.mark.parametrize(
    ("size", "seconds", "credits"),
    [
        ("SMALL", 1800, 1.0),  # 2 an hour
        ("X-Small", 3600, 1.0),
        ("xsmall", 1, 1 / 60),  # a minute at least
        ("MEDIUM", 0, 0.0),
        ("2X-LARGE", 900, 8.0),  # 32 an hour
        ("X4LARGE", 450, 16.0),  # 128 an hour
        ("4X-Large", 450, 16.0),
        ("", 900, None),
        ("HUGE", 900, None),
    ],
)
def test_credits(size, seconds, credits):
    got = credits_for(size, seconds)
    assert got == (None if credits is None else pytest.approx(credits))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "5 s"), (43, "45 s"), (89, "90 s"), (91, "2 min"), (3590, "60 min"), (7500, "2 h 5 min")],
)
def test_duration(seconds, words):
    assert duration(seconds) == words
