"""The drift report over a warehouse whose numbers are known."""

from datetime import date, timedelta

import dagster as dg
import duckdb
import polars as pl
import pytest

from bigger_boat.assets.monitoring import GAPS_S, LENGTHS, _bucket, _names, drift_report
from bigger_boat.data.vocabulary import ACTIONS
from bigger_boat.resources.duckdb_warehouse import DuckDBWarehouse

FIRST = date(2026, 11, 1)
WINDOW = {"first": "2026-11-01", "last": "2026-11-10", "count": 10}


def make_sessions(path, days: int, changed_from: int, changed: str = "") -> None:
    """A hundred sessions a day; from a day on, ``changed`` says what is another: nothing, lengths or products."""
    sessions, events = [], []
    for number in range(days):
        day, moved = FIRST + timedelta(days=number), number >= changed_from
        for session in range(100):
            count = 40 if moved and changed == "lengths" and session < 50 else 3
            actions = {f"{action}_count": count if action == "view" else 0 for action in ACTIONS}
            sessions.append({"session_date": day, "event_count": count, "duration_s": 10.0 * (count - 1), **actions})
            sku = f"sku-{session % 10}" + ("-new" if moved and changed == "products" else "")
            events += [{"event_date": day, "sku": sku}, {"event_date": day, "sku": ""}]
    frames = {"sessions": pl.DataFrame(sessions), "distinct_events": pl.DataFrame(events)}
    with duckdb.connect(path) as connection:
        for name, frame in frames.items():
            connection.register("rows", frame.to_arrow())
            connection.execute(f"create table {name} as select * from rows")


def report(path, serving: bool = True, intent_until: str = WINDOW["last"]) -> dict:
    with dg.DagsterInstance.ephemeral() as instance:
        if serving:
            for endpoint, last in (("intent_endpoint", intent_until), ("recommendation_endpoint", WINDOW["last"])):
                metadata = {"window": {**WINDOW, "last": last}, "version": "v1"}
                instance.report_runless_asset_event(dg.AssetMaterialization(endpoint, metadata=metadata))
        sessions = dg.AssetSpec("sessions")
        result = dg.materialize(
            [sessions, drift_report],
            selection=[drift_report],
            instance=instance,
            resources={"warehouse": DuckDBWarehouse(path=path)},
        )
        [made] = result.asset_materializations_for_node("drift_report")
        return {name: value.value for name, value in made.metadata.items() if hasattr(value, "value")}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ("", "no change: PSI of"),
        ("lengths", "a great change: PSI of lengths"),
        ("products", "a great change: PSI of products"),
    ],
)
def test_what_moved_is_named(tmp_path, changed, says):
    path = str(tmp_path / "warehouse.duckdb")
    make_sessions(path, 15, 10, changed)
    told = report(path)
    assert told["summary"].startswith(says)
    assert (told["measured_against"], told["measured_to"]) == ("2026-11-10", "2026-11-15")
    assert (told["largest_psi"] > 0.25) == bool(changed)
    assert told["shares"].startswith("![plot](data:image/png;base64,")
    assert "| variable | psi | says | moved_most | share_then | share_now |" in told["drift"]


def test_half_the_sessions_longer_by_hand(tmp_path):
    """All in "2 to 4", then half in "over 32": .5 ln 2 + .4999 ln 5000 = 0.3466 + 4.2577, less 1/1000 + 1/500."""
    path = str(tmp_path / "warehouse.duckdb")
    make_sessions(path, 15, 10, "lengths")
    assert report(path)["largest_psi"] == pytest.approx(0.34657 + 4.25774 - 0.003, abs=1e-3)


def test_endpoints_fitted_on_other_days_are_measured_each_against_its_own(tmp_path):
    path = str(tmp_path / "warehouse.duckdb")
    make_sessions(path, 15, 10, "lengths")
    told = report(path, intent_until="2026-11-13")
    assert told["measured_against"] == WINDOW["last"]
    # 150 of 1,300 sessions are long, then 100 of 200: .38462 (ln(.5 / .88462) and ln(.5 / .11538)), less 1/1300 + 1/200
    by_hand = 0.38462 * (0.57054 + 1.46634) - 0.00577
    by_window = {WINDOW["last"]: told["largest_psi"], "2026-11-13": pytest.approx(by_hand, abs=1e-4)}
    assert told["psi_by_window"] == by_window


def test_nothing_to_compare(tmp_path):
    path = str(tmp_path / "warehouse.duckdb")
    make_sessions(path, 10, 10)
    assert report(path)["summary"] == "No day has come since the serving models' window: nothing to compare."
    told = report(path, serving=False)
    assert told["summary"] == "No model serves yet: nothing to compare."
    assert (told["largest_psi"], told["measured_against"]) == (0.0, "")


@pytest.mark.parametrize("edges", [LENGTHS, GAPS_S])
def test_a_number_falls_into_the_bucket_that_names_it(edges):
    numbers = [0.5, *edges, *(edge + 0.5 for edge in edges)]
    with duckdb.connect() as connection:
        found = [connection.execute(f"select {_bucket(edges, repr(n))}").fetchone()[0] for n in numbers]
    names = _names(edges)
    assert found == [names[0], *names[:-1], *names[1:]]
