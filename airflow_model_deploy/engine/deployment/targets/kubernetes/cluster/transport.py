"""One HTTP exchange with an API server, with the client library's credentials and pool; knows no object."""

from __future__ import annotations

import json
import socket
import ssl
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.connection import configure
from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.refusals import LostError, refusal
from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from urllib3.response import BaseHTTPResponse

    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster.connection import Connection

_CONNECT_S = 5.0
_RETRY_AFTER_S = 10.0  # no server makes us wait longer in one go
# A peer that is gone without a word is noticed after half a minute, however long a watch may stay silent.
_KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))


class Transport:
    """The way to one API server. Threads may share it."""

    def __init__(self, connection: Connection) -> None:
        """Read the configuration.

        Raises:
            InputError: the connection can't be used.
        """
        configuration = configure(connection)
        from kubernetes.client import ApiClient

        configuration.socket_options = _socket_options()
        self._client = ApiClient(configuration)
        self._pool = self._client.rest_client.pool_manager
        self.host = str(configuration.host)

    def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        query: str = "",
        read_s: float = 30.0,
        stream: bool = False,
    ) -> BaseHTTPResponse:
        """One exchange, tried once; the answer whatever its status, unread where `stream`.

        Raises:
            LostError: no answer.
            InputError: the server's certificate isn't the one wanted.
        """
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        sent = dict(headers)
        self._client.update_params_for_auth(sent, [], ["BearerToken"])
        url = f"{self.host}{path}" + (f"?{query}" if query else "")
        try:
            answer: BaseHTTPResponse = self._pool.request(
                method,
                url,
                headers=sent,
                body=body,
                timeout=Timeout(connect=_CONNECT_S, read=read_s),
                retries=False,
                preload_content=not stream,
            )
        except (HTTPError, OSError) as e:
            raise self._lost(f"{method} {path}", e) from e
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()
        self._client.close()

    def _lost(self, thing: str, error: BaseException) -> LostError | InputError:
        seen = _innermost(error)
        if isinstance(seen, ssl.SSLCertVerificationError):
            return InputError(
                f"the certificate of {self.host}",
                found=seen.verify_message,
                remedy="Correct the connection's certificate-authority, or its tls-server-name",
            )
        return LostError(f"{thing}: {self.host} doesn't answer", found=f"{type(seen).__name__}: {seen}")


def checked(thing: str, answer: BaseHTTPResponse) -> BaseHTTPResponse:
    """The answer, where it is a success.

    Raises:
        ModelDeployError: what `refusal` makes of it.
    """
    if 200 <= answer.status < 300:
        return answer
    text = answer.data.decode("utf-8", errors="replace")
    try:
        status = json.loads(text)
    except ValueError:
        status = None
    if not isinstance(status, dict):
        status = {"message": text.strip()[:500]}
    raise refusal(thing, answer.status, status, retry_after_s=_retry_after(answer))


def events(answer: BaseHTTPResponse) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of a watch as they come; ends where the stream does, in whatever way."""
    from urllib3.exceptions import HTTPError

    rest = b""
    try:
        for piece in answer.stream(None, decode_content=False):
            *lines, rest = (rest + piece).split(b"\n")
            for line in filter(None, lines):
                event = json.loads(line)
                yield str(event["type"]), event["object"]
    except (HTTPError, OSError):
        return  # the caller watches again from the last version it saw
    finally:
        answer.close()  # the rest of a watch is of no use to the next call on this connection


def _retry_after(answer: BaseHTTPResponse) -> float:
    try:
        return min(_RETRY_AFTER_S, float(answer.headers.get("Retry-After", "0")))
    except ValueError:
        return 0.0


def _socket_options() -> list[tuple[int, int, int]]:
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


def _innermost(error: BaseException) -> BaseException:
    """What really went wrong: the library wraps it, as a cause or as an argument.

    Not the context: that may be an error of the caller's, which this call is made in answer to.
    """
    inside = [e for e in (error.__cause__, *error.args) if isinstance(e, BaseException)]
    return _innermost(inside[0]) if inside else error
