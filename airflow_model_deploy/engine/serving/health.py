"""Whether the server in this container answers that it is ready: the program of the image's health check.

Exit codes: 0 ready, 1 not ready. It imports one module and reads one line: it runs every few seconds, under the
container's own CPU limit.
"""

from __future__ import annotations

import socket
import sys

_PORT = 8080
_TIMEOUT_S = 4.0  # below the health check's own, so that this says why before it is killed
_ASK = b"GET /v2/health/ready HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def main(arguments: list[str]) -> int:
    """Ask the port named by the only argument, 8080 without one; return the exit code."""
    port = int(arguments[0]) if arguments else _PORT
    try:
        with socket.create_connection(("127.0.0.1", port), _TIMEOUT_S) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.sendall(_ASK)
            line = connection.makefile("rb").readline(256)
    except OSError as error:
        print(f"no answer on port {port}: {error}")
        return 1
    if line.split()[1:2] == [b"200"]:
        return 0
    print(f"not ready: {line.decode('latin-1').strip() or 'the connection was closed without an answer'}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
