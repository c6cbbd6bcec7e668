"""The same counts from a Prometheus server: raw samples of the pods' own counters; knows no Kubernetes.

`increase()` isn't asked: it extrapolates, begins to count a series at its second sample, and keeps a dead pod's good
numbers for its whole range. The samples themselves are read, and added up as if each scrape of Prometheus were ours
(`counts.py`): `up` says when a pod was scraped and whether it answered.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.monitoring.metrics_text import START_TIME
from airflow_model_deploy.engine.monitoring.observation import REQUESTS
from airflow_model_deploy.engine.monitoring.prometheus_api import Series, ask
from airflow_model_deploy.engine.monitoring.prometheus_pods import LOOKBACK_S, UP, Target, counts, one_a_pod

if TYPE_CHECKING:
    from airflow_model_deploy.engine.monitoring.counts import Counts

_SAMPLES = (f"{REQUESTS}_count", f"{REQUESTS}_bucket")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


@dataclass(frozen=True)
class PrometheusSource:
    """Where a Prometheus answers, and how it labels pods.

    Args:
        url: of the server, before "/api/v1" ("http://prometheus:9090").
        namespace_label: the label that holds a pod's namespace.
        pod_label: the label that holds a pod's name.
        timeout_s: for each question.
        headers: sent along, such as Authorization.
        interval_s: between two scrapes; None: as the samples show.
    """

    url: str
    namespace_label: str = "namespace"
    pod_label: str = "pod"
    timeout_s: float = 10.0
    headers: Mapping[str, str] | None = field(default=None, repr=False)  # may hold a token
    interval_s: float | None = None

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise InputError("the address of Prometheus", found=self.url, wanted="http://... or https://...")
        for label in (self.namespace_label, self.pod_label):
            if not _LABEL.fullmatch(label):
                raise InputError("a label of Prometheus", found=label, wanted="letters, digits, '_'")

    def now(self) -> float:
        """Prometheus' own clock, in seconds since 1970; windows begin and end by it."""
        return self._ask("time()", None)[0].samples[0][1]

    def counts(
        self,
        pods: str,
        *,
        start: float,
        latency_ms: float,
        namespace: str | None = None,
        now: float | None = None,
    ) -> Counts:
        """What the pods counted from the last scrape before `start` to the last before `now`.

        A pod that Prometheus first tried to scrape after `start` counts from 0. One whose last scrape failed, or is
        older than two intervals, is unknown; so are all where none is being scraped any more.

        Args:
            pods: a regular expression for the whole of a pod's name.
            start: seconds since 1970, by Prometheus' clock.
            latency_ms: the objective that a slow request is over.
            namespace: theirs; None: any.
            now: the window's end; default: Prometheus' own present.

        Raises:
            UnavailableError: Prometheus doesn't answer, or not now.
            InputError: it refuses the question, or isn't a Prometheus.
        """
        end = self.now() if now is None else now
        where = f"{self.pod_label}=~{json.dumps(pods, ensure_ascii=False)}"
        if namespace is not None:
            where += f",{self.namespace_label}={json.dumps(namespace, ensure_ascii=False)}"
        names = "|".join((UP, START_TIME, *_SAMPLES))
        span_ms = math.ceil((max(end - start, 0.0) + LOOKBACK_S) * 1000)
        found = self._ask(f'{{__name__=~"{names}",{where}}}[{span_ms}ms]', end)
        ups = [(dict(series.labels).get(self.pod_label, ""), series) for series in found if series.name == UP]
        targets = one_a_pod([Target(up, found, pod) for pod, up in ups])
        # A target that was taken away ends with a mark that only this kind of question heeds.
        present = {s.labels: s.samples[0][1] for s in self._ask(f"timestamp(up{{{where}}})", end)}
        return counts(targets, present, start, end, latency_s=latency_ms / 1000, interval_s=self.interval_s)

    def window(self, pods: str, *, latency_ms: float, namespace: str | None = None) -> PrometheusWindow:
        """Make a window over these pods, to be started; see `counts`."""
        return PrometheusWindow(self, pods, latency_ms, namespace)

    def _ask(self, query: str, at: float | None) -> list[Series]:
        return ask(self.url, query, at, self.timeout_s, self.headers)


class PrometheusWindow:
    """What `Window` is, by a Prometheus' samples instead of own scrapes."""

    def __init__(self, source: PrometheusSource, pods: str, latency_ms: float, namespace: str | None) -> None:
        self._source, self._pods, self._latency_ms, self._namespace = source, pods, latency_ms, namespace
        self._start: float | None = None

    def start(self) -> None:
        """Begin here, or begin anew."""
        self._start = self._source.now()

    def counts(self) -> Counts:
        """What happened since the start; raises what `PrometheusSource.counts` does."""
        if self._start is None:
            raise InputError("a window of a rollout", found="no start", wanted="start() before counts()")
        return self._source.counts(
            self._pods, start=self._start, latency_ms=self._latency_ms, namespace=self._namespace
        )
