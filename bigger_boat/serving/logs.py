"""Logs as one JSON object per line, on standard error.

Belongs here: their form. Does not belong here: what is logged of a request (``guard.py``: no session, no product).
"""

import logging
import sys
from datetime import UTC, datetime

import orjson

_QUIET = ("tensorflow", "absl", "uvicorn.error")
"""They say at length when they start and stop; warnings of theirs are worth a line."""


class JsonFormatter(logging.Formatter):
    """``time``, ``level``, ``logger``, ``event``, and the fields that came as ``extra={"fields": {...}}``."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def log_as_json(level: int = logging.INFO) -> None:
    """Let every logger of this process write JSON to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Where a line was logged, and in which thread, is not said: finding it out takes longer than writing the line.
    logging._srcfile = None  # type: ignore[attr-defined]  (as the library's documentation advises)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
