"""When a version counts as having become worse: a truth table, by hand."""

import pytest

from bigger_boat.ml.online_decline import DayValue, Decline, decline


def days(*values: float, half: float = 0.02, answers: int = 100, sessions: int = 50) -> list[DayValue]:
    return [
        DayValue(f"2026-11-{day:02}", value, value - half, value + half, answers, sessions)
        for day, value in enumerate(values, start=1)
    ]


TABLE = {
    "steady": (days(*[0.4] * 6), 0.9, (0.4, 0.4, 0.0, False, "first days")),
    "worse than at first": (days(0.4, 0.4, 0.4, 0.5, 0.3, 0.3, 0.3), None, (0.4, 0.3, 0.25, True, "first days")),
    "better": (days(0.3, 0.3, 0.3, 0.4, 0.4, 0.4), None, (0.3, 0.4, -1 / 3, False, "first days")),
    "worse by chance": (days(*[0.4] * 3, *[0.3] * 3, half=0.2), None, (0.4, 0.3, 0.25, False, "first days")),
    "worse than offline": (days(0.3, 0.3, 0.3), 0.4, (0.4, 0.3, 0.25, True, "offline number")),
    "five days, beside offline": (days(0.5, 0.5, 0.3, 0.3, 0.3), 0.4, (0.4, 0.3, 0.25, True, "offline number")),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_the_decline(case):
    seen, offline, (then, now, fall, clear, against) = TABLE[case]
    found = decline("mrr", seen, offline)
    assert found == Decline(
        "mrr", pytest.approx(then), pytest.approx(now), pytest.approx(fall), clear, against, seen[-1].day
    )


@pytest.mark.parametrize(
    ("seen", "offline"),
    [([], 0.4), (days(0.1, 0.1), 0.4), (days(0.1, 0.1, 0.1), None), (days(*[0.1] * 6, sessions=29), 0.4)],
)
def test_too_little_is_known(seen, offline):
    assert decline("mrr", seen, offline) is None


def test_a_loss_declines_by_rising():
    found = decline("log_loss", days(*[0.2] * 3, *[0.3] * 3), lower_is_better=True)
    assert (found.fall, found.clear) == (pytest.approx(0.5), True)


def test_days_weigh_by_their_answers():
    seen = days(0.4, 0.4, 0.4) + days(0.1, 0.3, 0.3, answers=50)
    seen[3] = DayValue("2026-11-04", 0.1, 0.08, 0.12, 100, 50)
    seen[4:] = [DayValue(f"2026-11-0{n}", 0.3, 0.28, 0.32, 50, 50) for n in (5, 6)]
    assert decline("mrr", seen).now == pytest.approx((100 * 0.1 + 50 * 0.3 + 50 * 0.3) / 200)
