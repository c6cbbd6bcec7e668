"""Ends a step when whoever started it is gone, however that ended: the step's standard input says so."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import Any, BinaryIO

EXIT_CODE = 70


def hold(stream: BinaryIO | None = None) -> dict[str, Any]:
    """Read the starter's first line, a JSON object of secrets, then watch the stream; its end ends this process.

    Children end first, so that no server outlives the step that tests it. The watch is a thread because a long
    computation keeps the main thread from noticing signals.
    """
    stream = stream or sys.stdin.buffer
    line = stream.readline()
    secrets = json.loads(line) if line.strip() else {}
    threading.Thread(target=_watch, args=(stream,), name="lifeline", daemon=True).start()
    return secrets if isinstance(secrets, dict) else {}


def _watch(stream: BinaryIO) -> None:
    try:
        while stream.read(1):
            pass
    finally:
        end_children()
        os._exit(EXIT_CODE)


def end_children() -> None:
    """Kill every descendant of this process."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        try:
            child.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
