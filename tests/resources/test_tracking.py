"""Tracking: what reaches a service, and what happens to training when the service does not work."""

import json
import socket
import subprocess
import sys
import threading

import dagster as dg
import pytest

from bigger_boat.errors import SettingsError
from bigger_boat.profiles import build_resources, tracking
from bigger_boat.resources import tracking as tracking_module
from bigger_boat.resources.tracking import TrackedRun, Tracking, flat, ui_command
from bigger_boat.settings import PROJECT_DIR, Settings


class Recorder:
    """A tracker that writes down what it is told; ``faults`` names methods that fail."""

    def __init__(self, *faults: str):
        self.calls, self.faults, self.threads = [], faults, set()

    def start(self, *told):
        self._note("start", *told)

    def log(self, *told):
        self._note("log", *told)

    def finish(self, *told):
        self._note("finish", *told)

    def _note(self, what, *told):
        self.threads.add(threading.current_thread())
        if what in self.faults:
            raise ConnectionError("the service is away\nwith details")
        self.calls.append((what, *told))


def train(run: TrackedRun) -> str:
    run.start("model", {"a": {"b": 1}}, {"commit": "abc"})
    run.log({"loss": 0.5}, 1)
    run.log({"validation": {"auc": 0.75, "name": "lstm", "undefined": float("nan"), "good": True}})
    run.tag(bundle="bundles/x/1")
    run.finish(True)
    return "a model"


def test_a_service_is_told_in_order_in_a_thread_of_its_own():
    recorder, warnings = Recorder(), []
    assert train(TrackedRun(lambda: recorder, warnings.append)) == "a model"
    assert recorder.calls == [
        ("start", "model", {"a.b": 1}, {"commit": "abc"}),
        ("log", {"loss": 0.5}, 1),
        ("log", {"validation.auc": 0.75}, None),
        ("finish", True, {"bundle": "bundles/x/1"}),
    ]
    assert warnings == []
    assert threading.current_thread() not in recorder.threads


@pytest.mark.parametrize("fault", ["make", "start", "log", "finish"])
def test_an_outage_is_one_warning(fault):
    def make():
        if fault == "make":
            raise ImportError("No module named 'wandb'")
        return Recorder(fault)

    warnings = []
    assert train(TrackedRun(make, warnings.append)) == "a model"
    assert len(warnings) == 1
    assert "training goes on without" in warnings[0]
    assert ("No module named 'wandb'" if fault == "make" else "ConnectionError: the service is away") in warnings[0]
    assert "details" not in warnings[0]


def test_a_service_that_hangs_is_not_waited_for():
    answer, warnings = threading.Event(), []

    class Hangs(Recorder):
        def start(self, *_told):
            answer.wait(60)

    assert train(TrackedRun(Hangs, warnings.append, patience_s=0.05)) == "a model"
    answer.set()
    assert warnings == ["Tracking did not answer within 0.05 s; training goes on without."]


