"""Events through ``/collect`` become days of the warehouse by the arrival sensor alone, each day once it has ended."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from whole_shop import LAST_DAY, QUIET, Shop, cli

from bigger_boat import clock
from bigger_boat.automation import arrival
from bigger_boat.automation.forgetting import files_naming
from bigger_boat.data.landing import land
from bigger_boat.data.simulator import simulate
from bigger_boat.resources.duckdb_warehouse import DuckDBWarehouse
from bigger_boat.resources.landing_zone import LandingZone
from bigger_boat.serving.collect import CollectOptions, Collector
from bigger_boat.serving.collect_landing import land_now
from bigger_boat.serving.collected_event import judge
from bigger_boat.serving.replay import events_of
from bigger_boat.serving.spool import Spool, line_of

DAYS = 2
BATCH = 200
NOW_MS = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000)


class Story:
    """A shop whose events are collected day by day, and the arrival sensor, asked at moments of our choice."""

    def __init__(self, shop: Shop, clock_file: Path):
        self.shop, self.cursor, self.clock_file = shop, None, clock_file
        self.zone = LandingZone(path=str(shop.settings.landing_dir))
        self.repository = shop.definitions.get_repository_def()

    def collect(self, events: Iterator[dict]) -> tuple[int, int]:
        """Keep events as the server does, and have them landed; return how many were new and how many known."""
        settings = self.shop.settings
        collector = Collector(CollectOptions(settings.collect_dir, settings.landing_dir, trust_time=True))

        async def keep() -> tuple[int, int]:
            collector.start(asyncio.get_running_loop())
            fresh = known = 0
            pending = list(events)
            for start in range(0, len(pending), BATCH):
                judged = judge(pending[start : start + BATCH], NOW_MS, trust_time=True)
                assert judged.rejected == []
                more = await collector.keep(judged.kept)
                fresh, known = fresh + more[0], known + more[1]
            await asyncio.to_thread(land_now, settings.collect_dir, settings.landing_dir)
            await asyncio.to_thread(collector.close)
            return fresh, known

        return asyncio.run(keep())

    def tick(self, at: datetime) -> tuple[str, list[tuple[str, str]]]:
        """Ask the sensor; run what it asks for. Return its sentence and the ranges of days."""
        clock.set_to(self.clock_file, at)
        context = dg.build_sensor_context(
            instance=self.shop.instance,
            cursor=self.cursor,
            repository_def=self.repository,
            resources={"landing_zone": self.zone},
        )
        result = arrival.arrival_sensor(context)
        self.cursor = result.cursor
        for request in result.run_requests or ():
            run = self.shop.job.execute_in_process(
                instance=self.shop.instance,
                asset_selection=request.asset_selection,
                tags=request.tags,
                run_config=QUIET,
                raise_on_error=False,
            )
            assert run.success
        tags = [request.tags for request in result.run_requests or ()]
        ranges = [(each[arrival.RANGE_START], each[arrival.RANGE_END]) for each in tags if arrival.RANGE_START in each]
        return result.skip_reason.skip_message if result.skip_reason else "", ranges

    def rows(self, query: str) -> list[dict]:
        warehouse = DuckDBWarehouse(path=str(self.shop.settings.warehouse_path))
        with warehouse.read(query) as reader:
            return reader.read_all().to_pylist()


@pytest.mark.slow
def test_a_day_is_made_after_its_midnight_and_no_event_is_lost_or_doubled(tmp_path: Path, played_clock: Path):
    simulate(tmp_path / "source", sessions=250, days=DAYS, products=40, seed=3, end_date=LAST_DAY)
    land(tmp_path / "source", tmp_path / "source-landed", now=datetime(2026, 11, 1, tzinfo=UTC))
    land(tmp_path / "source/sku_to_content.csv", tmp_path / "shop/landing", now=datetime(2026, 10, 1, tzinfo=UTC))
    shop = Shop(tmp_path / "shop")
    story, made, sent = Story(shop, played_clock), [], []
    for day in (LAST_DAY - timedelta(days=offset) for offset in reversed(range(DAYS))):
        events = list(events_of(tmp_path / "source-landed", [day.isoformat()]))
        again = [*events[:50], *sent[-50:]]  # of the day before, too, of which the server knows nothing after a restart
        evening = datetime.combine(day, time(23, 59, 50), UTC)
        clock.set_to(played_clock, evening)
        assert sum(story.collect(iter([*events, *again]))) == len(events) + len(again)
        sent += events
        assert story.tick(evening)[1] == []
        midnight = datetime.combine(day + timedelta(days=1), time(0, 0), UTC)
        sentence, ranges = story.tick(midnight)
        assert ranges == []
        assert f"{day} " in sentence
        assert "waits until nothing has changed for 30 s" in sentence
        _, ranges = story.tick(midnight + timedelta(minutes=1))
        made.append(ranges)
        sentence, ranges = story.tick(midnight + timedelta(minutes=2))
        assert (sentence.startswith(f"Nothing new: {len(made)} day"), ranges) == (True, [])
    days = [(LAST_DAY - timedelta(days=offset)).isoformat() for offset in reversed(range(DAYS))]
    assert made == [[(max(days[0], _before(last)), last)] for last in days]
    rows = story.rows("select event_id from raw.browsing_train union all select event_id from raw.search_train")
    assert sorted(row["event_id"] for row in rows) == sorted({event["event_id"] for event in sent})
    sessions = story.rows("select distinct session_id from sessions")
    assert {row["session_id"] for row in sessions} == {event["session_id"] for event in sent}
    shop.instance.dispose()


def _before(day: str) -> str:
    return (date.fromisoformat(day) - timedelta(days=1)).isoformat()


@pytest.mark.slow
def test_forget_takes_what_was_collected_and_has_not_landed(tmp_path: Path):
    root = tmp_path / "shop"
    events = [
        {"event_id": f"e{number}", "session_id": f"shopper-{number % 2}", "event_type": "pageview"}
        for number in range(6)
    ]
    spool = Spool(root / "collect")
    for kept in judge(events, NOW_MS, trust_time=True).kept:
        spool.append(line_of(kept.line))
    spool.close()
    code, said = cli(root, "forget", "shopper-1")
    assert code == 0, said
    assert "shopper-1: 3 rows landed" in said
    landed = pl.concat(pl.read_parquet(file) for file in (root / "landing/browsing").rglob("*.parquet"))
    assert sorted(landed["event_id"]) == ["e0", "e2", "e4"]
    assert files_naming(root, ["shopper-1"]) == []
