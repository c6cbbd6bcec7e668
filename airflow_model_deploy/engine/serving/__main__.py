"""The server's command line.

Exit codes: 0 ended as asked, 2 bad arguments, 3 the servable was refused, 4 the port can't be listened on.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve one servable; return the exit code."""
    options = _parse(arguments)
    # ONNX Runtime reports its use over the network unless told otherwise before it is loaded.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if options.lifeline:
        threading.Thread(target=_end_with_parent, name="lifeline", daemon=True).start()
    # Heavy, and not needed to refuse an argument or to notice that the parent is gone.
    import uvloop

    from . import lifecycle, logs, metrics, servable, session
    from .app import MAX_BODY_BYTES, App

    logs.configure()
    started = time.monotonic()
    try:
        model = servable.load(options.servable)
        loaded = session.open_session(model, options.threads)
    except servable.ServableRefusedError as error:
        print(f"servable refused: {error}", file=sys.stderr)
        return 3
    seconds = time.monotonic() - started
    try:
        listener = socket.create_server((options.host, options.port), backlog=2048)
    except OSError as error:
        print(f"can't listen on {options.host}:{options.port}: {error}", file=sys.stderr)
        return 4
    logs.event(
        "loaded",
        model=model.name,
        version=model.version,
        digest=model.digest,
        threads=loaded.threads,
        seconds=round(seconds, 3),
    )
    app = App(model, loaded, metrics.create(model, seconds), options.max_body_bytes or MAX_BODY_BYTES)
    life = lifecycle.Life(listener, options.public_fd, options.ready_file, options.drain_seconds)
    uvloop.run(lifecycle.serve(app, life))
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="model_server", description="Serve a model over the OIP v2 protocol."
    )
    parser.add_argument("--servable", type=Path, required=True, help="folder with servable.json")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port, told by --ready-file")
    parser.add_argument(
        "--public-fd", type=int, help="inherited listening socket; SIGUSR1 accepts, SIGUSR2 stops"
    )
    parser.add_argument("--ready-file", type=Path, help="written when the server answers")
    parser.add_argument("--lifeline", action="store_true", help="end when stdin reaches its end")
    parser.add_argument("--drain-seconds", type=_positive_float, default=10.0)
    parser.add_argument("--threads", type=_positive, help="threads inside an operator")
    parser.add_argument("--max-body-bytes", type=_positive, help="default 64 MiB")
    options = parser.parse_args(arguments)
    if options.public_fd is not None:
        try:
            os.fstat(options.public_fd)
        except OSError as error:
            parser.error(f"--public-fd {options.public_fd}: {error}")
    return options


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"found {text}, wanted 1 or more")
    return value


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text}, wanted more than 0")
    return value


def _end_with_parent() -> None:
    while True:
        if not os.read(0, 4096):
            break
    # Before the handler is installed this ends the process at once, afterwards it drains: both are right.
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
