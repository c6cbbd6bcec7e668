"""Clients that never stop asking the demo's service for real digits, some in another unit; knows no cluster."""

from __future__ import annotations

import http.client
import json
import random
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from types import TracebackType


RAW_SHARE = 0.05  # of requests with the grey levels as they were scanned, 0 to 16, instead of 0 to 1
RAW_SCALE = 16.0
_BODIES = 200
_KNOCKS = 5
_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Asked:
    """One request: when, of which kind, who answered, and what went wrong ("": nothing)."""

    at: float
    raw: bool
    version: str
    failure: str


class Traffic:
    """Asks from the moment the service answers until the block ends, over a new connection each time.

    Args:
        model: the service's model.
        folder: of the code that loads its data.
        clients: threads.
        pause_s: of each, between an answer and the next request.
    """

    def __init__(self, model: str, folder: str, *, clients: int = 3, pause_s: float = 0.02) -> None:
        self._path, self._pause_s = f"/v2/models/{model}/infer", pause_s
        self._bodies = _bodies(folder)
        self._asked: list[Asked] = []
        self._address: str | None = None
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._drive, args=(n,), daemon=True) for n in range(clients)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def start(self, url: str) -> None:
        """Begin to ask, once the service has answered a few times running."""
        self._address = urlsplit(url).netloc
        for thread in self._threads:
            thread.start()

    def seen(self, since: float = 0.0, until: float = float("inf")) -> list[Asked]:
        """The requests that were sent between two moments of the monotonic clock."""
        return [one for one in list(self._asked) if since <= one.at < until]

    def _drive(self, number: int) -> None:
        dice = random.Random(number)  # noqa: S311 - the same requests every time, no secrets
        passed = 0
        while not self._done.is_set() and passed < _KNOCKS:
            passed = passed + 1 if not self._ask(self._bodies[False][0], raw=False).failure else 0
            self._done.wait(0.2)
        while not self._done.is_set():
            raw = dice.random() < RAW_SHARE
            self._asked.append(self._ask(dice.choice(self._bodies[raw]), raw=raw))
            self._done.wait(self._pause_s)

    def _ask(self, body: bytes, *, raw: bool) -> Asked:
        at = time.monotonic()
        connection = http.client.HTTPConnection(self._address or "", timeout=_TIMEOUT_S)
        try:
            connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read()
            if response.status != 200:
                return Asked(at, raw, "", f"{response.status} {text[:200].decode(errors='replace')}")
            return Asked(at, raw, str(json.loads(text)["model_version"]), "")
        except (OSError, http.client.HTTPException) as error:
            return Asked(at, raw, "", f"{type(error).__name__}: {error}")
        finally:
            connection.close()


def versions(asked: list[Asked]) -> Counter[str]:
    """How many answers came from which version."""
    return Counter(one.version for one in asked if one.version)


def _bodies(folder: str) -> dict[bool, list[bytes]]:
    """Requests with one image of the test data each; raw ones under True."""
    sys.path.insert(0, folder)
    try:
        from example_models.digits_data import load
    finally:
        sys.path.remove(folder)
    images = load("test")[0]["images"][:_BODIES]
    return {raw: [_body(image * (RAW_SCALE if raw else 1.0)) for image in images] for raw in (False, True)}


def _body(image: Any) -> bytes:
    tensor = {
        "name": "images",
        "shape": [1, *image.shape],
        "datatype": "FP32",
        "data": image.ravel().tolist(),
    }
    return json.dumps({"inputs": [tensor]}).encode()
