"""Which days a backfill may name, and where it goes on."""

from datetime import date

import dagster as dg
import pytest

from bigger_boat.automation.backfills import Begun, days_of
from bigger_boat.errors import SettingsError

PARTITIONS = dg.DailyPartitionsDefinition("2026-10-01", end_date="2026-10-05")
DAYS = ["2026-10-02", "2026-10-03"]


def test_days_of_the_graph():
    assert days_of(date(2026, 10, 2), date(2026, 10, 3), PARTITIONS) == DAYS
    assert days_of(date(2026, 10, 4), date(2026, 10, 4), PARTITIONS) == ["2026-10-04"]


@pytest.mark.parametrize(
    ("first", "last", "sentence"),
    [
        (date(2026, 9, 30), date(2026, 10, 2), "2026-09-30 is no day of the graph, whose days are 2026-10-01 to"),
        (date(2026, 10, 4), date(2026, 10, 5), "2026-10-05 is no day of the graph"),
        (date(2026, 10, 3), date(2026, 10, 2), "The last day 2026-10-02 is before the first, 2026-10-03"),
    ],
)  # fmt: skip
def test_other_days(first, last, sentence):
    with pytest.raises(SettingsError, match=sentence):
        days_of(first, last, PARTITIONS)


def test_one_that_ended_well_begins_again(tmp_path):
    begun = Begun(tmp_path, DAYS, "+sessions")
    assert begun.since is None
    with begun.noted():
        assert Begun(tmp_path, DAYS, "+sessions").since
    assert Begun(tmp_path, DAYS, "+sessions").since is None


def test_one_that_failed_goes_on_and_only_itself(tmp_path):
    with pytest.raises(RuntimeError), Begun(tmp_path, DAYS, "+sessions").noted():
        raise RuntimeError
    first = Begun(tmp_path, DAYS, "+sessions").since
    assert first
    assert Begun(tmp_path, DAYS, "+cart_sessions").since is None
    assert Begun(tmp_path, DAYS[:1], "+sessions").since is None
    with pytest.raises(RuntimeError), Begun(tmp_path, DAYS, "+sessions").noted():
        raise RuntimeError
    assert Begun(tmp_path, DAYS, "+sessions").since == first
    with pytest.raises(RuntimeError), Begun(tmp_path, DAYS, "+sessions").noted(anew=True):
        raise RuntimeError
    assert Begun(tmp_path, DAYS, "+sessions").since > first
