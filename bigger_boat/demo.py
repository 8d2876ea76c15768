"""The first five minutes: a shop if none has landed, the endpoint in the background, its answers, what to try next.

What belongs elsewhere: the commands themselves (``cli.py``), the graph (``definitions.py``).
"""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.markup import escape

from bigger_boat.console import heading, say
from bigger_boat.data.landing_index import read_index
from bigger_boat.errors import ServerError
from bigger_boat.resources import local_server
from bigger_boat.serving.published import was_killed
from bigger_boat.settings import PROJECT_DIR, Settings

SHOP = {"sessions": 27_000, "days": 28, "products": 2_000, "seed": 1}
"""About 200,000 events; small enough for a coffee's length, large enough to learn from."""

SELECTION = "not (lstm_recommender or prodb_recommender or hybrid_recommender)"
"""What is made unless asked otherwise: all but the three candidates that take longer to train than a first look may."""

RESTARTS, RESTARTS_WITHIN_S = 5, 600
"""How often within a while the web UI is started again when one of its processes was killed."""
LOOKED_AFTER_S, TRIED_AGAIN_S = 0.5, 30.0
"""How often ``up`` looks whether the endpoint's server was killed, and how long it waits where it does not start."""

ACTIONS = "start,view,detail,add,view,end"
SUMMARY_FILE = "summary.md"


def open_shop(settings: Settings, land: Callable[[Settings, Path], None]) -> None:
    """Simulate a shop and land it, unless something has landed."""
    heading("Shop")
    index = read_index(settings.landing_dir)
    if index.days:
        say(f"  {len(index.days)} days have landed: {index.first_day} to {index.last_day}.")
        return
    from datetime import UTC, datetime, timedelta

    from bigger_boat.data.simulator import simulate

    folder = settings.data_dir / "shop"
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    report = simulate(folder, **SHOP, end_date=yesterday)
    say(f"  Simulated {report.events:,} events of {report.sessions:,} sessions until {yesterday}, in {folder}.")
    land(settings, folder)


def start_server(settings: Settings) -> None:
    """Start the endpoint early: it warms up while the graph runs, and takes new versions without a restart."""
    heading("Endpoint")
    say(f"  {local_server.ensure_running(settings)} (in the background; stop: .venv/bin/bigger-boat serve --stop)")


def ask(settings: Settings) -> None:
    """Ask both endpoints, print the commands that ask again, and leave the numbers in a file."""
    url = local_server.wait_until_ready(settings)
    session = _example_session(settings)
    heading("Answers")
    key = local_server.api_key(settings)
    will_buy = local_server.ask(url, key, x=ACTIONS)
    say(
        f"  Will this cart be bought? [bold]{will_buy['prediction']:.1%}[/bold]   (model version {will_buy['version']})"
    )
    say(f"    curl '{url}/predict?x={ACTIONS}'")
    following = local_server.ask(url, key, session=",".join(session))
    say(f"\n  Which products come next?   (model version {following['version']})")
    for rank, sku in enumerate(following["prediction"][:5], start=1):
        say(f"    {rank}. {sku}{'  (seen in this session)' * (sku in session)}")
    say(f"    curl '{url}/predict?session={','.join(session)}'")
    path = _write_summary(settings)
    heading("Next")
    say("  make up                                  the graph in the browser, and the endpoint")
    say("  .venv/bin/bigger-boat land DIR           your own events, in the format of the SIGIR eCom 2021 challenge")
    say("  .venv/bin/bigger-boat run --size full    full-size models, and all that may recommend: LSTM, ProdB, hybrid")
    say(f"  {escape(str(path))}   the numbers of this run")


def up(settings: Settings, before_start: Callable[[], object]) -> None:
    """Run the web UI (with its daemon) until Ctrl-C, and the endpoint beside it.

    Where one of the web UI's processes is killed, the others end, too, and it is started again. ``before_start`` ends
    what is left of runs. Raises ServerError if that happens more than ``RESTARTS`` times within a while. The endpoint's
    server is started again as often as it is killed; one that somebody stopped stays so.
    """
    say(f"  Endpoint {local_server.ensure_running(settings)}")
    say(f"  Web UI   http://127.0.0.1:{settings.ui_port}  (Ctrl-C stops both)")
    command = [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(settings.ui_port)]
    command += ["-w", str(PROJECT_DIR / "workspace.yaml")]
    over = threading.Event()
    watch = threading.Thread(target=_keep_answering, args=(settings, over), daemon=True)
    watch.start()
    try:
        _keep_running(command, before_start)
    finally:
        over.set()
        watch.join()
        local_server.stop(settings.endpoints_dir)


