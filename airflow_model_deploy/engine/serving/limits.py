"""What the server takes on at most; knows no connection and no request."""

from __future__ import annotations

import resource
from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """What the server takes on at most; what is beyond is refused with words, and soon.

    Args:
        max_body_bytes: of one request's body: 413 beyond.
        max_json_bytes: of a body's JSON object, which is many times as large when it is decoded: 413 beyond.
        max_memory_bytes: bodies held at once, over all connections: 503 beyond.
        max_connections: 503 for inference beyond; probes and metrics are answered up to twice as many.
        max_queue: requests that wait for the model: 503 beyond.
        max_batch_size: rows that run together.
        max_delay_seconds: how long an idle model waits for company.
        request_timeout_seconds: a request that waited longer is answered 504 and never run.
        io_timeout_seconds: to send one request whole (408), and to take one answer.
        idle_timeout_seconds: a connection without a request is closed. Longer than clients keep theirs: who
            closes first races with the other's next request.
    """

    max_body_bytes: int = 64 * MIB
    max_json_bytes: int = 32 * MIB
    max_memory_bytes: int = 256 * MIB
    max_connections: int = 2048
    max_queue: int = 128
    max_batch_size: int = 64
    max_delay_seconds: float = 0.0
    request_timeout_seconds: float = 30.0
    io_timeout_seconds: float = 30.0
    idle_timeout_seconds: float = 75.0


def allow_connections(count: int) -> None:
    """Raise the process's own limit of open files, where it is below what so many connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + 256
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
