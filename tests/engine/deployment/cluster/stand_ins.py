"""What answers in the place of simulated pods and of their Service: one HTTP server of the test."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_METRICS = """# TYPE model_request_duration_seconds histogram
model_request_duration_seconds_bucket{{code="200",le="0.1"}} {count}
model_request_duration_seconds_bucket{{code="200",le="+Inf"}} {count}
model_request_duration_seconds_count{{code="200"}} {count}
model_request_duration_seconds_sum{{code="200"}} 1
"""


@dataclass(frozen=True)
class Answer:
    """Whether the server that was asked is of the revision that was wanted."""

    passed: bool
    summary: str


class StandIns:
    """A way to simulated pods: every one answers with its revision, the Service as its endpoints would.

    Args:
        revisions: by the pods' addresses.
        behind: the addresses that the Service leads to now.
    """

    def __init__(self, revisions: Mapping[str, str], behind: Callable[[], frozenset[str]]) -> None:
        self._revisions, self._behind, self._scrapes = revisions, behind, 0
        self.url = ""

    @contextmanager
    def pod(self, pod: Mapping[str, Any]) -> Iterator[str]:
        """Give the way to a pod."""
        yield f"{self.url}/{pod['status']['podIP']}"

    @contextmanager
    def public(self, service: Mapping[str, Any]) -> Iterator[str]:
        """Give the way to the Service."""
        del service
        yield f"{self.url}/public"

    @contextmanager
    def serving(self) -> Iterator[StandIns]:
        """Answer while the block lasts."""
        stand_ins = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = stand_ins.answer(self.path).encode()
                self.send_response(200 if body else 503)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}"
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def answer(self, path: str) -> str:
        """What is answered at a path: every revision that may answer, or counts that grow with each look."""
        who = path.split("/")[1]
        if path.endswith("/metrics"):
            self._scrapes += 1
            return _METRICS.format(count=1000 * self._scrapes)
        addresses = self._behind() if who == "public" else {who}
        return " ".join(sorted({self._revisions[one] for one in addresses}))


def check(url: str, folder: Path) -> Answer:
    """See that the revision whose release it is answers, and no other."""
    wanted = json.loads((folder / "servable" / "servable.json").read_text())["version"]
    found = httpx.get(url, trust_env=False).text
    return Answer(found == wanted, f"{found or 'nobody'} answers, {wanted} is wanted")
