"""Clients that never stop asking a server by its address, and what each of them saw; knows no cluster."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tests.engine.deployment.cluster.seen import Asked, Seen
from tests.engine.deployment.cluster.wrk import WrkResult, wrk
from tests.engine.serving.servables import infer_body

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable
    from types import TracebackType

    Oracle = Callable[[str, list[list[float]]], np.ndarray[Any, Any]]

__all__ = ["Asked", "Load", "Seen", "WrkResult", "wrk"]

ROW = (2.0, 3.0, 4.0)  # the last three values of every row


# After these, a connection is as good as before.
_KEPT = ("", "wrong answer", "400", "500", "503")


class Load:
    """Asks until the block ends.

    Args:
        address: "host:port".
        clients: threads; each waits for an answer before it asks again.
        fresh: how many of them open a connection for every request; the others keep theirs.
        pause_s: between an answer and the next request of a client.
        high_share: of requests with a value that some models misbehave on; may be changed while it runs.
        high: that value.
        oracle: (version, rows) -> the right answer; None: every answer is right.
        timeout_s: for connecting, and for the answer.
    """

    def __init__(
        self,
        address: str,
        *,
        clients: int = 4,
        fresh: int = 2,
        pause_s: float = 0.01,
        high_share: float = 0.0,
        high: float = 5000.0,
        oracle: Oracle | None = None,
        timeout_s: float = 10.0,
        model: str = "tiny",
    ) -> None:
        self.high_share = high_share
        self._address, self._path = address, f"/v2/models/{model}/infer"
        self._pause_s, self._timeout_s = pause_s, timeout_s
        self._high, self._oracle = high, oracle
        self._asked: list[Asked] = []
        self._marks: dict[str, float] = {}
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=self._drive, args=(number, number < fresh), name=f"load-{number}")
            for number in range(clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    @property
    def seen(self) -> Seen:
        """All requests that have ended by now."""
        return Seen(self._asked)

    @property
    def versions(self) -> Counter[str]:
        return self.seen.versions

    @property
    def failures(self) -> list[str]:
        return self.seen.failures

    def mark(self, name: str) -> None:
        """Remember this moment."""
        self._marks[name] = time.monotonic()

    def window(self, start: str, end: str | None = None) -> Seen:
        """What was sent between two marks, or since one."""
        until = self._marks[end] if end else float("inf")
        return Seen(one for one in self.seen if self._marks[start] <= one.at < until)

    def _drive(self, number: int, fresh: bool) -> None:
        dice = random.Random(number)
        kept: http.client.HTTPConnection | None = None
        while not self._done.is_set():
            connection = kept or self._connection()
            asked = self._ask(connection, dice, fresh or kept is None)
            self._asked.append(asked)
            # The client closes its socket by itself where the server has said that it will.
            keep = not fresh and connection.sock is not None and asked.reason in _KEPT
            if not keep:
                connection.close()
            kept = connection if keep else None
            self._done.wait(self._pause_s)
        if kept is not None:
            kept.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address, timeout=self._timeout_s)

    def _ask(self, connection: http.client.HTTPConnection, dice: random.Random, fresh: bool) -> Asked:
        high = dice.random() < self.high_share
        rows = [[self._high if high else dice.uniform(-1, 1), *ROW]]
        version, started = "", time.monotonic()
        try:
            connection.request("POST", self._path, json.dumps(infer_body(rows)))
            response = connection.getresponse()
            body = response.read()
            if response.status == 200:
                version, reason, detail = self._judge(rows, json.loads(body))
            else:
                reason, detail = str(response.status), body[:300].decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            reason, detail = _reason(error), repr(error)
        return Asked(started, time.monotonic() - started, fresh, high, version, reason, detail)

    def _judge(self, rows: list[list[float]], document: dict[str, Any]) -> tuple[str, str, str]:
        version = str(document["model_version"])
        if self._oracle is None:
            return version, "", ""
        got = np.array(document["outputs"][0]["data"])
        wanted = self._oracle(version, rows).reshape(-1)
        right = got.shape == wanted.shape and np.allclose(got, wanted, rtol=1e-4, atol=1e-4)
        return version, "" if right else "wrong answer", f"{got} instead of {wanted}"


def _reason(error: Exception) -> str:
    known: Iterable[tuple[type[Exception], str]] = (
        (TimeoutError, "timeout"),
        (ConnectionRefusedError, "refused"),
        # Before the reset that it is a kind of: an end of the stream where an answer should be.
        (http.client.RemoteDisconnected, "closed"),
        (ConnectionError, "reset"),
        (http.client.HTTPException, "closed"),
    )
    return next((name for kind, name in known if isinstance(error, kind)), "unreachable")
