"""Log lines: one line an event on stderr, key=value, never a payload."""

from __future__ import annotations

import json
import logging
import sys
import time

_LOGGER = logging.getLogger("model_server")


class _OneLine(logging.Formatter):
    """Format every record, tracebacks included, as one line."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        parts = [f"{stamp}.{int(record.msecs):03d}Z", record.levelname.lower(), record.getMessage().strip()]
        fields: dict[str, object] = getattr(record, "fields", {})
        parts += [f"{key}={json.dumps(value, default=str)}" for key, value in fields.items()]
        if record.exc_info:
            parts.append(f"exception={json.dumps(self.formatException(record.exc_info))}")
        return " ".join(parts).replace("\n", " ")


def configure() -> None:
    """Send our events, and other libraries' warnings, to stderr as single lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    _LOGGER.setLevel(logging.INFO)


def event(name: str, **fields: object) -> None:
    """Log one event."""
    _LOGGER.info(name, extra={"fields": fields})


def warning(name: str, **fields: object) -> None:
    """Log something that an operator should look at."""
    _LOGGER.warning(name, extra={"fields": fields})
