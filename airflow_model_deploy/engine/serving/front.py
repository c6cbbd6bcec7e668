"""Holds a service's public listening socket and hands it to the server that is to accept from it.

`python -m model_server.front` is the program of the front container, standard library only. It knows which
revision is wanted and which servers are there; it knows no model, no HTTP and no container engine. No request
passes through it: a server that was handed the socket accepts from it itself.

Servers and deployers come to the same unix socket, FOLDER/front.sock, with one JSON object a packet. A server
reports {revision, digest, pid, state, public}; it is answered with {"do": "accept", "socket": ...} and the
socket's descriptor, or {"do": "stop"}. What is wanted is desired.json, replaced atomically by whoever names the
generation that he has seen. It is level-triggered: every report, decision and tick leads to a comparison and
the next step, so that it doesn't matter in which order things come, nor how often. The revision that served
goes on until the new one accepts.

    front serve               hold the socket until SIGTERM
    front read                print what is wanted
    front write N DESIRED     replace it if its generation is N; print it as it is now
    front status [--after N]  print what is there, once it is another than the N-th that was seen, or after a second
    front lock WHO            hold the right to decide until the standard input ends

Exit codes: 0 done, 2 bad arguments, 4 the port can't be listened on, 5 no front answers, 6 refused: a conflict.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .front_client import CONFLICT, PACKET_BYTES, SOCKET_NAME, STATE_FOLDER, Json, ask, say

if TYPE_CHECKING:
    from collections.abc import Sequence

TICK_SECONDS = 0.5
WATCH_SECONDS = 1.0
# A request to a server can get lost with it: ask again.
ASK_AGAIN_SECONDS = 2.0
MAX_PEERS = 64
PROTOCOL = 1


@dataclass(eq=False)
class Peer:
    """A connection: a server's once it has reported, else a deployer's."""

    channel: socket.socket
    server: Json = field(default_factory=dict)
    asked: str | None = None
    asked_at: float = 0.0
    watches: int | None = None
    watches_until: float = 0.0

    @property
    def revision(self) -> str | None:
        """The server's revision."""
        return self.server.get("revision")

    @property
    def public(self) -> str | None:
        """The name of the socket that the server accepts from."""
        return self.server.get("public")


class Front:
    """The public socket, what is wanted, and who is there."""

    def __init__(self, state: Path, public: socket.socket, control: socket.socket) -> None:
        self.state, self.public, self.control = state, public, control
        # A socket of its own name: a server that accepts from an earlier front's is not public here.
        self.name = f"{os.getpid()}-{time.time_ns():x}"
        self.desired = read_json(state / "desired.json") or {"generation": 0}
        self.status: Json = {}
        self.sequence = 0
        self.peers: list[Peer] = []
        self.lock: tuple[Peer, str] | None = None
        self.selector = selectors.DefaultSelector()
        self.selector.register(control, selectors.EVENT_READ)

    def run(self) -> None:
        """Hold the socket for ever."""
        while True:
            self.reconcile(time.monotonic())
            for key, _ in self.selector.select(TICK_SECONDS):
                if key.data is None:
                    self._welcome()
                else:
                    self._hear(key.data)

    def reconcile(self, now: float) -> None:
        """Take every step towards what is wanted that can be taken now, and tell who watches."""
        live = self.desired.get("live")
        servers = [peer for peer in self.peers if peer.server]
        for peer in servers:
            if peer.revision == live and peer.server["state"] == "ready" and peer.public != self.name:
                self._ask(peer, "accept", now)
        # The heart of it: nobody is asked to stop before somebody else accepts.
        if live is None or any(peer.revision == live and peer.public == self.name for peer in servers):
            for peer in servers:
                if peer.revision != live and peer.public:
                    self._ask(peer, "stop", now)
        self._tell()
        for peer in [peer for peer in self.peers if peer.watches is not None]:
            if peer.watches != self.sequence or now >= peer.watches_until:
                peer.watches = None
                self._answer(peer, self.status)

    def _ask(self, peer: Peer, what: str, now: float) -> None:
        if peer.asked == what and now - peer.asked_at < ASK_AGAIN_SECONDS:
            return
        peer.asked, peer.asked_at = what, now
        packet = json.dumps({"protocol": PROTOCOL, "do": what, "socket": self.name}).encode()
        try:
            socket.send_fds(peer.channel, [packet], [self.public.fileno()] if what == "accept" else [])
        except BlockingIOError:
            peer.asked = None
        except OSError:
            self._forget(peer)

    def _tell(self) -> None:
        processes: dict[str, Json] = {}
        for peer in self.peers:
            if peer.server:
                known = processes.get(peer.server["revision"], {})
                public = peer.public == self.name or known.get("public", False)
                processes[peer.server["revision"]] = {**peer.server, "public": public}
        status = {
            "pid": os.getpid(),
            "generation": self.desired["generation"],
            "socket": self.name,
            "processes": processes,
        }
        if {**self.status, "sequence": None} != {**status, "sequence": None}:
            self.sequence += 1
            self.status = {**status, "sequence": self.sequence}
            # For people and for a look from outside; a disk that is full must not stop the traffic decision.
            with contextlib.suppress(OSError):
                write_json(self.state / "status.json", self.status, sync=False)

    def _welcome(self) -> None:
        try:
            channel, _ = self.control.accept()
        except OSError:
            return
        channel.setblocking(False)
        if peer_uid(channel) != os.getuid() or len(self.peers) >= MAX_PEERS:
            say("refused a connection: " + ("too many" if len(self.peers) >= MAX_PEERS else "another user's"))
            channel.close()
            return
        peer = Peer(channel)
        self.peers.append(peer)
        self.selector.register(channel, selectors.EVENT_READ, peer)

    def _hear(self, peer: Peer) -> None:
        if peer not in self.peers:
            return
        try:
            packet = peer.channel.recv(PACKET_BYTES)
            message = json.loads(packet) if packet else None
            if message is None:
                self._forget(peer)
            elif "ask" in message:
                self._serve(peer, message)
            else:
                self._note(peer, message)
        except BlockingIOError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            say(f"closed a connection: {error!r}")
            self._forget(peer)

    def _note(self, peer: Peer, report: Json) -> None:
        if report.get("protocol", PROTOCOL) != PROTOCOL:
            raise ValueError(
                f"{report.get('revision')} speaks protocol {report['protocol']}, this front {PROTOCOL}"
            )
        server = {
            "revision": str(report["revision"]),
            "digest": report.get("digest"),
            "pid": int(report["pid"]),
            "state": str(report["state"]),
            "public": report.get("public"),
        }
        if peer.server.get("public", "") != server["public"]:
            side = "public" if server["public"] else "private"
            say(f"{server['revision']}: {server['state']}, {side}")
            # It has done what it was asked: whatever comes next is a new question.
            peer.asked = None
        peer.server = server

    def _forget(self, peer: Peer) -> None:
        if peer not in self.peers:
            return
        self.peers.remove(peer)
        self.selector.unregister(peer.channel)
        peer.channel.close()
        if peer.server:
            say(f"{peer.revision}: gone")
        if self.lock and self.lock[0] is peer:
            self.lock = None

    def _serve(self, peer: Peer, message: Json) -> None:
        match message["ask"]:
            case "read":
                self._answer(peer, self.desired)
            case "write":
                self._answer(peer, self._write(int(message["generation"]), message["desired"]))
            case "status":
                peer.watches = int(message.get("after", -1))
                peer.watches_until = time.monotonic() + WATCH_SECONDS
            case "lock":
                if self.lock is None:
                    self.lock = (peer, str(message["who"]))
                    self._answer(peer, {"locked": True})
                else:
                    self._answer(peer, {"conflict": self.lock[1]})
            case other:
                raise ValueError(f"no such question: {other}")

    def _write(self, generation: int, desired: Json) -> Json:
        if generation != self.desired["generation"]:
            return {"conflict": self.desired}
        wanted = {**desired, "generation": generation + 1}
        if not isinstance(wanted.get("live"), str | None):
            return {"error": f"live: found {wanted['live']!r}, wanted a revision or null"}
        try:
            write_json(self.state / "desired.json", wanted, sync=True)
        except OSError as error:
            return {"error": f"{self.state / 'desired.json'}: {error}"}
        self.desired = wanted
        say(f"wanted: {json.dumps(wanted)}")
        return wanted

    def _answer(self, peer: Peer, answer: Json) -> None:
        try:
            peer.channel.send(json.dumps({**answer, "protocol": PROTOCOL}).encode())
        except OSError:
            self._forget(peer)


