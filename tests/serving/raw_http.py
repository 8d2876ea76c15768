"""HTTP by hand: clients that are slow, rude or wrong."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def connection(port: int, timeout_s: float = 30.0, *, receive_bytes: int | None = None) -> Iterator[socket.socket]:
    """``receive_bytes`` makes the kernel take little of an answer that is not read."""
    with socket.socket() as raw:
        if receive_bytes:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        raw.settimeout(timeout_s)
        raw.connect(("127.0.0.1", port))
        yield raw


def post(path: str, payload: Any, **headers: str) -> bytes:
    """Return the bytes of a POST; ``_`` in a header's name stands for ``-``."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def read_answer(raw: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one answer: status, headers (lower case), body. Raises EOFError where none comes."""
    stream = raw.makefile("rb")
    first = stream.readline()
    if not first:
        raise EOFError("the connection was closed without an answer")
    headers = {}
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return int(first.split()[1]), headers, stream.read(int(headers.get("content-length", 0)))


def is_closed(raw: socket.socket) -> bool:
    """Wait until the other side closes (True) or says something (False)."""
    try:
        return raw.recv(1) == b""
    except ConnectionError:
        return True
