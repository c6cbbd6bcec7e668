"""Reads the metrics of pods; one that can't be read is unknown, never an error."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import ModelDeployError
from airflow_model_deploy.engine.monitoring import parse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Reach
    from airflow_model_deploy.engine.deployment.targets.kubernetes.revisions import Pod
    from airflow_model_deploy.engine.monitoring import Scrape

_WITHIN_S = 5.0


def scrape_pods(reach: Reach, pods: Iterable[Pod]) -> dict[str, Scrape | None]:
    """Return the metrics of every pod by its name; None of one that could not be read."""
    return {pod["metadata"]["name"]: _scrape(reach, pod) for pod in pods}


def _scrape(reach: Reach, pod: Pod) -> Scrape | None:
    import httpx

    if not pod.get("status", {}).get("podIP"):
        return None
    with ExitStack() as stack:
        try:
            url = stack.enter_context(reach.pod(pod))
            answer = httpx.get(f"{url}/metrics", timeout=_WITHIN_S, trust_env=False)
            answer.raise_for_status()
            return parse(answer.text)
        except (httpx.HTTPError, ModelDeployError):
            return None
