"""A server's connection to the front that holds the public socket; knows what it is asked, not how to do it.

It reports what the server is, and puts what the front asks for into the queue that signals use too. A front
that ends and comes back is met again: the server goes on meanwhile as it was told last.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from . import logs

if TYPE_CHECKING:
    from pathlib import Path

_PACKET_BYTES = 64 * 1024
_RETRY_SECONDS = 0.2
_PROTOCOL = 1


@dataclass(frozen=True)
class Command:
    """What the server is to do next.

    Args:
        what: accept public requests, stop to accept them, or end.
        descriptor: the listening socket to accept from; whoever takes the command closes it.
        name: that socket's name.
    """

    what: Literal["accept", "stop", "end"]
    descriptor: int | None = None
    name: str = "inherited"


class FrontLink:
    """Keeps a connection to the front at `path` and forwards its wishes to `commands`."""

    def __init__(self, path: Path, revision: str, digest: str, commands: asyncio.Queue[Command]) -> None:
        self._path, self._commands = path, commands
        self._report: dict[str, Any] = {
            "protocol": _PROTOCOL,
            "revision": revision,
            "digest": digest,
            "pid": os.getpid(),
        }
        self._channel: socket.socket | None = None

    async def run(self) -> None:
        """Stay connected for ever."""
        try:
            while True:
                if self._channel is None:
                    self._connect()
                await asyncio.sleep(_RETRY_SECONDS)
        finally:
            self._disconnect()

    def report(self, state: str, public: str | None) -> None:
        """Tell the front what this server is now, and every later front likewise."""
        self._report.update(state=state, public=public)
        self._send()

    def _connect(self) -> None:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel.setblocking(False)
        try:
            channel.connect(str(self._path))
            _refuse_other_user(channel)
        except OSError as error:
            channel.close()
            if isinstance(error, PermissionError):
                logs.warning("the front was refused", error=str(error))
            return
        self._channel = channel
        asyncio.get_running_loop().add_reader(channel.fileno(), self._hear)
        logs.event("front found")
        self._send()

    def _disconnect(self) -> None:
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._channel.close()
            self._channel = None

    def _send(self) -> None:
        if self._channel is not None and "state" in self._report:
            try:
                self._channel.send(json.dumps(self._report).encode())
            except OSError:
                # What is told once it is found again is the same report.
                self._disconnect()

    def _hear(self) -> None:
        descriptors: list[int] = []
        try:
            if self._channel is None:
                return
            packet, descriptors, _, _ = socket.recv_fds(
                self._channel, _PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC
            )
            if not packet:
                self._disconnect()
                logs.warning("the front is gone")
                return
            self._put(json.loads(packet), descriptors)
        except BlockingIOError:
            return
        except (OSError, ValueError, KeyError) as error:
            logs.warning("the front was not understood", error=repr(error))
            self._disconnect()
        finally:
            for descriptor in descriptors:
                with contextlib.suppress(OSError):
                    os.close(descriptor)

    def _put(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if message.get("protocol", _PROTOCOL) != _PROTOCOL:
            raise ValueError(f"it speaks protocol {message['protocol']}, this server {_PROTOCOL}")
        if message["do"] == "stop":
            self._commands.put_nowait(Command("stop"))
        elif message["do"] == "accept" and descriptors:
            self._commands.put_nowait(Command("accept", descriptors.pop(), str(message["socket"])))


def _refuse_other_user(channel: socket.socket) -> None:
    size = struct.calcsize("3i")
    user = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[1]
    if user != os.getuid():
        raise PermissionError(f"it runs as user {user}, this server as {os.getuid()}")
