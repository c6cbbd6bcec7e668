"""One question to Prometheus' HTTP API, and its answer as series of numbers; knows no metric's meaning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError, UnavailableError
from airflow_model_deploy.engine.monitoring.metrics_text import Labels

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

_LATER = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Series:
    """One series: its name, its other labels, and (seconds since 1970, value) in order. NaN is left out."""

    name: str
    labels: Labels
    samples: tuple[tuple[float, float], ...]


def ask(
    url: str, query: str, at: float | None, timeout_s: float, headers: Mapping[str, str] | None
) -> list[Series]:
    """Evaluate a query at a time (None: now); a series without a number isn't in the answer.

    Raises:
        UnavailableError: nothing answers, or it says to come later.
        InputError: it refuses, or isn't a Prometheus.
    """
    import httpx

    parameters = {"query": query} | ({} if at is None else {"time": f"{at:.3f}"})
    try:
        address = httpx.URL(url.rstrip("/") + "/api/v1/query")
        thing = f"Prometheus at {address.copy_with(username=None, password=None)}"
        # Proxies from the environment stay out, as for every server that is asked by its address.
        with httpx.Client(timeout=timeout_s, trust_env=False, headers=dict(headers or {})) as client:
            response = client.get(address, params=parameters)
    except httpx.InvalidURL as e:
        raise InputError("the address of Prometheus", found=str(e), wanted="http://host:port") from e
    except httpx.TransportError as e:
        raise UnavailableError(
            thing,
            found=f"{type(e).__name__}: {e}",
            wanted=f"an answer within {timeout_s:g} s",
            remedy="Check the address and that this machine may reach it.",
        ) from e
    body = _body(response, thing)
    try:
        found = [_series(result) for result in _results(body["data"], thing)]
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise InputError(thing, found=f"an answer that can't be read: {e!r}", wanted="series") from e
    return [series for series in found if series.samples]


def _body(response: httpx.Response, thing: str) -> dict[str, Any]:
    if response.status_code in _LATER:
        raise UnavailableError(thing, found=_words(response), wanted="an answer")
    try:
        body = response.json()
    except ValueError:
        body = None
    if (
        not isinstance(body, dict)
        or body.get("status") != "success"
        or not isinstance(body.get("data"), dict)
    ):
        raise InputError(
            thing,
            found=_words(response),
            wanted="an answer of its query API",
            remedy="Check address and credentials.",
        )
    return body


def _words(response: httpx.Response) -> str:
    return f"{response.status_code} {response.text[:300]}"


def _results(data: dict[str, Any], thing: str) -> list[dict[str, Any]]:
    kind, result = data.get("resultType"), data.get("result")
    if kind == "scalar":
        return [{"metric": {}, "value": result}]
    if kind not in {"vector", "matrix"} or not isinstance(result, list):
        raise InputError(thing, found=f"a {kind}", wanted="scalar, vector or matrix")
    return result


def _series(result: dict[str, Any]) -> Series:
    labels = dict(result["metric"])
    name = labels.pop("__name__", "")
    # A native histogram's series has neither key: it has no buckets of ours.
    pairs = result.get("values") or [result[key] for key in ("value",) if key in result]
    samples = ((float(at), float(value)) for at, value in pairs)
    return Series(name, frozenset(labels.items()), tuple(s for s in samples if math.isfinite(s[1])))
