"""Paths of the protocol, and what is wrong with the others; knows no answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .request import RequestError

if TYPE_CHECKING:
    from .servable import Servable


class Routes:
    """What each path of one servable asks for; `inference` are the paths that take a POST."""

    def __init__(self, servable: Servable) -> None:
        self._servable = servable
        self.inference: frozenset[str] = frozenset()
        self._operations = {
            "/metrics": "metrics",
            "/v2": "server",
            "/v2/health/live": "live",
            "/v2/health/ready": "ready",
        }
        model = f"/v2/models/{servable.name}"
        for base in (model, f"{model}/versions/{servable.version}"):
            self._operations |= {base: "model", f"{base}/ready": "model_ready", f"{base}/infer": "infer"}
            self.inference |= {f"{base}/infer"}

    def find(self, path: str) -> str:
        """Return the operation.

        Raises:
            RequestError: 404, saying what there is.
        """
        operation = self._operations.get(path)
        if operation is None:
            raise RequestError(self._explain(path), status=404, reason="not_found")
        return operation

    def _explain(self, path: str) -> str:
        name, version = self._servable.name, self._servable.version
        match path.split("/"):
            case ["", "v2", "models", other, *_] if other != name:
                return f"model {other[:200]!r}: not served here, {name!r} is"
            case ["", "v2", "models", _, "versions", other, *_] if other != version:
                return f"version {other[:200]!r}: not served here, {version!r} is"
        return f"{path[:200]}: no such path"
