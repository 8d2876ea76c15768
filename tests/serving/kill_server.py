"""A server that is killed -9 again and again while events come in: nothing acknowledged is lost, nothing lands twice.

``python tests/serving/kill_server.py --kills 50 [--seed 1]`` starts servers of its own over two tiny models. Clients
send batches without a pause, each until it is acknowledged; now and then one sends an old batch again. The server is
killed at random moments: while it writes, while it seals, while its events land. After every start the endpoint must
answer with a valid version. At the end the landing zone is loaded into a warehouse and its rows are counted.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # also as a command

CLIENTS = 4
BATCH = 5
ROTATING = {"rotate_s": 0.3, "trust_time": True}
DAY_MS = 86_400_000
FIRST_MS = 1_767_225_600_000  # 2026-01-01
DAYS = 3
PATIENCE_S = 120.0
AGAIN = 0.2
"""How often a batch that was acknowledged is sent again."""


@dataclass
class Shop:
    """Clients of whichever server is up. ``acknowledged``: every event that a 2xx was given for, by id."""

    url: str = ""
    acknowledged: dict[str, dict[str, Any]] = field(default_factory=dict)
    sent_again: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def open(self, seed: int) -> None:
        """Let the clients begin."""
        for number in range(CLIENTS):
            thread = threading.Thread(target=self._shop, args=(number, random.Random(seed * 100 + number)), daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Let every client have its last batch acknowledged."""
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a client's batch was never acknowledged"

    def _shop(self, number: int, pick: random.Random) -> None:
        own: list[list[dict[str, Any]]] = []
        while not self._over.is_set():
            if own and pick.random() < AGAIN:
                batch, self.sent_again = pick.choice(own), self.sent_again + BATCH
            else:
                batch = [_event(f"c{number}-{len(own)}-{row}", pick) for row in range(BATCH)]
                own.append(batch)
            self._send(batch)
            self.acknowledged.update({event["event_id"]: event for event in batch})

    def _send(self, batch: list[dict[str, Any]]) -> None:
        from bigger_boat.errors import RequestError, ServerError
        from bigger_boat.serving import client

        body = json.dumps(batch).encode()
        while True:
            try:
                answer = client.ask(self.url, "/collect", body, timeout_s=5)
                assert answer["rejected"] == [], answer
                return
            except (RequestError, ServerError):
                time.sleep(0.02)  # it was killed, or is not up yet


def _event(event_id: str, pick: random.Random) -> dict[str, Any]:
    event = {"event_id": event_id, "session_id": f"s{pick.randrange(50)}", "event_type": "event_product"}
    time_ms = FIRST_MS + pick.randrange(DAYS * DAY_MS)
    return event | {"product_action": "add", "product_sku_hash": f"p-{event_id}", "timestamp_ms": time_ms}


def kill_often(folder: Path, kills: int, seed: int, say: Callable[[str], None] = lambda _text: None) -> dict[str, Any]:
    """Kill so often; return what was found: ``lost`` and ``doubled`` events, ``landed`` and ``acknowledged`` counts."""
    from tiny_models import Server, serve_tiny_models

    pick, shop, versions = random.Random(seed), Shop(), Counter()
    with serve_tiny_models(folder, collect=ROTATING) as first:
        shop.url, server = first.url, first
        versions.update(_versions(server.url))
        shop.open(seed)
        for number in range(kills):
            reached = len(shop.acknowledged) + pick.randrange(1, 400)
            _wait(lambda reached=reached: len(shop.acknowledged) >= reached)
            server.process.kill()
            server.process.wait(PATIENCE_S)
            server = Server("endpoints", first.directory, first.port, collect=ROTATING)
            versions.update(_versions(server.url))
            say(f"kill {number + 1} of {kills}: {len(shop.acknowledged):,} events acknowledged")
        shop.close()
        server.stop()
    return {**_compare(Path(f"{first.directory}-events"), shop, folder), "answers": dict(versions), "kills": kills}


def _versions(url: str) -> list[str]:
    """Return the versions by which both endpoints answer once the server is up."""
    from bigger_boat.serving import client

    client.wait_until_up(url)
    asked = {"sessions": [["sku-a"]]}
    answers = [client.post_invocations(url, name, asked) for name in ("recommendation", "intent")]
    assert all(answer["predictions"] for answer in answers)
    return [f"{answer['model']} {answer['version']}" for answer in answers]


def _compare(events: Path, shop: Shop, folder: Path) -> dict[str, Any]:
    """Hold what was acknowledged against the rows that a warehouse loads from the landing zone."""
    from bigger_boat.data.landing_index import files_for, read_index
    from bigger_boat.resources.duckdb_warehouse import DuckDBWarehouse
    from bigger_boat.serving.collect_landing import land_now

    landing = events / "landing"
    land_now(events / "collect", landing)
    files = {day: [str(path) for path in files_for(landing, "browsing", day)] for day in read_index(landing).days}
    warehouse = DuckDBWarehouse(path=str(folder / "warehouse.duckdb"))
    warehouse.load_days("browsing_train", files)
    query = "select event_id, session_id_hash, product_sku_hash, server_timestamp_epoch_ms from raw.browsing_train"
    with warehouse.read(query) as reader:
        rows = reader.read_all().to_pylist()
    found = Counter(row["event_id"] for row in rows)
    wanted = {
        (event["event_id"], event["session_id"], event["product_sku_hash"], event["timestamp_ms"])
        for event in shop.acknowledged.values()
    }
    return {
        "acknowledged": len(wanted),
        "sent_again": shop.sent_again,
        "landed": len(rows),
        "lost": sorted(event[0] for event in wanted - {tuple(row.values()) for row in rows}),
        "doubled": sorted(event_id for event_id, count in found.items() if count > 1),
        "files": sum(map(len, files.values())),
    }


def _wait(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "events are not acknowledged any more"
        time.sleep(0.002)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    # what a server had begun to land when it was stopped may go on for a moment
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found = kill_often(Path(folder), asked.kills, asked.seed, lambda text: print(text, flush=True))
    print(json.dumps(found))
    sys.exit(1 if found["lost"] or found["doubled"] or found["landed"] != found["acknowledged"] else 0)


if __name__ == "__main__":
    main()
