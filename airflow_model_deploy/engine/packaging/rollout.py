"""How a release takes over the traffic in a Kubernetes cluster, and when it gives it back. Moves none itself."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, get_args
from urllib.parse import urlsplit

from airflow_model_deploy.engine.packaging.jsonobject import JsonObject, is_number, is_positive
from airflow_model_deploy.engine.packaging.settings import is_whole, require, with_tuples

Strategy = Literal["blue-green", "canary", "rolling"]
Metrics = Literal["servers", "prometheus"]
# More than half of the traffic is no trial any more, and would need more pods than the stable revision has.
_LARGEST_WEIGHT = 0.5


@dataclass(frozen=True)
class Rollout(JsonObject):
    """The way from one revision to the next.

    Args:
        strategy: all at once beside the old one, by shares of the traffic, or pod by pod without a second full set.
        weights: a canary's shares of the traffic, rising, none above 0.5.
        bake_s: how long each share, and the whole after the switch, is watched.
        hold_s: how much longer an undecided verdict is waited for before the way back.
        interval_s: between two looks.
        alpha: probability of sending a good revision back by chance, over all looks together.
        metrics: where the counts come from: the servers themselves, or a Prometheus that scrapes them.
        prometheus_url: of its HTTP API, without credentials.
        max_surge: pods above `replicas` while rolling.
        max_unavailable: pods below `replicas` while rolling.
        ready_timeout_s: for the pods of a revision to be ready; None: by the model's size.
    """

    # pydantic would ignore a misspelt setting.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    strategy: Strategy = "blue-green"
    weights: tuple[float, ...] = (0.1, 0.5)
    bake_s: float = 60.0
    hold_s: float = 300.0
    interval_s: float = 5.0
    alpha: float = 0.01
    metrics: Metrics = "servers"
    prometheus_url: str | None = None
    max_surge: int = 1
    max_unavailable: int = 0
    ready_timeout_s: float | None = None

    def __post_init__(self) -> None:
        kinds = get_args(Strategy)
        self._check("strategy", self.strategy in kinds, f"one of {kinds}", "blue-green needs no settings.")
        self._check_weights()
        self._check_times()
        self._check_metrics()
        self._check_rolling()

    @classmethod
    def _parsed(cls, value: dict[str, Any]) -> dict[str, Any]:
        return with_tuples(value, ("weights",))

    def _check(self, name: str, ok: bool, wanted: str, remedy: str) -> None:
        require(ok, f"rollout: {name}", getattr(self, name), wanted, remedy)

    def _check_weights(self) -> None:
        shares = self.weights
        ok = isinstance(shares, tuple) and bool(shares) and all(map(is_positive, shares))
        self._check("weights", ok and len(shares) <= 10, "1 to 10 shares above 0", "Such as [0.1, 0.5].")
        wanted = f"none above {_LARGEST_WEIGHT}"
        remedy = "End with 0.5: the switch itself brings the rest."
        self._check("weights", max(shares) <= _LARGEST_WEIGHT, wanted, remedy)
        self._check(
            "weights", all(a < b for a, b in pairwise(shares)), "rising shares", "Sort them; no share twice."
        )

    def _check_times(self) -> None:
        for name in ("bake_s", "hold_s"):
            value = getattr(self, name)
            self._check(name, is_number(value) and value >= 0, "0 or more seconds", "0: no such wait.")
        self._check("interval_s", is_positive(self.interval_s), "above 0 seconds", "5 is the default.")
        timeout = self.ready_timeout_s
        ok = timeout is None or is_positive(timeout)
        self._check("ready_timeout_s", ok, "above 0 seconds, or null", "Null: by the model's size.")
        ok = is_positive(self.alpha) and self.alpha <= 0.5
        self._check("alpha", ok, "above 0, at most 0.5", "0.01 sends one good revision in a hundred back.")

    def _check_metrics(self) -> None:
        kinds, url = get_args(Metrics), self.prometheus_url
        self._check("metrics", self.metrics in kinds, f"one of {kinds}", "'servers' needs nothing else.")
        if url is None:
            ok, wanted = self.metrics == "servers", "a URL with metrics 'prometheus'"
            self._check(
                "prometheus_url", ok, wanted, "Name its HTTP API, as http://prometheus.monitoring:9090."
            )
            return
        ok = isinstance(url, str) and not set("@?#") & set(url)
        # The plan is stored and travels with the release; the refusal must not repeat what it found, either.
        remedy = "Leave user, password and query out of it."
        require(ok, "rollout: prometheus_url", "'@', '?' or '#' in it, or no text", "a plain URL", remedy)
        parts = urlsplit(url)
        ok = parts.scheme in ("http", "https") and bool(parts.hostname)
        self._check("prometheus_url", ok, "http://... or https://...", "Name its HTTP API.")

    def _check_rolling(self) -> None:
        for name in ("max_surge", "max_unavailable"):
            self._check(name, is_whole(getattr(self, name), 0), "0 or more pods", "Count pods, not percent.")
        ok, wanted = self.max_surge + self.max_unavailable > 0, "not 0 together with max_unavailable"
        self._check("max_surge", ok, wanted, "With no pod above and none below, nothing can be replaced.")
