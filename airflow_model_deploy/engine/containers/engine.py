"""The way to one container engine: its address, its certificates, whether it answers. Starts nothing there."""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError, ModelDeployError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker import APIClient
    from docker.tls import TLSConfig

_DEFAULT_URL = "unix:///var/run/docker.sock"
_ANSWER_WITHIN_S = 5.0
_ARCHITECTURES = ("amd64", "arm64")
_OLDEST = "1.24"  # what the client library knows at least; it only asks for the engine's version with it
_BAD_URL = (
    "Invalid bind address",
    "protocol is",
    "Install p",
)  # how docker-py words it: it has no type for it
_REMEDY = "Start the engine, or name one that runs (DOCKER_HOST, or the connection's host)"


@dataclass(frozen=True)
class Engine:
    """A Docker engine.

    Args:
        url: "unix:///path" or "tcp://host:2376"; empty: DOCKER_HOST, else the usual socket.
        ca_cert: file with the certificate of who signed the engine's; with it, or with a client's, TLS is used.
        client_cert: file with our certificate, for an engine that asks for one.
        client_key: file with its key.
        verify: refuse an engine whose certificate isn't signed by `ca_cert`.
        timeout_s: how long one answer may take. Builds and pulls have no bound.
    """

    url: str = ""
    ca_cert: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    verify: bool = True
    timeout_s: float = 60

    @property
    def address(self) -> str:
        """The URL that is really used."""
        return self.url or os.environ.get("DOCKER_HOST", "") or _DEFAULT_URL


def connect(engine: Engine) -> APIClient:
    """A client of an engine that answers.

    Raises:
        UnavailableError: none answers at the URL, which it names.
        InputError: docker isn't installed here, or the URL or a certificate's file can't be used.
    """
    try:
        from docker.errors import DockerException, TLSParameterError
    except ImportError as e:
        raise InputError(
            "the Docker client library", found="not installed here", remedy="Run: pip install 'docker>=7'"
        ) from e
    try:
        first = _client(engine, _OLDEST)
        version = first.version(api_version=False).get("ApiVersion")
        return _client(engine, str(version))
    except TLSParameterError as e:
        raise InputError(f"the certificates for the engine at {engine.address}", found=e.msg) from e
    except (DockerException, OSError) as e:
        if any(words in str(e) for words in _BAD_URL):
            wanted = "unix:///path or tcp://host:port"
            raise InputError("the engine's URL", found=f"{engine.address} ({e})", wanted=wanted) from e
        raise UnavailableError(
            f"no container engine answers at {engine.address}", found=_innermost(e), remedy=_REMEDY
        ) from e


def answers(engine: Engine) -> bool:
    """Whether an engine answers there, within a few seconds."""
    try:
        connect(replace(engine, timeout_s=min(engine.timeout_s, _ANSWER_WITHIN_S))).close()
    except ModelDeployError:
        return False
    return True


def engine_architecture(engine: Engine) -> str:
    """The processor of an engine's machine, as images name it: "amd64" or "arm64".

    Raises:
        UnavailableError: none answers at the URL.
        InputError: another processor, for which nothing of ours is built.
    """
    with (
        closing(connect(engine)) as client,
        engine_errors(f"the processor of the engine at {engine.address}"),
    ):
        said = str(client.version().get("Arch"))
    found = {"x86_64": "amd64", "aarch64": "arm64"}.get(said, said)
    if found not in _ARCHITECTURES:
        raise InputError(
            f"the processor of the engine at {engine.address}", found=said, wanted=" or ".join(_ARCHITECTURES)
        )
    return found


@contextmanager
def engine_errors(thing: str) -> Iterator[None]:
    """Turn the client library's exceptions inside the block into ours, with the engine's own words.

    Raises:
        UnavailableError: the engine is gone, too slow, or failed by its own fault (5xx).
        InputError: the engine refuses what was asked (4xx).
    """
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except APIError as e:
        words = str(e.explanation or e)
        kind = InputError if e.is_client_error() else UnavailableError
        raise kind(thing, found=words) from e
    except (RequestException, HTTPError) as e:
        raise UnavailableError(
            thing, found=f"the engine stopped answering: {_innermost(e)}", remedy=_REMEDY
        ) from e
    except DockerException as e:
        raise InputError(thing, found=str(e)) from e


def _client(engine: Engine, version: str) -> APIClient:
    """A client that leaves the environment alone, which "auto" would ask for a version before it can be told to.

    REQUESTS_CA_BUNDLE would replace the engine's own CA, and a proxy can't carry the streams of a container.
    """
    from docker import APIClient

    client = APIClient(
        base_url=engine.address, version=version, timeout=engine.timeout_s, tls=_tls(engine) or False
    )
    client.trust_env = False
    return client


def _tls(engine: Engine) -> TLSConfig | None:
    from docker.tls import TLSConfig

    ca, cert, key = engine.ca_cert, engine.client_cert, engine.client_key
    folder = os.environ.get("DOCKER_CERT_PATH", "")
    if not engine.url and not (ca or cert) and os.environ.get("DOCKER_TLS_VERIFY"):
        home = Path(folder) if folder else Path.home() / ".docker"
        ca, cert, key = (str(home / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    if not (ca or cert):
        return None
    pair = (cert or "", key or "") if cert or key else None
    return TLSConfig(client_cert=pair, ca_cert=ca, verify=engine.verify)


def _innermost(error: BaseException) -> str:
    """What really went wrong: the library wraps it three times over."""
    seen: BaseException = error
    while (deeper := seen.__cause__ or seen.__context__) is not None:
        seen = deeper
    return f"{type(seen).__name__}: {seen}"
