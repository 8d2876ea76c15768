"""A day's answers as a table, held against what their sessions did: through Dagster, on a warehouse made by hand."""

import json
import sys
from pathlib import Path

import dagster as dg
import duckdb
import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "data"))  # importlib mode puts no test folder on the path

from prediction_lines import NINE, line, write_log

from bigger_boat.assets.live import _declines, online_metrics, prediction_log
from bigger_boat.ml.online_metrics import OnlineMetric
from bigger_boat.resources.duckdb_warehouse import DuckDBWarehouse
from bigger_boat.resources.local_endpoint_host import LocalEndpointHost
from bigger_boat.resources.prediction_logs import LocalPredictionLogs
from bigger_boat.resources.storage import LocalStorage

DAY, NEXT = "2026-11-20", "2026-11-21"
RANGE = {"dagster/asset_partition_range_start": DAY, "dagster/asset_partition_range_end": NEXT}


class Live:
    """A data folder with a log, a warehouse and a published version's description."""

    def __init__(self, root: Path):
        self.root, self.log = root, root / "predictions"
        self.warehouse = root / "warehouse.duckdb"
        with duckdb.connect(str(self.warehouse)) as connection:
            columns = "session_id text, event_date date, timestamp_ms bigint, action text, sku text"
            connection.execute(f"create table distinct_events ({columns})")
            connection.execute(f"create table stg_browsing ({columns}, request_id text)")
        described = root / "endpoints" / "recommendation" / "described" / "v1.json"
        described.parent.mkdir(parents=True)
        scores = {"knn": {"hit_rate": 0.9, "mrr": 0.8}}
        info = {"configuration": {"kind": "knn"}, "metrics": {"validation": scores}}
        described.write_text(json.dumps({"info": info}))

    def happen(self, session: str, minutes: float, action: str, sku: str, request: str | None = None) -> None:
        at = NINE + int(minutes * 60_000)
        with duckdb.connect(str(self.warehouse)) as connection:
            day = str(pl.Series([at]).cast(pl.Datetime("ms")).dt.date()[0])
            connection.execute("insert into distinct_events values (?, ?, ?, ?, ?)", [session, day, at, action, sku])
            rows = [session, day, at, action, sku, request]
            connection.execute("insert into stg_browsing values (?, ?, ?, ?, ?, ?)", rows)

    def make(self, asset: dg.AssetsDefinition, expect: bool = True) -> tuple[dict, dict]:
        """Materialize both days in one run; return metadata by day, and each check's result."""
        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize(
                [dg.AssetSpec("distinct_events"), prediction_log, online_metrics],
                selection=[asset],
                instance=instance,
                tags=RANGE,
                resources={
                    "warehouse": DuckDBWarehouse(path=str(self.warehouse)),
                    "storage": LocalStorage(base_dir=str(self.root)),
                    "prediction_logs": LocalPredictionLogs(path=str(self.log)),
                    "endpoint_host": LocalEndpointHost(endpoints_dir=str(self.root / "endpoints")),
                },
                raise_on_error=expect,
            )
            made = {
                each.partition: {name: value.value for name, value in each.metadata.items() if hasattr(value, "value")}
                for each in result.asset_materializations_for_node(asset.key.path[-1])
            }
            self.failure = None if result.success else result.get_step_failure_events()[0].step_failure_data
            return made, {each.check_name: each for each in result.get_asset_check_evaluations()}

    def table(self, day: str = DAY) -> pl.DataFrame:
        return pl.read_parquet(self.root / "monitoring" / "prediction_log" / f"date={day}.parquet")


@pytest.fixture
def live(tmp_path):
    return Live(tmp_path)


def test_a_day_becomes_one_table_the_same_again_and_keeps_what_was_swept(live):
    first = write_log(live.log, DAY, line("r-1"), {"dropped": 3}, name="a")
    write_log(live.log, DAY, line("r-2", version="v2"), line("i-1", purchase_probability=0.5), name="b")
    made, checks = live.make(prediction_log)
    assert (made[DAY]["summary"], made[NEXT]["summary"]) == ("3 answers", "no answers")
    assert (made[DAY]["not_logged"], made[DAY]["log_files"], made[DAY]["dagster/partition_row_count"]) == (3, 2, 3)
    assert made[DAY]["plot"].startswith("![plot]")
    assert checks["answers_come_in_time"].passed
    assert not checks["log_is_whole"].passed
    assert checks["log_is_whole"].description == f"{DAY}: 3 answers were not logged"
    rows = live.table()
    live.make(prediction_log)
    assert live.table().equals(rows)
    first.unlink()
    write_log(live.log, DAY, line("r-3"), name="c")
    made, _ = live.make(prediction_log)
    assert live.table()["request_id"].to_list() == ["r-1", "r-2", "i-1", "r-3"]
    assert (made[DAY]["rows_of_swept_files"], made[DAY]["not_logged"]) == (1, 3)


