"""Life of the server process: listening, the public socket, signals, drain; knows no model.

Two uvicorn servers run over one application. The private one answers from the start, on a port of its own,
for probes and checks. The public one accepts from a socket that the parent opened and shares between
processes: which process accepts from it is the traffic decision, so promotion restarts nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from . import logs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .app import App, Receive, Scope, Send

# How long a connection that carries no request yet may stay when the server closes: the time that a request
# takes from a client's socket to here, with room to spare.
_LINGER_SECONDS = 1.0


@dataclass(frozen=True)
class Life:
    """What the process was started with."""

    listener: socket.socket
    public_fd: int | None
    ready_file: Path | None
    drain_seconds: float


class DrainingServer(uvicorn.Server):
    """A uvicorn server that leaves signals alone and closes without failing a request."""

    def __init__(self, app: App, drain_seconds: float) -> None:
        self._app = app
        self.draining = False
        self.opened = asyncio.Event()
        self.closed = asyncio.Event()
        self._linger = min(_LINGER_SECONDS, drain_seconds / 2)
        super().__init__(
            uvicorn.Config(
                self._answer,
                interface="asgi3",
                http="httptools",
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                # Longer than clients keep theirs: who closes first races with the other's next request.
                timeout_keep_alive=75,
                timeout_graceful_shutdown=max(1, round(drain_seconds - self._linger)),
            )
        )

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_last(message: Any) -> None:
            if self.draining and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, send_last)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process: two servers can't both own them."""
        yield

    def close(self) -> None:
        """Begin to end: from here on every answer asks its client to go elsewhere."""
        self.draining = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept."""
        await super().startup(sockets)
        self.opened.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to accept, let accepted connections finish, then let uvicorn close what is left."""
        for server in self.servers:
            server.close()
        self.closed.set()
        # uvicorn would close a connection that carries no request at once, and fail a request on its way.
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._linger
        await asyncio.sleep(0.02)
        while any(map(_is_idle, self.server_state.connections)) and loop.time() < deadline:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)


def _is_idle(connection: Any) -> bool:
    return connection.cycle is None or bool(connection.cycle.response_complete)


async def serve(app: App, life: Life) -> None:
    """Serve until SIGTERM; SIGUSR1 starts and SIGUSR2 stops the public side."""
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        loop.add_signal_handler(number, signals.put_nowait, number)
    private = DrainingServer(app, life.drain_seconds)
    tasks = [asyncio.create_task(private.serve([life.listener]))]
    await private.opened.wait()
    port = life.listener.getsockname()[1]
    _publish(life, port, public=False)
    public: DrainingServer | None = None
    while (number := await signals.get()) not in (signal.SIGTERM, signal.SIGINT):
        if number is signal.SIGUSR1 and public is None and life.public_fd is not None:
            public = DrainingServer(app, life.drain_seconds)
            # A copy of the descriptor each time: closing one side must not end the next.
            shared = socket.socket(fileno=os.dup(life.public_fd))
            shared.setblocking(False)
            tasks.append(asyncio.create_task(public.serve([shared])))
            await public.opened.wait()
            _publish(life, port, public=True)
        elif number is signal.SIGUSR2 and public is not None:
            public.close()
            await public.closed.wait()
            public = None
            _publish(life, port, public=False)
    app.draining = True
    logs.event("draining")
    if life.public_fd is not None:
        os.close(life.public_fd)
    for server in filter(None, (private, public)):
        server.close()
    await asyncio.gather(*tasks)
    app.pool.shutdown()
    logs.event("ended")


def _publish(life: Life, port: int, *, public: bool) -> None:
    logs.event("serving", port=port, public=public)
    if life.ready_file is None:
        return
    temporary = life.ready_file.with_name(f"{life.ready_file.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"pid": os.getpid(), "port": port, "public": public}), encoding="utf-8")
    temporary.replace(life.ready_file)
