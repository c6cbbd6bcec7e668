"""Requests to one repository of a registry: authorised, redirected, repeated; knows not what they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin

from airflow_model_deploy.engine.containers import find_credentials, says_no_room
from airflow_model_deploy.engine.errors import InputError, UnavailableError
from airflow_model_deploy.engine.packaging.images.registry_auth import Authority
from airflow_model_deploy.engine.packaging.images.registry_http import Http, origin_of, place_of, words_of
from airflow_model_deploy.engine.packaging.images.retrying import (
    Patience,
    TransientError,
    is_transient,
    seconds_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import httpx

    from airflow_model_deploy.engine.containers import Credentials
    from airflow_model_deploy.engine.packaging.images.reference import ImageReference
    from airflow_model_deploy.engine.packaging.images.registry_http import RegistryOptions

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_NO_ROOM_STATUS = 507

_Answer = TypeVar("_Answer")


class Session:
    """One repository, with the connections and the right to use it.

    Args:
        repository: which.
        credentials: all there are; those for the registry are used.
        options: how registries are spoken to.
        scopes: what is to be done, as a token server calls it.
    """

    def __init__(
        self,
        repository: ImageReference,
        credentials: Sequence[Credentials],
        options: RegistryOptions,
        scopes: tuple[str, ...],
    ) -> None:
        self.options = options
        self._http = Http(options)
        self._base = f"{options.scheme(repository.registry)}://{repository.api_host}"
        self._root = f"{self._base}/v2/{repository.repository}/"
        self._refused = False  # the last request whose body could not be sent again, for want of a good token
        self._authority = Authority(self._http, find_credentials(credentials, repository.name), scopes)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def url(self, path: str) -> str:
        """The address of something of this repository, or of a Location that the registry gave."""
        return urljoin(self._root, path)

    def call(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        missing_ok: bool = False,
    ) -> httpx.Response:
        """Send until an answer comes, with patience; the body of the answer is unread.

        Raises:
            InputError: the registry refuses; with `missing_ok` a 404 is an answer.
            UnavailableError: it can't be reached, or has no room.
        """
        return self.patiently(lambda: self.once(method, url, headers or {}, body, missing_ok=missing_ok))

    def patiently(self, attempt: Callable[[], _Answer]) -> _Answer:
        """Repeat what raises TransientError until it succeeds or patience ends."""
        patience = Patience(self.options.patience_s)
        while True:
            try:
                return attempt()
            except TransientError as trouble:
                patience.wait(trouble)

    def once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Callable[[], Iterable[bytes]] | None = None,
        *,
        missing_ok: bool = False,
        extra_s: float = 0.0,
    ) -> httpx.Response:
        """Send once; a refused token is renewed once, and redirects of reading requests are followed.

        A body that is a function is never sent twice: its first 401 ends as TransientError, with a new token for the
        next attempt, because only the caller can find out how much of it is wanted then.
        """
        response, place = self._authorised(method, url, headers, body, extra_s)
        if response.status_code == 401 and self._can_renew(response, place):
            if not callable(body):
                response.close()
                response, place = self._authorised(method, url, headers, body, extra_s)
            elif not self._refused:
                response.close()
                self._refused = True
                raise TransientError(f"{place_of(url)} refused a token", found=401)
        if response.is_success and callable(body):
            self._refused = False
        if response.is_success or (missing_ok and response.status_code == 404):
            return response
        raise _refusal(method, place, response)

    def _can_renew(self, response: httpx.Response, place: str) -> bool:
        # A challenge of another host must not choose whom the credentials are sent to.
        return self._own(place) and self._authority.learn(response.headers.get("WWW-Authenticate"))

    def _own(self, url: str) -> bool:
        return origin_of(url) == origin_of(self._base)

    def _authorised(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Callable[[], Iterable[bytes]] | None,
        extra_s: float,
    ) -> tuple[httpx.Response, str]:
        """Send along who we are; return the answer and the address that gave it, after redirects."""
        for _ in range(_MOST_REDIRECTS):
            # Storage behind a registry is another host: it must never see who we are to the registry.
            sent = {**headers, **(self._authority.headers() if self._own(url) else {})}
            response = self._http.send(method, url, sent, body() if callable(body) else body, extra_s)
            if method not in ("GET", "HEAD") or response.status_code not in _REDIRECTS:
                return response, url
            response.close()
            url = urljoin(url, response.headers.get("Location", ""))
        raise InputError(
            f"{place_of(url)} redirects in circles", wanted=f"at most {_MOST_REDIRECTS} redirects"
        )


def _refusal(method: str, url: str, response: httpx.Response) -> Exception:
    status = response.status_code
    wait = seconds_of(response.headers.get("Retry-After"))
    said = words_of(response)
    thing = f"{method} {place_of(url)}"
    if status == _NO_ROOM_STATUS or (status >= 500 and says_no_room(said)):
        return UnavailableError(
            f"no room in the registry for {thing}",
            found=said,
            remedy="Free space there, then run the step again",
        )
    if is_transient(status):
        return TransientError(thing, found=said, retry_after_s=wait)
    if status in (401, 403):
        remedy = "Look at the registry's credentials and at what their user may do"
        return RefusedError(f"{thing} is not allowed", found=said, status=status, remedy=remedy)
    return RefusedError(thing, found=said, status=status)


class RefusedError(InputError):
    """An answer that will be the same next time; `status` is HTTP's."""

    def __init__(self, thing: str, *, found: str, status: int, remedy: str | None = None) -> None:
        super().__init__(thing, found=found, wanted="2xx", remedy=remedy)
        self.status = status
