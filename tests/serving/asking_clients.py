"""Clients in a process of their own: they ask golden requests until told to stop, and compare every answer.

``python asking_clients.py PORT PATH EXPECTED CLIENTS PAUSE_MS``. EXPECTED is a JSON file: version -> list of
{request, predictions}. Ends when standard input closes, and prints one JSON object.
"""

import asyncio
import json
import sys
from pathlib import Path

from bigger_boat.ml.golden import compare_golden


class Clients:
    def __init__(self, port: int, path: str, expected: dict[str, list[dict]], pause_s: float):
        self.port, self.path, self.expected, self.pause_s = port, path, expected, pause_s
        self.requests = [entry["request"] for entry in next(iter(expected.values()))]
        self.stopping = False
        self.answered, self.faults = 0, []
        self.versions: set[str] = set()

    async def run(self, number: int) -> None:
        turn = number
        while not self.stopping:
            try:
                await self.ask_on_one_connection(turn)
            except (OSError, asyncio.IncompleteReadError) as error:
                self.faults.append(f"{type(error).__name__}: {error}")
            turn += 1

    async def ask_on_one_connection(self, turn: int) -> None:
        """A connection is kept for 50 requests, and opened again: as many clients come and go."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for step in range(50):
                if self.stopping:
                    return
                place = (turn + step) % len(self.requests)
                body = json.dumps(self.requests[place]).encode()
                head = f"POST {self.path} HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                content = await reader.readexactly(int(answer.split("content-length: ")[1].split("\r\n")[0]))
                self.judge(answer.split()[1], json.loads(content), place)
                await asyncio.sleep(self.pause_s)
        finally:
            writer.close()

    def judge(self, status: str, answer: dict, place: int) -> None:
        self.answered += 1
        if status != "200":
            self.faults.append(f"{status}: {answer}")
            return
        self.versions.add(answer["version"])
        wanted = self.expected[answer["version"]][place]["predictions"]
        self.faults += compare_golden(wanted, answer["predictions"])


async def main() -> None:
    port, path, expected, clients, pause_ms = sys.argv[1:6]
    asking = Clients(int(port), path, json.loads(Path(expected).read_text()), float(pause_ms) / 1000)
    tasks = [asyncio.create_task(asking.run(number)) for number in range(int(clients))]
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    asking.stopping = True
    await asyncio.gather(*tasks)
    told = {"answered": asking.answered, "versions": sorted(asking.versions), "faults": asking.faults[:5]}
    print(json.dumps(told))


asyncio.run(main())
