"""Life of the server process: listening, the public socket, signals, drain; knows no model.

Two uvicorn servers run over one application. The private one answers from the start, on a port of its own,
for probes and checks. The public one accepts from a socket that somebody else opened and shares between
processes: a parent whose child inherits it, or a front that hands it over. Which process accepts from it is the
traffic decision, so promotion restarts nothing.
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
from .backlog import stop_handshakes
from .frontlink import Command, FrontLink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .app import App

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
    front: Path | None = None
    revision: str = ""


class DrainingServer(uvicorn.Server):
    """A uvicorn server that leaves signals alone and closes without failing a request.

    Args:
        app: what answers.
        drain_seconds: how long the end may take.
        own: its listening socket, where no other process accepts from it.
    """

    def __init__(self, app: App, drain_seconds: float, own: socket.socket | None = None) -> None:
        self._own = own
        self.opened = asyncio.Event()
        self.closed = asyncio.Event()
        self._linger = min(_LINGER_SECONDS, drain_seconds / 2)
        super().__init__(
            uvicorn.Config(
                app,
                interface="asgi3",
                http=app.connect,
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=max(1, round(drain_seconds - self._linger)),
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process: two servers can't both own them."""
        yield

    def close(self) -> None:
        """Begin to end: from here on every answer asks its client to go elsewhere."""
        # Its connections look here.
        self.lifespan.state["draining"] = True
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept."""
        await super().startup(sockets)
        self.opened.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to accept, let accepted connections finish, then let uvicorn close what is left."""
        if self._own is not None:
            stop_handshakes(self._own)
            # The loop accepts what is in the backlog meanwhile.
            await asyncio.sleep(0.02)
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


class PublicSide:
    """What accepts from a shared socket, while it is asked to."""

    def __init__(self, app: App, drain_seconds: float) -> None:
        self._app, self._drain_seconds = app, drain_seconds
        self._server: DrainingServer | None = None
        self.name: str | None = None
        self.tasks: list[asyncio.Task[None]] = []

    async def accept(self, descriptor: int, name: str) -> None:
        """Accept from this socket, and from no other; the descriptor is closed when that ends."""
        if name == self.name:
            os.close(descriptor)
            return
        before, server = self._server, DrainingServer(self._app, self._drain_seconds)
        shared = socket.socket(fileno=descriptor)
        shared.setblocking(False)
        serving = asyncio.create_task(server.serve([shared]))
        opened = asyncio.create_task(server.opened.wait())
        await asyncio.wait([serving, opened], return_when=asyncio.FIRST_COMPLETED)
        if not opened.done():
            opened.cancel()
            shared.close()
            logs.warning("the socket can't be accepted from", error=str(serving.exception()))
            return
        self.tasks = [task for task in self.tasks if not task.done()] + [serving]
        self._server, self.name = server, name
        if before is not None:
            before.close()
            await before.closed.wait()

    async def stop(self) -> None:
        """Accept no more; what was accepted is answered."""
        if self._server is not None:
            self._server.close()
            await self._server.closed.wait()
        self._server, self.name = None, None


async def serve(app: App, life: Life) -> None:
    """Serve until SIGTERM; SIGUSR1 or the front starts the public side, SIGUSR2 or the front stops it."""
    commands: asyncio.Queue[Command] = asyncio.Queue()
    _listen_to_signals(commands, life)
    private = DrainingServer(app, life.drain_seconds, life.listener)
    ending = [asyncio.create_task(private.serve([life.listener]))]
    await private.opened.wait()
    port = life.listener.getsockname()[1]
    public = PublicSide(app, life.drain_seconds)
    link = None
    if life.front is not None:
        link = FrontLink(life.front, life.revision, app.servable.digest, commands)
        following = asyncio.create_task(link.run())

    def tell() -> None:
        _publish(life, port, public=public.name is not None)
        if link is not None:
            link.report("ready", public.name)

    tell()
    while (command := await commands.get()).what != "end":
        if command.what == "accept" and command.descriptor is not None:
            await public.accept(command.descriptor, command.name)
        else:
            await public.stop()
        tell()
    app.draining = True
    logs.event("draining")
    private.close()
    await public.stop()
    if link is not None:
        link.report("draining", None)
        following.cancel()
    if life.public_fd is not None:
        os.close(life.public_fd)
    await asyncio.gather(*ending, *public.tasks)
    app.close()
    logs.event("ended")


def _listen_to_signals(commands: asyncio.Queue[Command], life: Life) -> None:
    loop = asyncio.get_running_loop()

    def accept() -> None:
        if life.public_fd is not None:
            # A copy of the descriptor each time: closing one side must not end the next.
            commands.put_nowait(Command("accept", os.dup(life.public_fd)))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, commands.put_nowait, Command("end"))
    loop.add_signal_handler(signal.SIGUSR1, accept)
    loop.add_signal_handler(signal.SIGUSR2, commands.put_nowait, Command("stop"))


def _publish(life: Life, port: int, *, public: bool) -> None:
    logs.event("serving", port=port, public=public)
    if life.ready_file is None:
        return
    temporary = life.ready_file.with_name(f"{life.ready_file.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"pid": os.getpid(), "port": port, "public": public}), encoding="utf-8")
    temporary.replace(life.ready_file)
