"""An answer that was given two retrainings ago, and whose version was swept since, is explained to its landed files."""

import json
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "data"))  # importlib mode puts no test folder on the path

from prediction_lines import line, write_log

from bigger_boat.cli.explain import _show, lineage
from bigger_boat.console import console
from bigger_boat.data.landing import land
from bigger_boat.data.simulator import simulate
from bigger_boat.errors import DatasetError
from bigger_boat.ml.bundle import Bundle, write_bundle
from bigger_boat.resources.local_endpoint_host import LocalEndpointHost
from bigger_boat.resources.retention import sweep
from bigger_boat.resources.storage import LocalStorage
from bigger_boat.settings import Settings

DAY = "2026-11-20"
LAST = date(2026, 11, 12)
FIRST = LAST - timedelta(days=4)
WINDOW = {"first": FIRST.isoformat(), "last": LAST.isoformat(), "count": 5}


def materialize(instance: dg.DagsterInstance, asset: str, data_version: str, **metadata: str) -> str:
    """Make an asset of this name with this data version in a run of its own; return the run."""

    @dg.asset(name=asset)
    def made() -> dg.MaterializeResult:
        return dg.MaterializeResult(data_version=dg.DataVersion(data_version), metadata=metadata)

    return dg.materialize([made], instance=instance).run_id


class Retrained:
    """A shop with days landed, and versions of the recommender trained on them, published and swept."""

    def __init__(self, root: Path, instance: dg.DagsterInstance):
        self.settings = Settings(_env_file=None, data_dir=root / "data", keep_versions=1)
        self.instance = instance
        self.host = LocalEndpointHost(endpoints_dir=str(self.settings.endpoints_dir), keep_versions=1)
        simulate(root / "shop", sessions=300, days=5, products=50, seed=1, end_date=LAST)
        self.landed_at = datetime.now(UTC)
        land(root / "shop", self.settings.landing_dir, now=self.landed_at)
        self.root, self.runs = root, {}

    def train(self, number: int) -> Bundle:
        """Record a data set, a candidate and a champion as a retraining does, and publish the champion."""
        dataset, candidate = f"dataset-{number}", f"candidate-{number}"
        folder = self.settings.data_dir / "datasets" / "recommendation_dataset" / dataset
        folder.mkdir(parents=True)
        made = self.landed_at + timedelta(minutes=number)
        told = {"created_at": made.isoformat(), "days": WINDOW, "inputs": {f"sessions/{FIRST}": "abc"}}
        (folder / "dataset.json").write_text(json.dumps(told))
        address = f"datasets/recommendation_dataset/{dataset}"
        runs = [materialize(self.instance, "recommendation_dataset", f"content-{number}", address=address)]
        runs.append(materialize(self.instance, "knn_recommender", candidate))
        info = {
            "refit": WINDOW,
            "git_commit": f"commit-{number}",
            "data_versions": {"recommendation_dataset": dataset},
            "configuration": {"kind": "knn"},
            "metrics": {"validation": {"knn": {"mrr": 0.25, "hit_rate": 0.5}}},
            "candidate": {"version": candidate, "asset": "knn_recommender", "reason": "It is better."},
            "gate": [{"name": "beats_popularity", "passed": True, "description": "0.25 against 0.1", "value": 0.15}],
        }

        def export(target: Path) -> None:
            target.mkdir()
            (target / "saved_model.pb").write_text(f"model {number}")

        golden = [{"request": {"sessions": [[]]}, "predictions": []}]
        root = self.settings.data_dir / "bundles" / "recommendation_champion"
        bundle = write_bundle(root, name="recommendation", kind="tiny", export=export, golden=golden, info=info)
        runs.append(materialize(self.instance, "recommendation_champion", bundle.version))
        assert self.host.publish("recommendation", bundle.directory).state == "waiting"
        runs.append(materialize(self.instance, "recommendation_endpoint", bundle.version))
        self.runs[bundle.version] = runs
        return bundle


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_INSTANCE_DIR", str(tmp_path / "dagster"))
    with dg.DagsterInstance.get() as instance:
        yield Retrained(tmp_path, instance)