def _keep_answering(settings: Settings, over: threading.Event) -> None:
    """Start the endpoint's server again where it was killed, until ``over``."""
    rest_s = LOOKED_AFTER_S
    while not over.wait(rest_s):
        rest_s = LOOKED_AFTER_S
        if was_killed(settings.endpoints_dir):
            try:
                say(f"  [yellow]The endpoint was killed[/yellow]; again: {local_server.ensure_running(settings)}")
            except ServerError as error:
                say(f"  [red]The endpoint does not start again:[/red] {escape(error.message)}")
                rest_s = TRIED_AGAIN_S


def _keep_running(command: list[str], before_start: Callable[[], object]) -> None:
    """Run a command until it is told to stop; where it ends by itself, start it again, a few times."""
    process: subprocess.Popen | None = None
    told: list[bool] = []
    began: list[float] = []

    def stop(*_: object) -> None:
        told.append(True)
        if process:
            process.terminate()

    signal.signal(signal.SIGTERM, stop)
    while sum(time.monotonic() - at < RESTARTS_WITHIN_S for at in began) <= RESTARTS:
        before_start()
        began.append(time.monotonic())
        process = subprocess.Popen(command, cwd=PROJECT_DIR)
        if told:  # while it was being started
            process.terminate()
        try:
            process.wait()  # its exit code is 0, whatever ended it
        except KeyboardInterrupt:  # the process got it, too
            process.wait()
            return
        if told:
            return
        say("  [yellow]The web UI ended by itself[/yellow] (one of its processes was killed?); it is started again.")
    raise ServerError("The web UI ends again and again by itself.", "The lines above say why.")


def _example_session(settings: Settings) -> list[str]:
    """Return two products that a golden session of the serving recommender looked at, one after the other."""
    for entry in _golden(settings, "recommendation"):
        for events in entry["request"]["sessions"]:
            skus = list(dict.fromkeys(event["sku"] for event in events if "sku" in event))
            if len(skus) >= 2:
                return skus[:2]
    return _golden(settings, "recommendation")[0]["predictions"][0]["skus"][:2]


def _golden(settings: Settings, name: str) -> list[dict[str, Any]]:
    return json.loads((_serving_bundle(settings, name) / "golden.json").read_text())


def _serving_bundle(settings: Settings, name: str) -> Path:
    from bigger_boat.profiles import endpoint_host

    return endpoint_host(settings).serving_bundle(name)


def _write_summary(settings: Settings) -> Path:
    """Write what serves and how good its candidate was, as Markdown."""
    index = read_index(settings.landing_dir)
    events = sum(entry.rows.get("browsing", 0) for entry in index.days.values())
    lines = ["# Bigger Boat: numbers of the last run", ""]
    lines += [f"{events:,} events of {len(index.days)} days, {index.first_day} to {index.last_day}.", ""]
    for name in ("intent", "recommendation"):
        bundle = json.loads((_serving_bundle(settings, name) / "bundle.json").read_text())
        info = bundle["info"]
        lines += [f"## {name}: {bundle['kind']} {bundle['version']}", "", info["candidate"]["reason"], ""]
        lines += [f"- {check['description']}" for check in info["gate"]]
        lines += ["", "On the validation days, the candidate beside its baselines:", ""]
        lines += [*_table(info["metrics"]["validation"]), ""]
    path = settings.data_dir / SUMMARY_FILE
    draft = path.with_suffix(".tmp")
    draft.write_text("\n".join(lines))
    draft.replace(path)
    return path


def _table(scores: dict[str, dict[str, Any]]) -> list[str]:
    rows = {name: row.get("pooled", row) for name, row in scores.items()}
    columns = [
        name
        for name in ("auc", "pr_auc", "log_loss", "calibration_error", "mrr", "hit_rate", "ndcg")
        if name in next(iter(rows.values()))
    ]
    lines = [f"| model | {' | '.join(columns)} |", "| --- |" + " --- |" * len(columns)]
    return lines + [
        f"| {name} | " + " | ".join(f"{row[column]:.4f}" for column in columns) + " |" for name, row in rows.items()
    ]
