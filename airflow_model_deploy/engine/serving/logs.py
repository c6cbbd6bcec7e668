"""Log lines: one JSON object an event on stderr, never a payload."""

from __future__ import annotations

import json
import logging
import sys
import time

_LOGGER = logging.getLogger("model_server")


class _JsonLine(logging.Formatter):
    """Format every record, tracebacks included, as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage().strip(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure() -> None:
    """Send our events, and other libraries' warnings, to stderr as single lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLine())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    _LOGGER.setLevel(logging.INFO)
    # It warns of every request that isn't HTTP: whoever sends many would fill the disk. The metrics count them.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


def event(name: str, **fields: object) -> None:
    """Log one event."""
    _LOGGER.info(name, extra={"fields": fields})


def warning(name: str, **fields: object) -> None:
    """Log something that an operator should look at."""
    _LOGGER.warning(name, extra={"fields": fields})


def failure(name: str, error: BaseException) -> None:
    """Log an error that nobody expected, and where it came from."""
    _LOGGER.error(name, exc_info=error)
