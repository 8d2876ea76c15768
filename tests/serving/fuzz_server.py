"""Rude requests by the thousand, each answered in time and never with a fault of the server's.

``python tests/serving/fuzz_server.py --requests 100000 [--seed 1]`` starts a server of its own over two tiny models.
Requests are made from valid ones by changing what may be changed: bytes, values, types, sizes, methods, paths, headers.
"""

import argparse
import asyncio
import json
import random
import string
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # also as a command

PATHS = (
    "/endpoints/recommendation/invocations",
    "/endpoints/intent/invocations",
    "/v1/recommendations",
    "/v1/intent",
    "/predict",
    "/collect",
    "/health",
    "/live",
    "/ready",
    "/ping",
    "/metrics",
    "/openapi.json",
)
METHODS = ("POST", "POST", "POST", "POST", "GET", "GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
DECLINED = {400, 404, 405, 408, 413, 431}
CLIENTS = 24
PATIENCE_S = 30.0
IMPATIENT = {"head_timeout_s": 1.0, "body_timeout_s": 1.0}
"""A fuzzed request that promises more than it sends should not hold its client for long."""

ODD_TEXTS = [
    "",
    " ",
    "\x00",
    "sku-é",
    "🛒" * 9,
    "\ud800",
    "a" * 300,
    "NaN",
    "null",
    "../../etc/passwd",
    "'; drop--",
    "%00",
]
ODD_NUMBERS = [0, -1, 1, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**400, 1.5, 1e308, -0.0, 1e-320]


class Maker:
    """Makes requests, always the same ones for a seed."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def request(self) -> tuple[str, bytes]:
        """Return the method and the bytes of a request."""
        pick = self.random
        method = pick.choice(METHODS)
        path = pick.choice(PATHS) if pick.random() < 0.9 else "/" + self.text().encode("utf-8", "replace").hex()
        if pick.random() < 0.7:
            posts = "invocations" in path or path.startswith("/v1") or (path == "/collect" and pick.random() < 0.8)
            method = "POST" if posts else "GET"
        query = self.query() if path in ("/predict", "/collect") or pick.random() < 0.05 else ""
        valid = self.collected if path == "/collect" else self.valid
        body = self.body(valid) if method not in ("GET", "HEAD") or pick.random() < 0.1 else b""
        lines = [f"{method} {path}{query} HTTP/1.1", "Host: fuzz", f"Content-Length: {len(body)}", *self.headers()]
        message = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body
        return method, self.flip(message) if pick.random() < 0.03 else message

    def body(self, valid: Callable[[], Any]) -> bytes:
        pick = self.random
        kind = pick.random()
        if kind < 0.5:
            payload = valid()
            for _ in range(pick.choice((0, 1, 1, 2))):
                self.spoil(payload)
            return json.dumps(payload).encode()
        if kind < 0.7:
            return json.dumps(self.value(4)).encode()
        if kind < 0.8:
            return self.flip(json.dumps(valid()).encode())
        if kind < 0.9:
            whole = json.dumps(valid()).encode()
            return whole[: pick.randrange(len(whole))]
        deep = pick.randrange(1, 3_000)
        return pick.choice([b"[" * deep, b'{"sessions":' * 50, b'{"sessions":[[' + b'"a",' * deep, pick.randbytes(200)])

    def valid(self) -> dict[str, Any]:
        pick = self.random
        skus = ["sku-a", "sku-b", "sku-é", "nobody"]
        sessions = []
        for _ in range(pick.choice((0, 1, 1, 1, 2, 5))):
            events: list[Any] = []
            for _ in range(pick.choice((0, 1, 2, 5, 20))):
                full = {"action": pick.choice(("view", "detail", "add", "hover")), "sku": pick.choice(skus)}
                events.append(pick.choice([pick.choice(skus), full, {**full, "timestamp_ms": pick.randrange(2**41)}]))
            sessions.append(events)
        request: dict[str, Any] = {"sessions": sessions}
        if pick.random() < 0.5:
            request["k"] = pick.choice((1, 3, 5, 20, 1_000))
        if pick.random() < 0.3:
            request["exclude_seen"] = pick.random() < 0.5
        if pick.random() < 0.2:
            request["session_ids"] = [f"s{row}" for row in range(len(sessions))]
        if pick.random() < 0.2:
            request["at_ms"] = pick.choice([1_700_000_000_000, [1_700_000_000_000] * len(sessions)])
        return request

    def collected(self) -> Any:
        pick = self.random
        events = []
        for _ in range(pick.choice((1, 1, 2, 5))):
            event: dict[str, Any] = {"event_id": f"e{pick.randrange(1_000)}", "session_id": f"s{pick.randrange(9)}"}
            kind = pick.choice(("pageview", "event_product", "search"))
            more = {
                "pageview": {"hashed_url": pick.choice(("u1", "é"))},
                "event_product": {"product_action": pick.choice(("detail", "add")), "product_sku_hash": "sku-a"},
                "search": {"clicked_skus_hash": ["sku-a"], "query_vector": [pick.random()] * 50},
            }
            events.append({**event, "event_type": kind, **more[kind]})
        return events[0] if len(events) == 1 else events

    def spoil(self, payload: Any) -> None:
        """Change one value, somewhere."""
        pick = self.random
        while True:
            places = list(payload) if isinstance(payload, dict) else list(range(len(payload)))
            if not places:
                return
            place = pick.choice(places)
            if isinstance(payload[place], dict | list) and payload[place] and pick.random() < 0.7:
                payload = payload[place]
                continue
            payload[place] = self.value(2)
            return

    def value(self, depth: int) -> Any:
        pick = self.random
        kind = pick.randrange(7 if depth else 5)
        if kind == 5:
            return [self.value(depth - 1) for _ in range(pick.randrange(4))]
        if kind == 6:
            names = ("sessions", "action", "sku", "timestamp_ms", "k", self.text())
            return {pick.choice(names): self.value(depth - 1) for _ in range(pick.randrange(4))}
        return (None, pick.random() < 0.5, self.text(), pick.choice(ODD_NUMBERS), pick.uniform(-1e6, 1e6))[kind]

    def text(self) -> str:
        pick = self.random
        if pick.random() < 0.5:
            return pick.choice(ODD_TEXTS)
        return "".join(pick.choices(string.printable, k=pick.randrange(12)))

    def query(self) -> str:
        pick = self.random
        tokens = [pick.choice(("view", "add", "start", "sku-a", "%C3%A9", "%ff", "&", "=", "+", "%")) for _ in range(5)]
        names = ("x", "session", "k", "exclude_seen", "other", "event_id", "session_id", "timestamp_ms", "query_vector")
        values = (",".join(tokens), "20", "true", "0", "-1", "9" * 30, "")
        return "?" + "&".join(f"{pick.choice(names)}={pick.choice(values)}" for _ in range(pick.randrange(4)))

    def headers(self) -> list[str]:
        pick = self.random
        names = ("X-Request-Id", "Origin", "Accept-Encoding", "Content-Type", "Authorization", "X-Api-Key", "Expect")
        values = ("shop-1", "a b", "https://shop.example", "*", "gzip", "100-continue", "é", "x" * 400)
        return [f"{pick.choice(names)}: {pick.choice(values)}" for _ in range(pick.choice((0, 0, 1, 3)))]

    def flip(self, message: bytes) -> bytes:
        changed = bytearray(message)
        for _ in range(self.random.randrange(1, 4)):
            changed[self.random.randrange(len(changed))] = self.random.randrange(256)
        return bytes(changed)


class Fuzzing:
    """Sends and judges. ``faults`` are what must not happen."""

    def __init__(self, port: int):
        self.port = port
        self.statuses: Counter[int] = Counter()
        self.faults: list[str] = []

    async def run(self, requests: int, seed: int) -> None:
        share = -(-requests // CLIENTS)
        await asyncio.gather(*(self._client(share, seed * 1_000 + number) for number in range(CLIENTS)))

    async def _client(self, requests: int, seed: int) -> None:
        maker, streams = Maker(seed), None
        for _ in range(requests):
            method, message = maker.request()
            streams = streams or await asyncio.open_connection("127.0.0.1", self.port)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    stays = await self._ask(*streams, method, message)
            except TimeoutError:
                self._fault("no answer in time", message)
                stays = False
            except (OSError, asyncio.IncompleteReadError):
                self._fault("closed without an answer", message)
                stays = False
            if not stays:
                streams[1].close()
                streams = None
        if streams:
            streams[1].close()

    async def _ask(self, reader: Any, writer: Any, method: str, message: bytes) -> bool:
        """Send one request, judge its answer; return whether the connection can be used again."""
        writer.write(message)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        while head.startswith("HTTP/1.1 100"):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = head.split("\r\n")
        status = int(lines[0].split()[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
        bare = method == "HEAD" or status == 204
        content = b"" if bare else await reader.readexactly(int(headers["content-length"]))
        self._judge(status, headers, content, bare, message)
        clean = message.startswith(method.encode()) and b"Content-Length" in message
        return clean and status not in (400, 408, 413, 431) and headers.get("connection") != "close"

    def _judge(self, status: int, headers: dict[str, str], content: bytes, bare: bool, message: bytes) -> None:
        self.statuses[status] += 1
        if status in (429, 503) and "retry-after" in headers:
            return
        if status not in DECLINED and status not in (200, 204):
            self._fault(f"status {status}", message)
        elif status in DECLINED and not bare:
            try:
                error = json.loads(content)["error"]
                assert set(error) == {"code", "message"}
            except Exception:
                self._fault(f"status {status} without an error of the contract: {content[:100]!r}", message)

    def _fault(self, what: str, message: bytes) -> None:
        self.faults.append(f"{what}: {message[:300]!r}")


def main() -> None:
    from tiny_models import serve_tiny_models

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serve_tiny_models(Path(folder), guards=IMPATIENT) as server:
        fuzzing = Fuzzing(server.port)
        before = server.memory_mib()
        asyncio.run(fuzzing.run(asked.requests, asked.seed))
        told = {"answers": dict(fuzzing.statuses), "faults": fuzzing.faults[:10], "memory_mib": server.memory_mib()}
        print(json.dumps({**told, "memory_mib_before": before}))
    sys.exit(1 if fuzzing.faults else 0)


if __name__ == "__main__":
    main()
