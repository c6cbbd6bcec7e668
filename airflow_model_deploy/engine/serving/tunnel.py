"""One TCP connection to the server in this container, carried over standard input and output.

`docker exec -i CONTAINER python3 -m model_server.tunnel 8080` is a connection to its port 8080: without a
published port, without a network, from wherever the engine's API is reached. The end of standard input is
passed on as the end of the requests; answers on their way still arrive. Exit codes: 0, or 1 where nothing
listens.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import socket
import sys
import time

_CHUNK = 1 << 18
_RETRY_S = 0.02
# After the end of the requests: without progress for so long nobody is there to take the answer.
_LINGER_S = 30


def main(arguments: list[str]) -> int:
    """Carry one connection to PORT; wait up to SECONDS for somebody to listen there (PORT [SECONDS])."""
    port = int(arguments[0])
    wait_s = float(arguments[1]) if arguments[1:] else 0.0
    try:
        connection = _connect(port, wait_s)
    except OSError as error:
        print(f"nothing listens on port {port}: {error}", file=sys.stderr)
        return 1
    ended: list[bool] = []
    _thread.start_new_thread(_requests, (connection, ended))
    with contextlib.suppress(OSError):  # either side may leave whenever it likes
        while data := connection.recv(_CHUNK):
            _write(data)
            if ended:
                signal.alarm(_LINGER_S)
    return 0


def _connect(port: int, wait_s: float) -> socket.socket:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port))
        except OSError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_RETRY_S)
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection


def _requests(connection: socket.socket, ended: list[bool]) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(0, _CHUNK):
            connection.sendall(data)
    ended.append(True)
    signal.alarm(_LINGER_S)
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def _write(data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


if __name__ == "__main__":
    code = main(sys.argv[1:])
    # Not sys.exit: the other thread may still sit in a read of standard input.
    sys.stderr.flush()
    os._exit(code)
