"""One HTTP exchange with a registry's host; knows no credentials, no repository and no second attempt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.packaging.images.blobs import MAX_JSON_BYTES
from airflow_model_deploy.engine.packaging.images.reference import is_loopback
from airflow_model_deploy.engine.packaging.images.retrying import TransientError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator, Mapping

    import httpx

_PORTS = {"http": 80, "https": 443}
_ANSWER_SHOWN = 300


@dataclass(frozen=True)
class RegistryOptions:
    """How registries are spoken to.

    Args:
        insecure: hosts ("registry.lan:5000") that speak plain HTTP. Loopback may without being named.
        ca_cert: path of certificates to trust besides the usual ones.
        timeout_s: for connecting, and for each wait on bytes in either direction.
        patience_s: how long failed attempts are repeated, from the last progress on.
        chunk_bytes: how much of a large blob one request carries; a broken request costs at most that much where the
            registry keeps what arrived.
    """

    insecure: tuple[str, ...] = ()
    ca_cert: str | None = None
    timeout_s: float = 60.0
    patience_s: float = 120.0
    chunk_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        if min(self.timeout_s, self.patience_s, self.chunk_bytes) <= 0:
            raise InputError("the times and the chunk size for a registry", found=self, wanted="more than 0")

    def scheme(self, host: str) -> str:
        """Plain HTTP on loopback and where it was asked for by name, as docker has it; else HTTPS."""
        return "http" if is_loopback(host) or host in self.insecure else "https"


class Http:
    """Connections to the hosts that a registry needs: itself, its token server, its storage.

    Below httpx's client on purpose: that one logs whole addresses, and those of a storage hold signatures.
    """

    def __init__(self, options: RegistryOptions) -> None:
        self.options = options
        self._transports: dict[str, httpx.HTTPTransport] = {}

    def close(self) -> None:
        """Close the connections."""
        for transport in self._transports.values():
            transport.close()

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None = None,
        extra_s: float = 0.0,
    ) -> httpx.Response:
        """Send one request and return the answer with its body unread; redirects are answers.

        Args:
            method: HTTP's.
            url: absolute.
            headers: sent as they are.
            body: whole, or as blocks.
            extra_s: how much longer than usual the answer may take.

        Raises:
            InputError: plain HTTP to a host for which it is not allowed.
            TransientError: the host did not answer, or not to the end.
        """
        import httpx

        usual = self.options.timeout_s
        timeout = httpx.Timeout(usual, read=usual + extra_s)
        request = httpx.Request(
            method,
            url,
            headers={"Accept-Encoding": "identity", "User-Agent": "model-deploy", **headers},
            content=body,
            extensions={"timeout": timeout.as_dict()},
        )
        try:
            return self._transport(url).handle_request(request)
        except httpx.TransportError as e:
            raise _trouble(url, e) from e

    def _transport(self, url: str) -> httpx.HTTPTransport:
        import httpx

        origin = origin_of(url)
        if origin not in self._transports:
            parts = urlsplit(url)
            host = parts.netloc
            if parts.scheme != "https" and self.options.scheme(host) != "http":
                raise InputError(
                    f"plain HTTP to {host}",
                    wanted="HTTPS",
                    remedy=f"Name {host} as insecure if everything on the way to it is trusted",
                )
            direct = is_loopback(host) or proxy_bypass(parts.hostname or "")
            proxy = None if direct else getproxies().get(parts.scheme)
            self._transports[origin] = httpx.HTTPTransport(verify=self._trust(parts.scheme), proxy=proxy)
        return self._transports[origin]

    def _trust(self, scheme: str) -> ssl.SSLContext | bool:
        import httpx

        if scheme != "https":
            return False  # nothing to verify, and reading the certificates takes longer than a small push
        context = httpx.create_ssl_context()
        if self.options.ca_cert:
            try:
                context.load_verify_locations(self.options.ca_cert)
            except OSError as e:  # ssl's errors too
                raise InputError(
                    f"the certificates in {self.options.ca_cert} can't be read", found=e.strerror or str(e)
                ) from e
        return context


def _trouble(url: str, error: Exception) -> InputError | TransientError:
    """What a broken connection is called; a certificate that isn't trusted now won't be in a minute."""
    said = f": {error}" if str(error) else ""
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return InputError(
            f"{place_of(url)} shows a certificate that isn't trusted",
            found=str(error),
            remedy="Give the certificate of its authority as ca_cert",
        )
    return TransientError(f"{place_of(url)} did not answer", found=f"{type(error).__name__}{said}")


def read_all(response: httpx.Response, limit: int = MAX_JSON_BYTES) -> bytes:
    """Read a small answer and give the connection back."""
    data = bytearray()
    for block in read_blocks(response):
        data += block
        if len(data) > limit:
            raise InputError(
                "an answer of a registry", found=f"more than {limit} bytes", wanted="a small one"
            )
    return bytes(data)


def read_blocks(response: httpx.Response) -> Iterator[bytes]:
    """Yield an answer's body; TransientError where it breaks off."""
    import httpx

    try:
        yield from response.iter_raw()
    except httpx.TransportError as e:
        raise TransientError("the answer of a registry broke off", found=type(e).__name__) from e
    finally:
        response.close()


def words_of(response: httpx.Response) -> str:
    """What a refusal says: the distribution API's codes and messages, else how its text begins."""
    import json

    try:
        data = read_all(response)
    except TransientError:
        return f"status {response.status_code}"
    try:
        said = "; ".join(_error_words(error) for error in json.loads(data)["errors"])
    except (ValueError, KeyError, TypeError, AttributeError):
        said = data[:_ANSWER_SHOWN].decode("utf-8", "replace").strip()
    return f"{response.status_code} {said}".strip()[:_ANSWER_SHOWN]


def origin_of(url: str) -> str:
    """Scheme, host and port: whom a credential may be shown to."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{parts.port or _PORTS.get(parts.scheme, 0)}"


def place_of(url: str) -> str:
    """An address without its query: that may hold a signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _error_words(error: dict[str, object]) -> str:
    detail = error.get("detail")
    known = f" ({detail})" if detail else ""
    return f"{error.get('code', '')}: {error.get('message', '')}{known}"
