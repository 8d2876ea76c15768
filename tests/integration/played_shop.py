"""A shop that is played: the real web UI, daemon and server over a data folder, on a clock that is put forward.

Belongs here: what a test does to the shop (send, ask, wait) and reads of it. The story is told by the test.
"""

import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
from web_ui import OVER, WebUI, web_ui
from whole_shop import Shop, cli

from bigger_boat import clock
from bigger_boat.automation.arrival import unfinished_runs
from bigger_boat.automation.jobs import REASON_TAG
from bigger_boat.automation.retraining import session_days
from bigger_boat.automation.runner import failures_of
from bigger_boat.data.landing import land
from bigger_boat.data.simulator import YOOCHOOSE_LIKE, simulate
from bigger_boat.data.vocabulary import ENDPOINTS
from bigger_boat.demo import SELECTION
from bigger_boat.serving import client
from bigger_boat.serving.collect_landing import land_now
from bigger_boat.serving.published import read_server
from bigger_boat.serving.replay import Replayed, Speed, events_of, replay

FIRST = date(2026, 10, 1)
EAGER = tuple((*row[:2], 3 * row[2], *row[3:]) for row in YOOCHOOSE_LIKE.idle_actions)
DENSE = replace(YOOCHOOSE_LIKE, looking_only=0.05, idle_actions=EAGER)
"""Few who only look, and many carts: there is much to learn from few sessions."""
ASKED_SESSIONS, ASKED_EVENTS = 60, 2
SENT_AGAIN = 50


def day(number: int) -> str:
    """Return the date of the story's day, 1 for the first."""
    return (FIRST + timedelta(days=number - 1)).isoformat()


def moment(number: int, clock_time: str) -> datetime:
    return datetime.combine(date.fromisoformat(day(number)), time.fromisoformat(clock_time), UTC)


class Department:
    """A part of the shop with products and shoppers of its own, from one day of the story to another."""

    def __init__(self, folder: Path, first: int, last: int, seed: int, sessions_a_day: int = 200):
        days = last - first + 1
        end = date.fromisoformat(day(last))
        shop = {"sessions": sessions_a_day * days, "days": days, "products": 150, "parameters": DENSE}
        simulate(folder / "source", **shop, seed=seed, end_date=end)
        land(folder / "source", folder / "landed", now=moment(last + 1, "00:00"))
        self.catalogue, self.landed = folder / "source/sku_to_content.csv", folder / "landed"

    def events(self, first: int, last: int) -> list[dict[str, Any]]:
        return list(events_of(self.landed, [day(number) for number in range(first, last + 1)]))

    def begun_sessions(self, number: int) -> dict[str, list[dict[str, Any]]]:
        """Return how some sessions of a day began, as the endpoint is asked: those that look at more later."""
        sessions: dict[str, list[dict[str, Any]]] = {}
        for event in self.events(number, number):
            if event.get("product_action") in ("detail", "add"):
                sessions.setdefault(event["session_id"], []).append(
                    {
                        "action": event["product_action"],
                        "sku": event["product_sku_hash"],
                        "timestamp_ms": event["timestamp_ms"],
                    }
                )
        longer = {name: events[:ASKED_EVENTS] for name, events in sessions.items() if len(events) > ASKED_EVENTS}
        assert len(longer) >= ASKED_SESSIONS
        return dict(list(longer.items())[:ASKED_SESSIONS])