def test_a_training_that_fails_is_recorded_as_failed(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(Tracking, "_make", lambda _self: recorder)
    with pytest.raises(ValueError, match="no data"), Tracking(kind="mlflow").run("model", {}):
        raise ValueError("no data")
    assert recorder.calls[-1] == ("finish", False, {})


def test_names_are_dotted_and_lists_become_text():
    assert flat({"model": {"units": 8, "shares": (0.1, 0.2)}, "cuts": [{"auc": 0.5}, {"auc": 0.6}]}) == {
        "model.units": 8,
        "model.shares": "[0.1, 0.2]",
        "cuts.0.auc": 0.5,
        "cuts.1.auc": 0.6,
    }


@dg.asset
def a_model(tracking: Tracking) -> None:
    with tracking.run("a_model", {"model": {"units": 8}}, {"git_commit": "abc", "data.intent_dataset": "v1"}) as run:
        for epoch in (1, 2):
            run.log({"loss": 1 / epoch}, epoch)
        run.log({"validation": {"lstm": {"auc": 0.8}, "hit_rate@20": 0.5}})
        run.tag(bundle="bundles/a_model/1")


@pytest.mark.parametrize(
    ("given", "is_recorded"),
    [
        ({}, True),
        ({"step_worker": True}, False),
        ({"step_worker": True, "tracking_uri": "https://mlflow.example"}, True),
    ],
)
def test_a_job_says_that_its_own_disk_keeps_no_record(given, is_recorded, tmp_path, monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(Tracking, "_make", lambda _self: recorder)
    settings = Settings(_env_file=None, data_dir=tmp_path, tracking="mlflow", **given)
    with dg.DagsterInstance.ephemeral() as instance:
        made = dg.materialize([a_model], resources={"tracking": tracking(settings)}, instance=instance)
        told = [entry.user_message for entry in instance.all_logs(made.run_id)]
    assert made.success
    assert bool(recorder.calls) == is_recorded
    assert any("not recorded" in text and "TrackingUri" in text for text in told) != is_recorded


def test_mlflow_keeps_parameters_epochs_results_and_where_the_bundle_is(tmp_path, monkeypatch):
    settings = Settings(_env_file=None, data_dir=tmp_path, tracking="mlflow")
    monkeypatch.setattr(tracking_module, "PATIENCE_S", 600.0)
    assert dg.materialize([a_model], resources={"tracking": build_resources(settings)["tracking"]}).success
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    [run] = client.search_runs([client.get_experiment_by_name("bigger-boat").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "a_model"
    assert run.data.params == {"model.units": "8"}
    told = {"git_commit": "abc", "data.intent_dataset": "v1", "bundle": "bundles/a_model/1", "asset": "a_model"}
    assert told.items() <= run.data.tags.items()
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")] == [(1, 1.0), (2, 0.5)]
    assert run.data.metrics["validation.lstm.auc"] == 0.8
    assert run.data.metrics["validation.hit_rate_20"] == 0.5
    assert ui_command(settings, 5001)[1:] == [
        *("-m", "mlflow", "ui", "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow/mlflow.db"),
        *("--host", "127.0.0.1", "--port", "5001"),
    ]


def test_mlflow_that_is_away_costs_a_warning(tmp_path, monkeypatch, capfd):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = Tracking(kind="mlflow", uri=f"http://127.0.0.1:{port}", folder=str(tmp_path))
    assert dg.materialize([a_model], resources={"tracking": away}).success
    assert "Tracking failed, training goes on without" in capfd.readouterr().err


def test_the_web_ui_of_another_service_is_named(tmp_path):
    for values, hint in (
        ({"tracking": "off"}, "mlflow"),
        ({"tracking_uri": "http://mlflow:5000"}, "http://mlflow:5000"),
    ):
        with pytest.raises(SettingsError) as error:
            ui_command(Settings(_env_file=None, data_dir=tmp_path, **{"tracking": "mlflow", **values}), 5000)
        assert hint in error.value.hint


OFF = """
import json, sys
from bigger_boat.resources.tracking import Tracking
with Tracking(kind="off").run("a_model", {"units": 8}) as run:
    run.log({"loss": 1.0}, 1)
print("ANSWER" + json.dumps(sorted({"mlflow", "wandb", "bigger_boat.resources.tracking_mlflow"} & set(sys.modules))))
"""


def test_off_imports_nothing_of_any_service():
    run = subprocess.run([sys.executable, "-c", OFF], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout.split("ANSWER")[1]) == []


def test_weights_and_biases_keeps_a_run_offline(tmp_path):
    """Its file is protobuf records; names and values that were told stand in it as text."""
    settings = Settings(_env_file=None, data_dir=tmp_path, tracking="wandb", tracking_uri="offline")
    assert dg.materialize([a_model], resources={"tracking": build_resources(settings)["tracking"]}).success
    import wandb

    wandb.teardown()
    [record] = tmp_path.glob("wandb/wandb/offline-run-*/*.wandb")
    content = record.read_bytes()
    for told in (b"a_model", b"model.units", b"tag.data.intent_dataset", b"loss", b"bundles/a_model/1", b"epoch"):
        assert told in content


def test_the_service_that_the_docs_add_works_as_printed(tmp_path, monkeypatch):
    page = (PROJECT_DIR / "docs" / "experiments.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    (tmp_path / "tracking_lines.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(tracking_module.TRACKERS, "lines", "tracking_lines:LinesTracker")
    with Tracking(kind="lines", folder=str(tmp_path / "lines")).run("model", {"units": 8}, {"git_commit": "a"}) as run:
        run.log({"loss": 0.5}, 1)
        run.tag(bundle="b")
    assert [json.loads(line) for line in (tmp_path / "lines" / "runs.jsonl").read_text().splitlines()] == [
        {"start": "model", "parameters": {"units": 8}, "tags": {"git_commit": "a"}},
        {"metrics": {"loss": 0.5}, "step": 1},
        {"success": True, "tags": {"bundle": "b"}},
    ]
