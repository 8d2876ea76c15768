"""What Firehose wrote becomes landed events: judged as ``/collect`` judges them, each once, then taken away.

Belongs here: Firehose's objects and the order of steps. Does not belong here: what an event is
(``serving/collected_event.py``), each event once (``serving/collect_landing.py``), the copy and the store
(``landing_mirror.py``).

::

    STORAGE/landing/_incoming/2026/11/20/09/...     objects of Firehose: lines, packed by gzip
    STORAGE/landing/_incoming/_failed/...           what Firehose could not deliver: left to people
    STORAGE/landing/_refused/2026/11/20/09/...      lines that were refused, each with the reason

A line is ``{"received_at_ms", "request_id", "event"}``, as API Gateway makes it (``deploy/api.yaml``). An object goes
when its events are in the store's landing zone: killed anywhere, the same objects are taken again, and change nothing.
"""

import gzip
import zlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import orjson

from bigger_boat.resources.landing_mirror import LANDING, LandingMirror
from bigger_boat.serving.collected_event import Judged, judge
from bigger_boat.serving.spool import Spool, line_of

INCOMING = f"{LANDING}/_incoming"
REFUSED = f"{LANDING}/_refused"
FAILED = "_failed/"
OBJECT_DAMAGED = "object_damaged"
GZIP = b"\x1f\x8b"
SEGMENT_BYTES = 32 << 20
MOST_OBJECTS = 1_000
"""Objects that are taken at once; more wait for the next time."""


@dataclass
class Taken:
    """What became of objects, in events. ``known``: had landed; ``refused``: by reason, and put aside."""

    objects: int = 0
    events: int = 0
    known: int = 0
    refused: Counter = field(default_factory=Counter)

    @property
    def sentence(self) -> str:
        refused = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.refused.items())) or "none"
        return (
            f"{self.objects:,} objects: {self.events:,} events landed, {self.known:,} were known, refused: {refused}."
        )


class Incoming:
    """Firehose's objects in a store, and the way from there. One process at a time takes them: ``spool`` is locked."""

    def __init__(self, mirror: LandingMirror, spool: Path, *, trust_time: bool):
        self.mirror, self.store = mirror, mirror.store
        self.spool, self.trust_time = Path(spool), trust_time

    def waiting(self) -> list[str]:
        """Return the objects that wait, oldest first; not those that Firehose could not deliver."""
        return [name for name in self.store.names(INCOMING) if not name.startswith(FAILED)]

    def take(self, now: datetime) -> Taken:
        """Land what waits, and take it away.

        Raises CloudError, and ServerError where another process on this machine is at it.
        """
        from bigger_boat.serving.collect_landing import land_sealed

        self.mirror.sync()  # what other machines landed is known then
        taken, names = Taken(), self.waiting()[:MOST_OBJECTS]
        spool = Spool(self.spool)
        try:
            for name in names:
                self._judge(name, spool, taken)
        finally:
            spool.close()
        landed = land_sealed(self.spool, self.mirror.root, now)
        taken.events, taken.known = landed.events, landed.known
        taken.refused.update({"refused_by_landing": landed.rejected} if landed.rejected else {})
        self.mirror.sync()
        for name in names:
            self.store.remove(f"{INCOMING}/{name}")
        return taken

    def _judge(self, name: str, spool: Spool, taken: Taken) -> None:
        """Append an object's good events to the spool, and put its bad ones aside with their reasons."""
        content = self.store.read_bytes(f"{INCOMING}/{name}")
        taken.objects += 1
        try:
            lines = (gzip.decompress(content) if content.startswith(GZIP) else content).splitlines()
        except (EOFError, OSError, zlib.error):
            self.store.write_bytes(f"{REFUSED}/{name}", content)
            taken.refused[OBJECT_DAMAGED] += 1
            return
        judged = [_judged(line, self.trust_time) for line in lines]
        spool.append(b"".join(line_of(kept.line) for one in judged for kept in one.kept))
        if spool.size > SEGMENT_BYTES:
            spool.seal()
        refused = [
            {"reason": fault["reason"], "message": fault["message"], "line": line.decode(errors="replace")}
            for line, one in zip(lines, judged, strict=True)
            for fault in one.rejected
        ]
        if refused:
            text = "".join(orjson.dumps(one).decode() + "\n" for one in refused)
            self.store.write_text(f"{REFUSED}/{name}.jsonl", text)
        taken.refused.update(one["reason"] for one in refused)


def _judged(line: bytes, trust_time: bool) -> Judged:
    """Judge a line's event as of when API Gateway received it; one without an id has the request's."""
    try:
        said = orjson.loads(line)
        event, received_at_ms, request_id = said["event"], said["received_at_ms"], said["request_id"]
        if not isinstance(received_at_ms, int):
            raise TypeError("received_at_ms")
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = "a line holds received_at_ms, request_id and event, as deploy/api.yaml writes them"
        return Judged(rejected=[{"index": 0, "reason": "line_malformed", "message": message}])
    if isinstance(event, dict) and not event.get("event_id"):
        event = {**event, "event_id": request_id}
    return judge([event], received_at_ms, trust_time=trust_time)
