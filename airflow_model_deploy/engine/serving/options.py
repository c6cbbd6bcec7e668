"""The server's options; opens nothing and loads nothing."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from .limits import Limits

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEFAULT = Limits()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; ends the program with exit code 2 where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="model_server", description="Serve a model over the OIP v2 protocol."
    )
    parser.add_argument("--servable", type=Path, required=True, help="folder with servable.json")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port, told by --ready-file")
    parser.add_argument(
        "--public-fd", type=int, help="inherited listening socket; SIGUSR1 accepts, SIGUSR2 stops"
    )
    parser.add_argument(
        "--front", type=Path, help="unix socket of the front that hands over the public socket"
    )
    parser.add_argument("--revision", help="this server's name at the front; default the model's version")
    parser.add_argument("--ready-file", type=Path, help="written when the server answers")
    parser.add_argument("--lifeline", action="store_true", help="end when stdin reaches its end")
    parser.add_argument("--drain-seconds", type=_positive_float, default=10.0)
    parser.add_argument("--threads", type=_positive, help="threads inside an operator")
    _add_limits(parser)
    options = parser.parse_args(arguments)
    if options.public_fd is not None:
        try:
            os.fstat(options.public_fd)
        except OSError as error:
            parser.error(f"--public-fd {options.public_fd}: {error}")
    return options


def limits_of(options: argparse.Namespace) -> Limits:
    """Return the limits that were asked for."""
    memory = options.max_memory_bytes or max(_DEFAULT.max_memory_bytes, 4 * options.max_body_bytes)
    return Limits(
        max_body_bytes=options.max_body_bytes,
        max_json_bytes=options.max_json_bytes,
        max_memory_bytes=memory,
        max_connections=options.max_connections,
        max_queue=options.max_queue,
        max_batch_size=options.max_batch_size,
        max_delay_seconds=options.max_delay_ms / 1000,
        request_timeout_seconds=options.request_timeout_seconds,
        io_timeout_seconds=options.io_timeout_seconds,
        idle_timeout_seconds=options.idle_timeout_seconds,
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    for name, kind, default, words in (
        ("--max-body-bytes", _positive, _DEFAULT.max_body_bytes, "of one request's body; 413 beyond"),
        (
            "--max-json-bytes",
            _positive,
            _DEFAULT.max_json_bytes,
            "of a body's JSON object; larger tensors go as binary data",
        ),
        ("--max-memory-bytes", _positive, None, "of all bodies held; default 256 MiB, or four bodies"),
        ("--max-connections", _positive, _DEFAULT.max_connections, "503 for inference beyond"),
        ("--max-queue", _positive, _DEFAULT.max_queue, "requests that wait; 503 beyond"),
        ("--max-batch-size", _positive, _DEFAULT.max_batch_size, "rows that run together; 1: no batching"),
        ("--max-delay-ms", _not_negative, 0.0, "how long an idle model waits for company"),
        (
            "--request-timeout-seconds",
            _positive_float,
            _DEFAULT.request_timeout_seconds,
            "a request that waited longer for the model is not run",
        ),
        (
            "--io-timeout-seconds",
            _positive_float,
            _DEFAULT.io_timeout_seconds,
            "for a client to send one request, or to take one answer",
        ),
        (
            "--idle-timeout-seconds",
            _positive_float,
            _DEFAULT.idle_timeout_seconds,
            "for a connection without a request; longer than clients and balancers keep theirs",
        ),
    ):
        parser.add_argument(name, type=kind, default=default, help=f"{words} (default: %(default)s)")


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


def _not_negative(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text}, wanted 0 or more")
    return value
