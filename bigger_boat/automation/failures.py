"""When a run fails: one message per cause, with what still serves and where to look."""

import dagster as dg

from bigger_boat.assets.serving_events import serving_event
from bigger_boat.automation.jobs import DEFAULT_STATUS, REASON_TAG, interval_s
from bigger_boat.automation.runner import command_of, failures_of
from bigger_boat.data.vocabulary import ENDPOINTS
from bigger_boat.resources.alerts import Alert, Alerts
from bigger_boat.settings import get_settings

WILL_RETRY_TAG = "dagster/will_retry"


def alert_of(instance: dg.DagsterInstance, run: dg.DagsterRun, ui_url: str) -> Alert | None:
    """Return what to tell of a failed run; None where a retry follows, or where a person watches it (command line)."""
    if command_of(run) is not None or run.tags.get(WILL_RETRY_TAG) == "true":
        return None
    failures, refused = failures_of(instance, run.run_id)
    steps_by_cause: dict[str, list[str]] = {}
    for step, sentence in failures:
        steps_by_cause.setdefault(sentence, []).append(step)
    causes = [f"{', '.join(steps)}: {sentence}" for sentence, steps in steps_by_cause.items()]
    what = "A new version was refused" if refused else "A run failed"
    many = f", for {len(causes)} reasons" if len(causes) > 1 else ""
    reason = [f"Asked for because: {run.tags[REASON_TAG]}"] if REASON_TAG in run.tags else []
    return Alert(
        title=f"{what}{many}." if causes else f"{what}: its process ended without a word.",
        lines=(*causes, *reason, *_serving(instance)),
        link=f"{ui_url}/runs/{run.run_id}",
    )


def _serving(instance: dg.DagsterInstance) -> list[str]:
    events = {model: serving_event(instance, model) for model in ENDPOINTS}
    lines = [f"{model}: version {event.version} goes on serving." for model, event in events.items() if event]
    return lines or ["Nothing serves yet."]


@dg.run_failure_sensor(
    name="failure_sensor",
    minimum_interval_seconds=interval_s(30),
    default_status=DEFAULT_STATUS,
    description="Tells the log, and a webhook where one is set, why a run failed and what still serves.",
)
def failure_sensor(context: dg.RunFailureSensorContext, alerts: Alerts) -> dg.SkipReason:
    """One message per failed run that nobody watches."""
    ui_url = f"http://127.0.0.1:{get_settings().ui_port}"
    alert = alert_of(context.instance, context.dagster_run, ui_url)
    return dg.SkipReason(alerts.send(alert) if alert else "Somebody watches this run, or it is tried again.")
