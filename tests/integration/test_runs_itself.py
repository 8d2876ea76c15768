"""With the web UI up, nobody has to ask: corrected days are made again, and the models trained again and deployed."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from web_ui import WebUI, web_ui
from whole_shop import LAST_DAY, copy_shop, make_source

from bigger_boat.data.landing import land

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
def test_corrected_days_are_made_and_models_trained_by_the_sensors(snapshot: Path, tmp_path: Path):
    shop = copy_shop(snapshot, tmp_path / "shop")
    before = {name: shop.current(name) for name in ("intent", "recommendation")}
    week = (LAST_DAY - timedelta(days=6), LAST_DAY)
    source = make_source(tmp_path / "corrected", 7_000, 7, 400)
    settings = {"BIGGER_BOAT_SIZE": "quick", "BIGGER_BOAT_PORT": str(shop.settings.port)}
    with web_ui(shop.root, **settings) as ui:
        land(source, shop.root / "landing", replace=week, now=datetime.now(UTC))
        ui.wait(lambda: ended(runs_by_sensor(ui).get("retraining_sensor", [])))
        runs = runs_by_sensor(ui)
    assert [run["status"] for run in runs["arrival_sensor"]] == ["SUCCESS"] * len(runs["arrival_sensor"])
    made = {(run[FIRST], run[LAST]) for run in runs["arrival_sensor"] if FIRST in run}
    assert made == {((week[0] - timedelta(days=1)).isoformat(), week[1].isoformat())}
    [training] = runs["retraining_sensor"]
    assert "changed days since" in training[REASON]
    assert training["status"] == "SUCCESS", training
    assert {name: shop.current(name) for name in before}.items().isdisjoint(before.items())
    assert shop.plan().empty
    assert date.fromisoformat(training[REASON].split("since ")[1][:10]) == LAST_DAY
    shop.instance.dispose()
