"""A load generator in its own process: so many clients, each with one connection, one request after the other.

``python benchmarks/_load.py '{"port": 8080, "path": "/invocations", "bodies": FILE, "clients": 8, "seconds": 3}'``
prints one JSON object. Loopback only, bounded in clients and time. Sockets by hand: it leaves the cores to the server.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

LARGEST = {"clients": 256, "seconds": 900.0}
WARM_UP_SHARE = 0.2


@dataclass
class Tally:
    """Latencies in ms of requests that began after the warm-up, and what went wrong."""

    latencies: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)

    def fail(self, what: str) -> None:
        self.failures[what] = self.failures.get(what, 0) + 1


async def client(port: int, messages: list[bytes], offset: int, begin: float, end: float, tally: Tally) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    turn = cycle(messages[offset:] + messages[:offset])
    try:
        while (sent := time.perf_counter()) < end:
            writer.write(next(turn))
            head = await reader.readuntil(b"\r\n\r\n")
            place = head.index(b"content-length: ") + 16
            await reader.readexactly(int(head[place : head.index(b"\r", place)]))
            if head[9:12] != b"200":
                tally.fail(head[9:12].decode())
            elif sent >= begin:
                tally.latencies.append((time.perf_counter() - sent) * 1000)
    except (OSError, asyncio.IncompleteReadError) as error:
        tally.fail(type(error).__name__)
    finally:
        writer.close()


async def load(port: int, path: str, bodies: list[bytes], clients: int, seconds: float) -> dict[str, object]:
    """Return requests per second and percentiles of the latency, warm-up left out."""
    clients, seconds = min(clients, LARGEST["clients"]), min(seconds, LARGEST["seconds"])
    heads = [f"POST {path} HTTP/1.1\r\nHost: load\r\nContent-Length: {len(body)}\r\n\r\n".encode() for body in bodies]
    messages = [head + body for head, body in zip(heads, bodies, strict=True)]
    tally, start = Tally(), time.perf_counter()
    begin, end = start + WARM_UP_SHARE * seconds, start + seconds
    step = max(1, len(messages) // clients)
    await asyncio.gather(
        *(client(port, messages, (number * step) % len(messages), begin, end, tally) for number in range(clients))
    )
    ranked = sorted(tally.latencies) or [float("nan")]
    at = {f"p{p}": round(ranked[min(len(ranked) - 1, len(ranked) * p // 100)], 2) for p in (50, 90, 99)}
    rate = len(tally.latencies) / (time.perf_counter() - begin)
    used = time.process_time() / max(1, len(tally.latencies)) * 1000 * (1 - WARM_UP_SHARE)
    return {"clients": clients, "per_s": round(rate, 1), **at, "client_cpu_ms": used, "failures": tally.failures}


def main() -> None:
    asked = json.loads(sys.argv[1])
    bodies = Path(asked.pop("bodies")).read_bytes().splitlines()
    print(json.dumps(asyncio.run(load(bodies=bodies, **asked))))


if __name__ == "__main__":
    main()
