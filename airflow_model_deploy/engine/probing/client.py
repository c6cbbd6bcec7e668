"""Asks one running server over the Open Inference Protocol v2; judges no answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from airflow_model_deploy.engine.errors import InputError, ModelDeployError, UnavailableError
from airflow_model_deploy.engine.probing.protocol import from_tensor, to_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    import httpx
    import numpy as np

_OVERLOADED = frozenset({429, 502, 503, 504})  # the same request may succeed later


class ProbeError(ModelDeployError):
    """A server that answered, and not with what was asked for; carries the server's own words.

    `status` is the HTTP status, or None where the answer could not be read or its process ended.
    """

    def __init__(
        self,
        thing: str,
        *,
        found: object = None,
        wanted: object = None,
        remedy: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(thing, found=found, wanted=wanted, remedy=remedy)
        self.status = status
        self.permanent = status not in _OVERLOADED


class Client:
    """One model on one server. Keeps its connection; use as a context manager.

    Args:
        base_url: "http://host:port".
        model: the model's name on that server.
        timeout_s: bound for connecting and for each wait on the answer.
    """

    def __init__(self, base_url: str, model: str, timeout_s: float = 10.0) -> None:
        import httpx

        if not base_url.startswith(("http://", "https://")):
            raise InputError("the address of a server", found=base_url, wanted="http://... or https://...")
        self.base_url = base_url.rstrip("/")
        self.model = model
        # Proxies from the environment stay out: a probe asks that very server, by the shortest way.
        self._http = httpx.Client(base_url=self.base_url, timeout=timeout_s, trust_env=False)
        self._model_path = f"/v2/models/{quote(model, safe='')}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def live(self) -> bool:
        """Whether the server says that it lives; raises UnavailableError where nothing answers."""
        return self._send("GET", "/v2/health/live").is_success

    def ready(self) -> bool:
        """Whether the server and this model say that they are ready."""
        paths = ("/v2/health/ready", f"{self._model_path}/ready")
        return all(self._send("GET", path).is_success for path in paths)

    def metadata(self) -> dict[str, Any]:
        """The model's own description: name, versions, inputs and outputs."""
        return self._json("GET", self._model_path)

    def infer(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Send one request; returns every output by name.

        Raises:
            UnavailableError: nothing answered in time.
            ProbeError: the server refused the request, failed on it, or answered something else.
        """
        body = {"inputs": [to_tensor(name, array) for name, array in inputs.items()]}
        answer = self._json("POST", f"{self._model_path}/infer", body)
        outputs = answer.get("outputs")
        if not isinstance(outputs, list):
            raise ProbeError(
                f"an answer of {self.base_url} without outputs", found=sorted(answer), wanted="outputs"
            )
        try:
            return {str(tensor["name"]): from_tensor(tensor) for tensor in outputs}
        except (InputError, KeyError, TypeError, AttributeError) as e:
            raise ProbeError(f"an answer of {self.base_url} that can't be read", found=str(e)) from e

    def metrics_text(self) -> str:
        """The server's metrics in Prometheus' text format."""
        return self._checked("GET", "/metrics").text

    def _json(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        response = self._checked(method, path, body)
        try:
            value = response.json()
        except ValueError as e:
            raise ProbeError(
                f"{self.base_url}{path} answered something that isn't JSON",
                found=response.text[:200],
                status=response.status_code,
            ) from e
        if not isinstance(value, dict):
            raise ProbeError(f"the answer of {self.base_url}{path}", found=type(value), wanted="an object")
        return value

    def _checked(self, method: str, path: str, body: object = None) -> httpx.Response:
        response = self._send(method, path, body)
        if not response.is_success:
            raise ProbeError(
                f"{self.base_url}{path} answered {response.status_code}",
                found=_words(response),
                wanted="2xx",
                status=response.status_code,
            )
        return response

    def _send(self, method: str, path: str, body: object = None) -> httpx.Response:
        import httpx

        try:
            return self._http.request(method, path, json=body)
        except (httpx.TransportError, httpx.DecodingError) as e:
            raise UnavailableError(
                f"{self.base_url}{path} did not answer",
                found=f"{type(e).__name__}: {e}",
                remedy="Look whether the server runs and listens there",
            ) from e


def _words(response: httpx.Response) -> str:
    """What the server said: the protocol's `error` field, else how the text begins."""
    try:
        said = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        said = response.text
    return str(said)[:500]
