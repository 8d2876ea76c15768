"""With the web UI up, nobody has to ask: corrected days are made again, and the models trained again and deployed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from played_shop import webhook
from web_ui import WebUI, web_ui
from whole_shop import LAST_DAY, copy_shop, make_source

from bigger_boat.data.landing import land
from bigger_boat.data.landing_index import files_for

REASON, FIRST, LAST = "bigger_boat/reason", "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def runs_by_sensor(ui: WebUI) -> dict[str, list[dict[str, str]]]:
    """Return the runs that sensors asked for: per sensor, oldest first, their tags, id and status."""
    found: dict[str, list[dict[str, str]]] = {}
    for run in reversed(ui.runs()):
        tags = {tag["key"]: tag["value"] for tag in run["tags"]}
        if sensor := tags.get("dagster/sensor_name"):
            found.setdefault(sensor, []).append({**tags, "id": run["runId"], "status": run["status"]})
    return found


def ended(runs: list[dict[str, str]]) -> list[str]:
    return [run["status"] for run in runs if run["status"] in ("SUCCESS", "FAILURE", "CANCELED")]


@pytest.mark.slow
def test_days_are_made_models_trained_and_failures_told_without_anybody_asking(snapshot: Path, tmp_path: Path):
    shop = copy_shop(snapshot, tmp_path / "shop")
    before = {name: shop.current(name) for name in ("intent", "recommendation")}
    week = (LAST_DAY - timedelta(days=6), LAST_DAY)
    source = make_source(tmp_path / "corrected", 7_000, 7, 400)
    with webhook() as (address, told):
        settings = {"BIGGER_BOAT_SIZE": "quick", "BIGGER_BOAT_ALERT_WEBHOOK": address}
        with web_ui(shop.root, BIGGER_BOAT_PORT=str(shop.settings.port), **settings) as ui:
            land(source, shop.root / "landing", replace=week, now=datetime.now(UTC))
            ui.wait(lambda: ended(runs_by_sensor(ui).get("retraining_sensor", [])))
            runs = runs_by_sensor(ui)
            plan = shop.plan()
            [lost] = files_for(shop.root / "landing", "browsing", "2026-10-03")
            lost.unlink()
            assert ui.end_of(ui.launch(["raw/browsing_train"], "2026-10-03")) == "FAILURE"
            ui.wait(lambda: told)
    assert [run["status"] for run in runs["arrival_sensor"]] == ["SUCCESS"] * len(runs["arrival_sensor"])
    made = {(run[FIRST], run[LAST]) for run in runs["arrival_sensor"] if FIRST in run}
    assert made == {((week[0] - timedelta(days=1)).isoformat(), week[1].isoformat())}
    [training] = runs["retraining_sensor"]
    assert training["status"] == "SUCCESS", training
    assert f"0 new and 8 changed days since {LAST_DAY} (7 are enough)" in training[REASON]
    after = {name: shop.current(name) for name in before}
    assert after.items().isdisjoint(before.items())
    assert plan.empty, plan.reasons
    [text] = told
    assert text.startswith("A run failed.\nraw__browsing_train: A landed file cannot be loaded")
    assert f"intent: version {after['intent']} goes on serving." in text
    shop.instance.dispose()