def test_an_answer_given_before_the_last_two_retrainings(shop):
    bundle = shop.train(1)
    log = write_log(shop.settings.predictions_dir, DAY, line("r-1", version=bundle.version, session_id="s-1"))
    for number in (2, 3, 4):
        shop.train(number)
    folder = shop.settings.endpoints_dir / "recommendation" / "versions" / bundle.version
    assert not folder.exists(), "swept: one version is kept beside the one that serves"
    swept = sweep(LocalStorage(base_dir=str(shop.settings.data_dir)), shop.host, keep=1)
    assert "datasets/recommendation_dataset/dataset-1" in swept.addresses
    again = shop.root / "shop-again"
    simulate(again, sessions=300, days=1, products=50, seed=2, end_date=FIRST)
    land(again, shop.settings.landing_dir, replace=(FIRST, FIRST), now=shop.landed_at + timedelta(hours=1))

    told = lineage(shop.settings, "r-1")

    [answer] = told["answers"]
    assert (answer["session_id"], answer["file"]) == ("s-1", f"recommendation/{log.name}")
    assert told["bundle"]["version"] == bundle.version
    assert told["bundle"]["info"]["git_commit"] == "commit-1"
    what = ["trained the candidate (knn_recommender)", "fitted it again on all days (recommendation_champion)"]
    what.append("published it (recommendation_endpoint)")
    assert [(made.what, made.run_id) for made in told["runs"]] == list(
        zip(what, shop.runs[bundle.version][1:], strict=True)
    )
    [used] = told["datasets"]
    assert (used.version, used.data_version, used.days, used.is_there) == ("dataset-1", "content-1", WINDOW, False)
    assert [day.day for day in told["landed"]] == [(FIRST + timedelta(days=n)).isoformat() for n in range(5)]
    assert [day.changed for day in told["landed"]] == [True, False, False, False, False]
    assert [day.version for day in told["landed"]] == [1, 1, 1, 1, 1], "as they stood then"
    files = [file for day in told["landed"] for file in day.files]
    assert all((shop.settings.landing_dir / file).is_file() for file in files)
    assert {file.split("/")[0] for file in files} == {"browsing", "search"}
    with console.capture() as said:
        _show(told)
    for words in (bundle.version, "by commit commit-1", "mrr 0.2500", "It is better.", "0.25 against 0.1", "content-1"):
        assert words in said.get()
    assert "1 days have other files in force now" in said.get()
    json.dumps(told, default=vars)


def test_an_answer_whose_lines_were_swept_is_found_in_its_days_table(shop):
    import polars as pl
    from prediction_lines import frame

    bundle = shop.train(1)
    table = shop.settings.data_dir / "monitoring" / "prediction_log" / f"date={DAY}.parquet"
    table.parent.mkdir(parents=True)
    frame(line("r-1", version=bundle.version), line("r-2")).write_parquet(table)
    assert pl.read_parquet(table).height == 2
    assert lineage(shop.settings, "r-1")["bundle"]["version"] == bundle.version


def test_a_data_set_that_was_removed_leaves_its_record(shop):
    import shutil

    bundle = shop.train(1)
    write_log(shop.settings.predictions_dir, DAY, line("r-1", version=bundle.version))
    shutil.rmtree(shop.settings.data_dir / "datasets")
    [used] = lineage(shop.settings, "r-1")["datasets"]
    assert (used.data_version, used.is_there, used.created_at != "") == ("content-1", False, True)


def test_an_unknown_id_is_told_what_is_kept_and_since_when(shop, capsys):
    with pytest.raises(DatasetError, match="No answer with the id 'r-9' is in the log: it holds no answers yet"):
        lineage(shop.settings, "r-9")
    write_log(shop.settings.predictions_dir, DAY, line("r-1"))
    write_log(shop.settings.predictions_dir, "2026-11-23", line("r-2"))
    with pytest.raises(DatasetError, match=f"it holds answers of 2 days, {DAY} to 2026-11-23"):
        lineage(shop.settings, "r-9")
    _show(lineage(shop.settings, "r-1"))
    assert "Nothing is kept of version v1 of recommendation" in capsys.readouterr().out
