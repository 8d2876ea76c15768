"""A connection before and after a request: how many there may be, how long a head may take, who reads too slowly.

Belongs here: what only the protocol can see. Does not belong here: requests with a complete head (``guard.py``).
uvicorn by itself waits for ever for a head that never ends, and for a client that never reads.
"""

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bigger_boat.serving.guard import Guards, error_body


def guarded_protocol(guards: Guards) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol with these limits."""
    return type("GuardedProtocol", (_GuardedProtocol,), {"guards": guards})


class _GuardedProtocol(HttpToolsProtocol):
    guards: Guards
    _in_head = True
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.guards.connections and not self._close_an_idle_one():
            self._refuse(503, "overloaded", "Too many connections are open; try again in a moment.")
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._write_timer):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # it was refused
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self.guards.head_bytes:
                text = f"A head may have {self.guards.head_bytes} bytes."
                self._refuse(431, "head_too_large", text)
        elif self._head_timer is None and self.is_idle():
            self._await_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        if self._head_timer is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.guards.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        if self._write_timer:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "invalid_http", msg)

    def is_idle(self) -> bool:
        """Whether nothing is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.guards.head_timeout_s, self._give_up)

    def _give_up(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            if self.is_idle():
                self._refuse(408, "too_slow", f"No request came within {self.guards.head_timeout_s:g} seconds.")
            else:
                self.transport.abort()  # a pipelined head that never ends; the answer before it had its own time

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = error_body(code, message)
        retry = "retry-after: 1\r\n" if status == 503 else ""
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n{retry}connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _close_an_idle_one(self) -> bool:
        """Make room: a connection that is kept alive between two requests can be opened again."""
        for other in self.connections:
            if other is not self and other.timeout_keep_alive_task is not None and other.is_idle():
                other.transport.close()
                return True
        return False
