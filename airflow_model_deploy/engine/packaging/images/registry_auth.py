"""Proves to a registry who we are: tokens from its token server, or a password; knows no blob and no manifest."""

from __future__ import annotations

import base64
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.packaging.images.blobs import json_object
from airflow_model_deploy.engine.packaging.images.registry_http import place_of, read_all, words_of
from airflow_model_deploy.engine.packaging.images.retrying import (
    TransientError,
    is_transient,
    seconds_of,
)

if TYPE_CHECKING:
    from airflow_model_deploy.engine.containers import Credentials
    from airflow_model_deploy.engine.packaging.images.registry_http import Http

_SHORTEST_LIFE_S = 60  # of a token that doesn't say: the token server protocol's own default
_USED_SHARE = 0.9  # a token is renewed before it ends, not by a refusal in the middle of a chunk
_CHALLENGE = re.compile(r"^\s*(Bearer|Basic)\b\s*(.*)$", re.IGNORECASE)
_PARAMETER = re.compile(r'([a-zA-Z_]+)="([^"]*)"')


@dataclass(frozen=True)
class _Challenge:
    scheme: str
    realm: str
    service: str


class Authority:
    """The Authorization header for one repository's requests.

    Args:
        http: connections, to the token server too.
        credentials: None asks as nobody.
        scopes: what a token is for: "repository:models/digits:pull,push".
    """

    def __init__(self, http: Http, credentials: Credentials | None, scopes: tuple[str, ...]) -> None:
        self._http, self._credentials, self._scopes = http, credentials, scopes
        self._challenge: _Challenge | None = None
        self._token, self._good_until = "", 0.0

    def headers(self) -> dict[str, str]:
        """What to send along; nothing before the registry has said what it wants."""
        if self._challenge is None:
            return {}
        if self._challenge.scheme == "basic":
            return self._basic()
        if time.monotonic() > self._good_until:
            self._fetch(self._challenge)
        return {"Authorization": f"Bearer {self._token}"}

    def learn(self, header: str | None) -> bool:
        """Take a 401's challenge, and forget the token it refused; False where asking again is no use."""
        found = _parse(header or "")
        if found is None or (
            found.scheme == "basic" and (self._credentials is None or self._challenge == found)
        ):
            return False
        self._challenge, self._good_until = found, 0.0
        return True

    def _basic(self) -> dict[str, str]:
        if self._credentials is None:
            return {}
        pair = f"{self._credentials.username}:{self._credentials.password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}

    def _fetch(self, challenge: _Challenge) -> None:
        query = [("service", challenge.service)] * bool(challenge.service)
        query += [("scope", scope) for scope in self._scopes]
        separator = "&" if "?" in challenge.realm else "?"
        response = self._http.send("GET", f"{challenge.realm}{separator}{urlencode(query)}", self._basic())
        place = place_of(challenge.realm)
        if is_transient(response.status_code):
            wait = seconds_of(response.headers.get("Retry-After"))
            raise TransientError(f"token server {place}", found=words_of(response), retry_after_s=wait)
        if response.status_code in (401, 403) and len(self._scopes) > 1:
            # Not even for reading another repository: what may be mounted from there is sent instead.
            response.close()
            self._scopes = self._scopes[:1]
            self._fetch(challenge)
            return
        if response.status_code != 200:
            who = (
                repr(self._credentials.username) if self._credentials else "nobody: no credentials were given"
            )
            raise InputError(
                f"token server {place} gives no token for {' '.join(self._scopes)} to {who}",
                found=f"status {response.status_code}",
                remedy="Look at the user, the password and what the user may do",
            )
        answer = json_object(read_all(response), f"the answer of token server {place}")
        token = answer.get("token") or answer.get("access_token")
        if not isinstance(token, str):
            raise InputError(f"the answer of token server {place}", found=sorted(answer), wanted="a token")
        life = answer.get("expires_in")
        seconds = life if isinstance(life, int | float) and life > 0 else _SHORTEST_LIFE_S
        self._token, self._good_until = token, time.monotonic() + _USED_SHARE * seconds


def _parse(header: str) -> _Challenge | None:
    match = _CHALLENGE.match(header)
    if match is None:
        return None
    values = {name.lower(): value for name, value in _PARAMETER.findall(match[2])}
    scheme = match[1].lower()
    if scheme == "bearer" and "realm" not in values:
        return None
    return _Challenge(scheme, values.get("realm", ""), values.get("service", ""))
