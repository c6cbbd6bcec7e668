"""Asks the front that runs, over its unix socket, and prints the answer; knows where the socket is, decides nothing."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

STATE_FOLDER = Path("/run/model-server")
SOCKET_NAME = "front.sock"
PACKET_BYTES = 64 * 1024
CONFLICT = 6

Json = dict[str, Any]


def ask(state: Path, question: Json, *, hold: bool = False) -> int:
    """Ask the front that runs, print its answer and return the exit code; `hold` the connection while stdin is open."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
        channel.settimeout(10.0)
        try:
            channel.connect(str(state / SOCKET_NAME))
            channel.send(json.dumps(question).encode())
            answer = channel.recv(PACKET_BYTES).decode()
        except OSError as error:
            say(f"no front answers at {state / SOCKET_NAME}: {error}")
            return 5
        if not answer:
            say(f"the front at {state / SOCKET_NAME} ended, or closed the connection, before it answered")
            return 5
        print(answer, flush=True)
        document = json.loads(answer)
        if "conflict" in document or "error" in document:
            return CONFLICT
        if hold:
            while os.read(0, 4096):
                pass
    return 0


def say(text: str) -> None:
    """Log one line."""
    print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), text, file=sys.stderr, flush=True)
