"""The one partitions definition: days (UTC), from the first day that has landed, with an open end."""

from datetime import date, timedelta

import dagster as dg

from bigger_boat.data.landing_index import read_index
from bigger_boat.settings import Settings, get_settings

DEFAULT_START_DATE = date(2026, 1, 1)
"""Where the days begin while nothing has landed."""


def first_day(settings: Settings) -> date:
    """Return the first day: the setting, else the landing zone's first day, else a fixed default."""
    if settings.start_date:
        return settings.start_date
    landed = read_index(settings.landing_dir).first_day
    return date.fromisoformat(str(landed)) if landed else DEFAULT_START_DATE


def build_partitions(settings: Settings) -> dg.DailyPartitionsDefinition:
    """Return the daily partitions. Today is no partition until midnight UTC; a set end day is the last partition."""
    end = settings.end_date + timedelta(days=1) if settings.end_date else None
    return dg.DailyPartitionsDefinition(
        start_date=first_day(settings).isoformat(), end_date=end.isoformat() if end else None, timezone="UTC"
    )


daily_partitions = build_partitions(get_settings())
