"""The HTTP of ``/collect``: methods, bodies and pixels in, counts and a picture out, readable by allowed origins.

Belongs here: requests and answers. Does not belong here: keeping events (``collect.py``), judging them
(``collected_event.py``).
"""

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from bigger_boat import clock
from bigger_boat.errors import RequestError
from bigger_boat.serving.collect import Collector
from bigger_boat.serving.collected_event import Judged, event_of_query, judge, parse_events
from bigger_boat.serving.contract import format_error
from bigger_boat.serving.guard import BodyReader
from bigger_boat.serving.handler import cors_headers
from bigger_boat.serving.metrics import Metrics

PATH = "/collect"
PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
"""A transparent GIF of one pixel."""

_METHODS = "GET, POST, OPTIONS"
_PIXEL_HEADERS = {"Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "cross-origin"}
_JUDGED_HERE_BYTES = 16 * 1024
"""A larger body is judged in a thread: other requests do not wait for it."""


class CollectRoute:
    """Answers ``/collect``."""

    def __init__(self, collector: Collector, bodies: BodyReader, origins: Sequence[str], metrics: Metrics):
        self._collector = collector
        self._bodies = bodies
        self._origins = origins
        self._metrics = metrics

    async def answer(self, request: Request) -> Response:
        """Never raises for what a caller did: also an error must be readable by an allowed origin's page."""
        headers = cors_headers(request.headers, self._origins)
        try:
            if request.method == "OPTIONS":
                return Response(status_code=204, headers={**headers, "Allow": _METHODS})
            if request.method in ("GET", "HEAD"):
                return await self._pixel(request, headers)
            if request.method == "POST":
                return await self._posted(request, headers)
            error = RequestError(f"This path answers {_METHODS}.", "method_not_allowed", 405)
            headers["Allow"] = _METHODS
        except RequestError as raised:
            error = raised
        return _json(error.status, format_error(error.code, error.message), headers)

    async def _posted(self, request: Request, headers: dict[str, str]) -> Response:
        async with self._bodies.body(request) as body:
            if len(body) <= _JUDGED_HERE_BYTES:
                judged = self._judge_body(body)
            else:
                judged = await asyncio.get_running_loop().run_in_executor(None, self._judge_body, body)
        accepted, duplicates = await self._keep(judged)
        if not judged.kept:
            first = judged.rejected[0]
            text = f"None of {len(judged.rejected)} events can be kept. The first: {first['message']}."
            return _json(400, {**format_error(first["reason"], text), "rejected": judged.rejected}, headers)
        counts = {"accepted": accepted, "duplicates": duplicates}
        return _json(200, {**counts, "rejected": judged.rejected}, headers)

    async def _pixel(self, request: Request, headers: dict[str, str]) -> Response:
        if request.method == "HEAD":  # a look, not a visit
            return Response(status_code=200, media_type="image/gif", headers=headers)
        judged = self._judge([event_of_query(request.scope["query_string"])])
        await self._keep(judged)
        if judged.rejected:
            fault = judged.rejected[0]
            return _json(400, format_error(fault["reason"], f"{fault['message']}."), headers)
        return Response(PIXEL, media_type="image/gif", headers={**headers, **_PIXEL_HEADERS})

    async def _keep(self, judged: Judged) -> tuple[int, int]:
        self._metrics.count_collected("rejected", len(judged.rejected))
        if not judged.kept:
            return 0, 0
        accepted, duplicates = await self._collector.keep(judged.kept)
        self._metrics.count_collected("accepted", accepted)
        self._metrics.count_collected("duplicate", duplicates)
        return accepted, duplicates

    def _judge_body(self, body: bytes) -> Judged:
        return self._judge(parse_events(body, self._collector.options.batch_events))

    def _judge(self, events: list[Any]) -> Judged:
        return judge(events, int(clock.timestamp() * 1000), trust_time=self._collector.options.trust_time)


def _json(status: int, payload: dict[str, Any], headers: dict[str, str]) -> Response:
    return Response(orjson.dumps(payload), status, headers, media_type="application/json")