def test_checks_speak_where_there_are_enough_answers(live):
    slow = [line(f"r-{n}", latency_ms=400.0, fallback=n < 50, unknown=1) for n in range(100)]
    write_log(live.log, DAY, *slow, *(line(f"i-{n}", purchase_probability=0.5, latency_ms=900.0) for n in range(99)))
    _, checks = live.make(prediction_log)
    said = {name: check.description for name, check in checks.items() if not check.passed}
    assert said == {
        "answers_come_in_time": f"{DAY}: recommendation v1: the slowest hundredth took 400 ms",
        "few_fallbacks": f"{DAY}: recommendation v1: 50.0% were what sessions begin with",
        "few_unknown_products": f"{DAY}: recommendation v1: 100.0% of the products were unknown",
    }
    assert {check.severity for check in checks.values()} == {dg.AssetCheckSeverity.WARN}


def test_a_file_that_is_no_log_is_named_and_the_table_stays(live):
    write_log(live.log, DAY, line("r-1"))
    live.make(prediction_log)
    write_log(live.log, DAY, line("r-2", scores=[0.5]), name="odd")
    live.make(prediction_log, expect=False)
    told = live.failure.user_failure_data.description
    assert "The log file recommendation/odd.jsonl cannot be read as answers: every product has a score." in told
    assert live.table()["request_id"].to_list() == ["r-1"]


def test_online_metrics_stand_beside_the_offline_numbers(live):
    rows = [line(f"r-{n}", session_id=f"s-{n}") for n in range(40)]
    write_log(live.log, DAY, *rows, *(line(f"i-{n}", session_id=f"s-{n}", purchase_probability=0.9) for n in range(40)))
    for n in range(40):
        live.happen(f"s-{n}", 1, "detail", "a" if n < 10 else "z", f"r-{n}" if n < 5 else None)
    live.happen("s-0", 15 * 60 + 30, "purchase", "a")  # after midnight
    live.make(prediction_log)
    made, checks = live.make(online_metrics)
    assert made[DAY]["summary"] == "80 of 80 answers joined with their sessions"
    assert made[DAY]["hit_rate@20 v1"] == 0.25
    assert made[DAY]["click_through v1"] == 0.125
    assert made[DAY]["purchased v1"] == 0.025
    assert made[NEXT]["summary"] == "0 of 0 answers joined with their sessions"
    assert checks["online_is_near_offline"].description.startswith(f"{DAY}: hit_rate@20 of v1 is 0.250 [")
    assert "offline 0.900" in checks["online_is_near_offline"].description
    said = checks["probabilities_are_calibrated"].description
    assert said.startswith(f"{DAY}: v1 said 0.900 on average, and 0.025 [")
    assert (made[DAY]["declines"], made[NEXT]["declines"]) == ({}, {}), "a day alone is no decline"
    assert "| v1 | 0.9 to 1.0 | 40 | 40 | 0.9000 | 0.0250 |" in made[DAY]["calibration"]


def test_only_versions_that_still_answer_decline():
    def day(version: str, value: float) -> list[OnlineMetric]:
        return [OnlineMetric("recommendation", version, "mrr", value, value - 0.01, value + 0.01, 900, 900)]

    days = [f"2026-11-{number:02}" for number in range(1, 15)]
    history = {made: day("v1", 0.4 if made < days[7] else 0.2) for made in days}
    assert set(_declines(history)) == {"v1"}
    assert _declines({**history, "2026-11-15": day("v0", 0.4)}) == {}, "v1 was rolled back from"


def test_metrics_want_the_log_first(live):
    live.make(online_metrics, expect=False)
    assert f"There is no prediction_log of {DAY}." in live.failure.user_failure_data.description
