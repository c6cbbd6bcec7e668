"""The calls of one cluster's API, each tried again while it may help; knows paths and JSON, no kind of object."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import kinds
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.refusals import (
    ExistsError,
    ExpiredError,
    ForbiddenError,
    LostError,
    StaleError,
)
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.transport import (
    Transport,
    checked,
    events,
)
from airflow_model_deploy.engine.errors import ModelDeployError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.connection import Connection

JSON = "application/json"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_OWN_FAULT_S = 10.0

Object = dict[str, Any]


def allow() -> None:
    """Allow every write."""


class Calls:
    """What `Cluster` makes its calls with; takes what it takes."""

    def __init__(
        self,
        connection: Connection,
        namespace: str,
        *,
        log: Callable[[str], None] = lambda _: None,
        patience_s: float = 60.0,
        timeout_s: float = 30.0,
    ) -> None:
        self.connection, self.namespace = connection, namespace
        self.patience_s, self.timeout_s = patience_s, timeout_s
        self._log = log
        self._transport: Transport | None = None
        # Asked before every try of a write: what was allowed a while ago may not be any more.
        self.guard: Callable[[], None] = allow
        self._served: dict[str, frozenset[str]] = {}  # what the server has, by path of the API's version

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    @property
    def transport(self) -> Transport:
        """The way to the API server, for what isn't a call to the API (see `proxy`)."""
        if self._transport is None:
            self._transport = Transport(self.connection)
        return self._transport

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = JSON,
    ) -> Any:
        until, pause, lost, renewed = time.monotonic() + self.patience_s, _FIRST_PAUSE_S, False, False
        while True:
            if method != "GET":
                self.guard()
            try:
                return self._send(method, path, query=query, body=body, content_type=content_type)
            except (StaleError, ExistsError, ExpiredError):
                raise
            except UnavailableError as e:
                failure: ModelDeployError = e
                lost = True
            except ForbiddenError as e:
                if e.unknown and not renewed:
                    self.close()  # credentials that were renewed meanwhile are read again
                    renewed = True
                    continue
                if not lost:
                    raise
                failure = e
            pause = self._pause(failure, pause, until)

    def _pause(self, failure: ModelDeployError, pause: float, until: float) -> float:
        """Wait before the next try; raises the failure where there is none. Returns the pause after that."""
        asked = failure.retry_after_s if isinstance(failure, LostError) else 0.0
        if isinstance(failure, LostError) and failure.own_fault:
            until -= max(0.0, self.patience_s - _OWN_FAULT_S)
        wait = max(pause, asked)
        if time.monotonic() + wait > until:
            raise failure
        if pause == _FIRST_PAUSE_S:
            self._log(f"trying again: {failure}")
        time.sleep(wait)
        return min(2 * pause, _LONGEST_PAUSE_S)

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = JSON,
    ) -> Any:
        """One call to the API, tried once; the answer's JSON, the text of a log, or a watch's events as they come.

        Raises:
            LostError: no answer, or "not now".
            ModelDeployError: the server refuses; see `refusals`.
        """
        query = query or {}
        watching = "watch" in query
        data = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json, */*", "Content-Type": content_type}
        answer = self.transport.send(
            method,
            path,
            headers=headers,
            body=data,
            query=urlencode(query),
            read_s=self.timeout_s + float(query.get("timeoutSeconds", 0.0)),
            stream=watching,
        )
        checked(kinds.described(path), answer)
        if watching:
            return events(answer)
        text = answer.data.decode("utf-8", errors="replace")
        return json.loads(text) if "json" in answer.headers.get("Content-Type", "") else text