def peer_uid(channel: socket.socket) -> int:
    """Return the user at the other end of a unix socket, as the kernel says."""
    size = struct.calcsize("3i")
    return int(struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[1])


def read_json(path: Path) -> Json | None:
    """Return what a file holds; None where there is none."""
    try:
        document: Json = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return document


def write_json(path: Path, document: Json, *, sync: bool) -> None:
    """Replace a file so that a reader, and a power cut where `sync`, finds all of the old or all of the new."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(document, indent=1))
        if sync:
            stream.flush()
            os.fsync(stream.fileno())
    temporary.replace(path)
    if sync:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def serve(state: Path, host: str, port: int) -> int:
    """Hold the public socket until SIGTERM; return the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    # A bare descriptor, never closed: the lock is free when the process is gone, and not a moment earlier.
    lock = os.open(state / "front.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"another front holds {state}")
        return CONFLICT
    try:
        found = read_json(state / "desired.json")
        if found is not None:
            int(found["generation"])
    except (ValueError, KeyError, TypeError) as error:
        say(
            f"{state / 'desired.json'}: {error!r}; repair it, or remove it and deploy again: it says what serves"
        )
        return 2
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        public = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        say(f"can't listen on {host}:{port}: {error}")
        return 4
    path = state / SOCKET_NAME
    path.unlink(missing_ok=True)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.bind(str(path))
    path.chmod(0o600)
    control.listen(MAX_PEERS)
    control.setblocking(False)
    say(f"holding {host}:{public.getsockname()[1]}")
    Front(state, public, control).run()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve or ask; return the exit code."""
    parser = argparse.ArgumentParser(prog="front", description="Hold a service's public socket.")
    parser.add_argument("--state", type=Path, default=STATE_FOLDER, help="folder of socket and decision")
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve")
    serving.add_argument("--host", default="0.0.0.0")  # noqa: S104 - the container's own network
    serving.add_argument("--port", type=int, default=8080)
    commands.add_parser("read")
    writing = commands.add_parser("write")
    writing.add_argument("generation", type=int)
    writing.add_argument("desired", type=json.loads)
    commands.add_parser("status").add_argument("--after", type=int, default=-1)
    commands.add_parser("lock").add_argument("who")
    options = parser.parse_args(arguments)
    match options.command:
        case "read":
            return ask(options.state, {"ask": "read"})
        case "write":
            question = {"ask": "write", "generation": options.generation, "desired": options.desired}
            return ask(options.state, question)
        case "status":
            return ask(options.state, {"ask": "status", "after": options.after})
        case "lock":
            return ask(options.state, {"ask": "lock", "who": options.who}, hold=True)
    return serve(options.state, options.host, options.port)


if __name__ == "__main__":
    sys.exit(main())
