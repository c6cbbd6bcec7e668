"""A canary judged by the samples of a real Prometheus that scrapes the real pods and labels them as the docs say."""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from airflow_model_deploy.engine.deployment.targets.kubernetes.names import PORT
from airflow_model_deploy.engine.errors import RolloutError
from airflow_model_deploy.engine.packaging import Rollout
from tests.docs.examples import REPOSITORY, blocks
from tests.engine.deployment.cluster.load import Load
from tests.engine.deployment.cluster.served import HIGH
from tests.engine.deployment.cluster.steady import LENIENT, ONE, steady_site
from tests.prometheus_server import needs_prometheus, running_prometheus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.engine.deployment.cluster.models import Models
    from tests.engine.deployment.cluster.rollouts import Site

pytestmark = pytest.mark.kubernetes


def documented_config(folder: Path) -> str:
    """The docs' configuration, quicker, and finding pods by a file: Debian's build doesn't know Kubernetes."""
    (text,) = (
        one for one in blocks((REPOSITORY / "docs" / "kubernetes.md").read_text(), "yaml") if "scrape" in one
    )
    config = yaml.safe_load(text)
    (job,) = config["scrape_configs"]
    job |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod", "namespaces": {"names": ["models"]}}]
    job["file_sd_configs"] = [{"files": [f"{folder}/pods.json"]}]
    return str(yaml.safe_dump(config))


@contextmanager
def pods_found(site: Site, folder: Path) -> Iterator[None]:
    """Keep the file as Prometheus would find the namespace's pods by itself, with what it says of them."""

    def target(pod: dict[str, Any]) -> dict[str, Any]:
        meta, address = pod["metadata"], pod["status"]["podIP"]
        labels = {
            "__meta_kubernetes_namespace": meta["namespace"],
            "__meta_kubernetes_pod_name": meta["name"],
            **{
                f"__meta_kubernetes_pod_labelpresent_{re.sub(r'[^a-zA-Z0-9_]', '_', name)}": "true"
                for name in meta["labels"]
            },
        }
        return {"targets": [f"{address}:{PORT}"], "labels": labels}

    def look() -> None:
        while not ended.wait(0.3):
            pods = site.cluster.list("Pod", {})
            new = folder / "pods.new"
            new.write_text(json.dumps([target(pod) for pod in pods if pod["status"].get("podIP")]))
            new.rename(folder / "pods.json")

    ended = threading.Event()
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield
    ended.set()
    thread.join()


@needs_prometheus
def test_a_bad_release_goes_back_and_a_good_one_gets_through(models: Models, tmp_path: Path) -> None:
    with (
        steady_site(models) as steady,
        pods_found(steady.site, tmp_path),
        running_prometheus(tmp_path, documented_config(tmp_path)) as url,
    ):
        site = steady.site
        rollout = Rollout(
            strategy="canary",
            weights=(0.5,),
            bake_s=4.0,
            hold_s=60.0,
            interval_s=1.0,
            metrics="prometheus",
            prometheus_url=url,
        )
        with Load(site.address(), clients=4, fresh=4, pause_s=0.01, high_share=0.1, high=HIGH) as load:
            with pytest.raises(RolloutError, match=r"canary 50% fails.*answered with an error"):
                site.deploy(models["fails_on_some"], rollout, ONE, attempt="bad", objectives=LENIENT)
            steady.assert_withdrawn("bad", "answered with an error")
            good = site.deploy(
                models["better"], rollout, replace(ONE, drain_s=3.0), attempt="good", objectives=LENIENT
            )
        decision = site.decision()
        assert (decision.live, decision.previous) == (good.revision, steady.live)
        phases = decision.outcome.details["phases"]
        assert [one["status"] for one in phases] == ["pass", "pass"]
        # What Prometheus counted is what was asked, none twice and none made up.
        assert 20 <= phases[0]["canary"]["requests"] <= len(load.seen)
        assert phases[0]["canary"]["errors"] == 0
