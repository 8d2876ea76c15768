"""``explain``: where an answer came from."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from bigger_boat.cli.app import app
from bigger_boat.cli.process import prepare_process
from bigger_boat.data.prediction_files import LOG_TABLES
from bigger_boat.settings import Settings

if TYPE_CHECKING:
    from bigger_boat.automation.lineage import DatasetUsed, LandedDay, MadeBy

SHOWN_FILES = 6
SHOWN_PRODUCTS = 5


@app.command(epilog="Example: bigger-boat explain 5f1c9a0b2d3e4f60-17")
def explain(
    request_id: Annotated[str, typer.Argument(help="the request_id of an answer, or its header X-Request-Id")],
    as_json: Annotated[bool, typer.Option("--json", help="all of it, with every file, as JSON")] = False,
) -> None:
    """Say where an answer came from: model version, runs, data sets, days and landed files."""
    told = lineage(prepare_process(), request_id)
    if as_json:
        print(json.dumps(told, indent=2, default=_plain))
    else:
        _show(told)


def lineage(settings: Settings, request_id: str) -> dict[str, Any]:
    """Return what is known of an answer: ``answers``, ``bundle``, ``runs``, ``datasets`` and ``landed`` (by day)."""
    import dagster as dg

    from bigger_boat.automation import lineage as known
    from bigger_boat.profiles import endpoint_host, prediction_logs

    answers = known.find(prediction_logs(settings), settings.data_dir / LOG_TABLES, request_id)
    newest = answers[0]
    described = endpoint_host(settings).description(newest["endpoint"], newest["version"])
    if described is None:
        return {"answers": answers, "bundle": None, "runs": [], "datasets": [], "landed": []}
    with dg.DagsterInstance.get() as instance:
        runs = known.runs_of(instance, described)
        datasets = known.datasets_of(instance, settings.data_dir, described)
    window = described["info"].get("refit") or described["info"].get("training_window") or {}
    made = min((used.created_at for used in datasets if used.created_at), default=described["created_at"])
    landed: list[LandedDay] = []
    if window:
        at = datetime.fromisoformat(made)
        landed = known.landed_days(settings.landing_dir, window["first"], window["last"], at)
    return {"answers": answers, "bundle": described, "runs": runs, "datasets": datasets, "landed": landed}


def _show(told: dict[str, Any]) -> None:
    from bigger_boat.console import heading, say

    heading("Answer")
    for answer in told["answers"]:
        say(f"  {escape(_answer(answer))}")
    heading("Version")
    bundle = told["bundle"]
    if bundle is None:
        first = told["answers"][0]
        say(f"  Nothing is kept of version {first['version']} of {first['endpoint']}: it was never published here.")
        return
    for line in _version(bundle):
        say(f"  {escape(line)}")
    heading("Runs")
    for made in told["runs"]:
        say(f"  {_time(made.at)}  {made.run_id}  {escape(made.what)}")
    if not told["runs"]:
        say("  This instance's history has none: they were made elsewhere, or their records were deleted.")
    heading("Data")
    for used in told["datasets"]:
        say(f"  {escape(_dataset(used))}")
    heading("Landed files")
    _show_files(told["landed"])


def _answer(answer: dict[str, Any]) -> str:
    when = _time(answer["answered_at_ms"] / 1000)
    who = f"session {answer['session_id']}" if answer.get("session_id") else "a session without an id"
    asked = f"{when}, {answer['endpoint']} for {who}, {answer['events']} events, {answer['latency_ms']:.1f} ms:"
    if answer.get("purchase_probability") is not None:
        return f"{asked} purchase probability {answer['purchase_probability']:.4f}"
    skus = answer["recommended"]
    more = f" and {len(skus) - SHOWN_PRODUCTS} more" if len(skus) > SHOWN_PRODUCTS else ""
    opening = " (what sessions begin with)" if answer["fallback"] else ""
    return f"{asked} {', '.join(skus[:SHOWN_PRODUCTS])}{more}{opening}"


def _version(bundle: dict[str, Any]) -> list[str]:
    info, window = bundle["info"], bundle["info"].get("refit") or {}
    scores = info.get("metrics", {}).get("validation", {}).get(info.get("configuration", {}).get("kind", ""), {})
    shown = {name: scores.get("pooled", scores).get(name) for name in ("hit_rate", "mrr", "auc", "pr_auc", "log_loss")}
    return [
        f"{bundle['name']} {bundle['version']}: {bundle['kind']}, made {bundle['created_at']}",
        f"by commit {info.get('git_commit') or 'unknown'}",
        f"fitted on {window.get('first', '?')} to {window.get('last', '?')} ({window.get('count', '?')} days)",
        "on validation: " + (", ".join(f"{n} {v:.4f}" for n, v in shown.items() if v is not None) or "nothing told"),
        f"chosen because: {(info.get('candidate') or {}).get('reason', 'not told')}",
        *(f"gate: {check['name']}: {check['description']}" for check in info.get("gate") or ()),
        f"configuration: {json.dumps(info.get('configuration'), sort_keys=True)}",
    ]


def _dataset(used: "DatasetUsed") -> str:
    name = f"{used.name} {used.version}"
    gone = "" if used.is_there else " (removed since)"
    days = "{count} days, {first} to {last}; ".format(**used.days) if used.days else ""
    made = f"data version {used.data_version or 'unknown'}, made {used.created_at or 'at an unknown time'}"
    return f"{name}{gone}: {days}{made}"


def _show_files(landed: "list[LandedDay]") -> None:
    from bigger_boat.console import say

    files = [file for day in landed for file in day.files]
    changed = sum(day.changed for day in landed)
    since = f"; {changed} days have other files in force now" if changed else ""
    say(f"  {len(files)} files of {len(landed)} days, as they stood then{since}:")
    for file in files[:SHOWN_FILES]:
        say(f"  {escape(file)}")
    if len(files) > SHOWN_FILES:
        say(f"  and {len(files) - SHOWN_FILES} more (--json names all)")


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _plain(value: "MadeBy | DatasetUsed | LandedDay") -> dict[str, Any]:
    return asdict(value)