@dataclass
class PlayedShop:
    """``sent``: every event by id, whatever the server said; ``told``: what it said, in events."""

    shop: Shop
    ui: WebUI
    clock_file: Path
    alerts: list[str]
    sent: dict[str, dict[str, Any]] = field(default_factory=dict)
    told: Replayed = field(default_factory=Replayed)

    @property
    def url(self) -> str:
        return read_server(self.shop.settings.endpoints_dir)["url"]

    def it_is(self, number: int, clock_time: str) -> None:
        """Put everybody's clock to a time of the story."""
        clock.set_to(self.clock_file, moment(number, clock_time))

    def collect(self, events: Iterable[dict[str, Any]]) -> None:
        """Send events to ``/collect``, and some of the last ones again; then have them landed, as ``replay`` does."""
        again = list(self.sent.values())[-SENT_AGAIN:]
        fresh = list(events)
        replay(self.url, iter([*fresh, *again]), Speed(), self.told)
        self.sent |= {event["event_id"]: event for event in fresh}
        land_now(self.shop.settings.collect_dir, self.shop.settings.landing_dir)

    def ask(self, name: str, sessions: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
        """Ask an endpoint about sessions as they are so far; return its answer."""
        times = [events[-1]["timestamp_ms"] for events in sessions.values()]
        asked = {"sessions": list(sessions.values()), "session_ids": list(sessions), "at_ms": times}
        return client.post_invocations(self.url, name, asked)

    def wait_until_made(self, first: int, last: int) -> None:
        """Wait until the sessions of these days are made, and nothing runs."""
        days = {day(number) for number in range(first, last + 1)}
        self.ui.wait(lambda: days <= session_days(self.shop.instance).keys() and not self.running())

    def running(self) -> list[str]:
        return unfinished_runs(self.shop.instance, self.shop.root)

    def trainings(self) -> list[dict[str, str]]:
        """Return the runs by which the retraining sensor trained models, oldest first."""
        return [run for run in self.ui.runs_by_sensor("retraining_sensor") if "retrains" in run[REASON_TAG]]

    def wait_for_training(self, number: int) -> dict[str, str]:
        """Wait for the end of the so-manieth training; return its tags and id."""
        self.ui.wait(lambda: len([run for run in self.trainings() if run["status"] in OVER]) >= number)
        return self.trainings()[number - 1]

    def wait_to_hear(self, sensor: str, pattern: str) -> str:
        """Wait for a tick that asks for nothing and says something like ``pattern``; return its sentence."""
        return self.ui.wait(lambda: next(filter(re.compile(pattern).search, self.ui.sentences(sensor)), ""))

    def outcome(self, run_id: str) -> dict[str, "Outcome"]:
        """Return what a training came to, by endpoint."""
        reasons, _ = failures_of(self.shop.instance, run_id)
        events = self.shop.instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        made = {r.asset_key.to_user_string(): r.asset_materialization.metadata for r in events.records}
        return {name: _outcome(name, dict(reasons), made.get(f"{name}_endpoint")) for name in ENDPOINTS}

    def rows(self, query: str) -> list[tuple]:
        with duckdb.connect(str(self.shop.root / "warehouse.duckdb"), read_only=True) as connection:
            return connection.execute(query).fetchall()

    def explain(self, request_id: str) -> dict[str, Any]:
        """Return what ``bigger-boat explain --json`` says."""
        code, said = cli(self.shop.root, "explain", request_id, "--json")
        assert code == 0, said
        return json.loads(said[said.index("{") :])


@dataclass(frozen=True)
class Outcome:
    """``version``: the one that was deployed, "" where the gate refused; ``why``: the decision's sentence."""

    version: str
    why: str


def _outcome(name: str, reasons: Mapping[str, str], deployed: Mapping[str, Any] | None) -> Outcome:
    if deployed:
        return Outcome(str(deployed["version"].value), str(deployed["evidence"].value))
    return Outcome("", reasons.get(f"{name}_champion") or reasons[f"{name}_endpoint"])


@contextmanager
def played_shop(root: Path, clock_file: Path, departments: Sequence[Department]) -> Iterator[PlayedShop]:
    """Open a shop of which nothing is there but its catalogue: ``bigger-boat up`` until the block ends."""
    clock.set_to(clock_file, moment(8, "00:00"))
    for department in departments:
        land(department.catalogue, root / "landing", now=clock.utc_now())
    shop = Shop(root)
    with webhook() as (address, alerts):
        settings = {
            "BIGGER_BOAT_SIZE": "quick",
            "BIGGER_BOAT_RETRAIN": SELECTION,  # as many candidates as a first look has: there are three trainings
            "BIGGER_BOAT_MAX_WORKERS": "1",  # a run is one process: TensorFlow is imported once
            "BIGGER_BOAT_PORT": str(shop.settings.port),
            "BIGGER_BOAT_CLOCK_FILE": str(clock_file),
            "BIGGER_BOAT_COLLECT_TRUST_TIME": "true",
            "BIGGER_BOAT_ALERT_WEBHOOK": address,
        }
        with web_ui(root, **settings) as ui:
            yield PlayedShop(shop, ui, clock_file, alerts)
    shop.instance.dispose()


@contextmanager
def webhook() -> Iterator[tuple[str, list[str]]]:
    """Give the address of a server that takes messages, and the list of their texts."""
    texts: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            texts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/told", texts
        server.shutdown()
