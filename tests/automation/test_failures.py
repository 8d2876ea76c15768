"""What is told when a run fails, to a webhook that is a real server."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import pytest

from bigger_boat.assets.serving_events import serving_event
from bigger_boat.automation.failures import alert_of
from bigger_boat.automation.runner import PROCESS_TAG
from bigger_boat.resources import alerts as alerts_module
from bigger_boat.resources.alerts import LONGEST_TEXT, Alert, Alerts
from bigger_boat.settings import Settings

UI = "http://127.0.0.1:3000"


@dg.asset
def broken_a() -> None:
    raise dg.Failure("The disk of the warehouse is full.\nMake room, then run again.", allow_retries=False)


@dg.asset
def broken_b() -> None:
    raise dg.Failure("The disk of the warehouse is full.\nMake room, then run again.", allow_retries=False)


@dg.asset
def odd() -> None:
    raise ValueError("no number")


@dg.asset(deps=[broken_a])
def behind() -> None: ...


@dg.asset
def refusing() -> None:
    raise dg.Failure("The candidate is worse than popular products.", metadata={"refused": True}, allow_retries=False)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def failed_run(instance: dg.DagsterInstance, *assets: dg.AssetsDefinition, **tags: str) -> dg.DagsterRun:
    result = dg.materialize([*assets], instance=instance, raise_on_error=False, tags=tags)
    assert not result.success
    return instance.get_run_by_id(result.run_id)


def test_one_cause_is_told_once_however_many_steps_it_broke(instance):
    run = failed_run(instance, broken_a, broken_b, behind, odd)
    alert = alert_of(instance, run, UI)
    assert alert.title == "A run failed, for 2 reasons."
    assert sorted(alert.lines) == [
        "Nothing serves yet.",
        "broken_a, broken_b: The disk of the warehouse is full.\nMake room, then run again.",
        "odd: ValueError: no number",
    ]
    assert alert.link == f"{UI}/runs/{run.run_id}"


def test_what_goes_on_serving_and_why_the_run_was_asked_for_is_told(instance):
    instance.report_runless_asset_event(dg.AssetMaterialization("intent_endpoint", metadata={"version": "v7"}))
    run = failed_run(instance, refusing, **{"bigger_boat/reason": "intent: retrains, 8 new days."})
    alert = alert_of(instance, run, UI)
    assert alert.title == "A new version was refused."
    assert alert.lines == (
        "refusing: The candidate is worse than popular products.",
        "Asked for because: intent: retrains, 8 new days.",
        "intent: version v7 goes on serving.",
    )


def test_after_a_rollback_the_earlier_version_goes_on_serving(instance):
    report = instance.report_runless_asset_event
    report(dg.AssetMaterialization("intent_endpoint", metadata={"version": "v7"}))
    report(dg.AssetObservation("intent_endpoint", metadata={"version": "v6", "action": "rolled back"}))
    report(dg.AssetObservation("intent_endpoint", metadata={"challenger": "v8"}))
    assert serving_event(instance, "intent").version == "v6"
    report(dg.AssetMaterialization("intent_endpoint", metadata={"version": "v9"}))
    assert serving_event(instance, "intent").version == "v9"
    assert serving_event(instance, "recommendation") is None


@pytest.mark.parametrize("tags", [{PROCESS_TAG: "{}"}, {"dagster/will_retry": "true"}])
def test_nothing_is_told_of_a_run_that_a_person_watches_or_that_is_tried_again(instance, tags):
    assert alert_of(instance, failed_run(instance, odd, **tags), UI) is None


def test_a_run_whose_process_ended_without_a_word(instance):
    run = instance.create_run_for_job(
        dg.define_asset_job("j").resolve(asset_graph=dg.Definitions([odd]).resolve_asset_graph())
    )
    instance.report_run_failed(run)
    assert (
        alert_of(instance, instance.get_run_by_id(run.run_id), UI).title
        == "A run failed: its process ended without a word."
    )


def set_webhook(monkeypatch, address: str) -> None:
    settings = Settings(alert_webhook=address or None, _env_file=None)
    monkeypatch.setattr(alerts_module, "get_settings", lambda: settings)
    monkeypatch.setattr(alerts_module, "BACK_OFF_S", 0.01)


@pytest.fixture
def webhook(monkeypatch) -> Iterator[ThreadingHTTPServer]:
    """A server that answers with the statuses in ``answers``, then 200; ``got`` holds the bodies."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.server.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.answers, server.got = [], []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        set_webhook(monkeypatch, f"http://127.0.0.1:{server.server_port}/secret-token")
        yield server
        server.shutdown()


ALERT = Alert("A run failed.", ("odd: no number",), f"{UI}/runs/1")


@pytest.mark.parametrize(
    ("answers", "tries", "told"),
    [
        ([], 1, "Told the log and the webhook."),
        ([503, 429], 3, "Told the log and the webhook."),
        ([500, 500, 500], 3, "Told the log; the webhook was not told: it answered 500."),
        ([404], 1, "Told the log; the webhook was not told: it answered 404."),
    ],
)
def test_the_webhook_is_told_as_slack_reads_it(webhook, answers, tries, told):
    webhook.answers = [*answers]
    assert Alerts().send(ALERT) == told
    assert webhook.got == [{"text": f"A run failed.\nodd: no number\n{UI}/runs/1"}] * tries


def test_a_webhook_that_is_not_there_is_no_error_and_its_address_stays_secret(monkeypatch, caplog):
    set_webhook(monkeypatch, "http://127.0.0.1:9/secret-token")
    told = Alerts().send(ALERT)
    assert told == "Told the log; the webhook was not told: it cannot be reached (URLError)."
    assert "odd: no number" in caplog.text
    assert "secret-token" not in caplog.text + told


def test_without_a_webhook_the_log_is_told(monkeypatch, caplog):
    set_webhook(monkeypatch, "")
    assert Alerts().send(ALERT) == "Told the log; no webhook and no SNS topic is set."
    assert "odd: no number" in caplog.text


def test_a_message_is_no_novel():
    assert len(Alert("A run failed.", ("x" * 50_000,)).text()) == LONGEST_TEXT + len(" ...")
