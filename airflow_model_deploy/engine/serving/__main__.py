"""The server's command line.

Exit codes: 0 ended as asked, 2 bad arguments, 3 the servable was refused, 4 the port can't be listened on.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

from .limits import allow_connections
from .options import limits_of, parse

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve one servable; return the exit code."""
    options = parse(arguments)
    # ONNX Runtime reports its use over the network unless told otherwise before it is loaded.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if options.lifeline:
        threading.Thread(target=_end_with_parent, name="lifeline", daemon=True).start()
    # Heavy, and not needed to refuse an argument or to notice that the parent is gone.
    import uvloop

    from . import lifecycle, logs, metrics, servable, session
    from .app import App

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
    limits = limits_of(options)
    allow_connections(limits.max_connections)
    app = App(model, loaded, metrics.Metrics(model, seconds), limits)
    life = lifecycle.Life(
        listener,
        options.public_fd,
        options.ready_file,
        options.drain_seconds,
        options.front,
        options.revision or model.version,
    )
    # What is loaded stays: the collector need not walk it again with every generation.
    gc.collect()
    gc.freeze()
    uvloop.run(lifecycle.serve(app, life))
    return 0


def _end_with_parent() -> None:
    while True:
        if not os.read(0, 4096):
            break
    while True:
        # Before the handler is installed it ends the process at once, afterwards it drains: both are right. The
        # first process of a container has no way to end at once, so it is asked again.
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(main())
