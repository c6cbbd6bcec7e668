"""A namespace with the rights of docs/kubernetes, the driver's real image, and operators that work by both."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

import airflow_model_deploy as md
from airflow_model_deploy.engine.artifacts import Description, Store
from airflow_model_deploy.engine.deployment import kubernetes
from airflow_model_deploy.engine.packaging.images import OciBuilder, driver_spec, package_cache
from tests.engine.deployment.cluster.namespaces import fresh_namespace
from tests.engine.deployment.cluster.rollouts import Site, release_of
from tests.engine.deployment.cluster.served import NAME
from tests.engine.deployment.cluster.steady import LENIENT, ONE
from tests.operators.accounts import Asked, account, recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_model_deploy.engine.packaging import Rollout
    from tests.engine.deployment.cluster.served import Served


def build_driver(registry: str) -> str:
    """Build the driver's image from the present sources, or find it; returns it by digest."""
    spec = driver_spec(f"{registry}/python:3.11-slim", package_cache())
    return OciBuilder().build(spec, f"{registry}/tests/driver", log=print).reference


@dataclass
class Place:
    """One namespace.

    Args:
        site: its service "tiny", as the cluster's administrator sees it.
        folder: of the store.
        worker: a kubeconfig with docs/cluster-roles/worker.yaml's rights.
        driver: likewise of driver.yaml.
        image: of the driver.
        asked: what this process has asked the API server for.
        proved: the tests that have ended well.
    """

    site: Site
    folder: Path
    worker: dict[str, Any]
    driver: dict[str, Any]
    image: str
    asked: Asked
    proved: set[str] = field(default_factory=set)

    def release(self, served: Served, rollout: Rollout, service: str = NAME) -> dict[str, Any]:
        """Publish a packaged release; returns the packaging's result."""
        content = json.loads(release_of(served, rollout, ONE, objectives=LENIENT))
        content["plan"]["name"] = service
        folder = self.folder / f"{time.monotonic_ns()}"
        servable = folder / "bundle" / "servable"
        servable.mkdir(parents=True)
        (folder / "release.json").write_text(json.dumps(content))
        for name in ("servable.json", "golden.json"):
            (servable / name).write_bytes((served.servable / name).read_bytes())
        reference, _ = self.store.publish(folder, Description(service, "release", "oci"))
        return {"artifact": reference.to_json()}

    @property
    def store(self) -> Store:
        return Store((self.folder / "store").as_uri())

    def rollout(self, release: dict[str, Any], **arguments: Any) -> md.RolloutOperator:
        """The task that rolls a release out."""
        return self.operator(md.RolloutOperator, task_id="deploy", release=release, **QUICK, **arguments)

    def operator(self, kind: Callable[..., Any], **arguments: Any) -> Any:
        """An operator that works in this namespace."""
        settings = md.KubernetesConfig(namespace=self.namespace, driver_image=self.image)
        return kind(target="kubernetes", kubernetes=settings, store=self.store.url, **arguments)

    @property
    def namespace(self) -> str:
        return self.site.cluster.namespace

    def decision(self, service: str = NAME) -> kubernetes.Decision:
        """The decision of a service."""
        found = self.site.cluster.get("Service", service)
        assert found is not None
        return kubernetes.decision_on(found)

    def drivers(self) -> list[dict[str, Any]]:
        """The pods of drivers, those that are being ended left out."""
        pods = self.site.cluster.list("Pod", {"model-deploy.io/step": "deploy"})
        return [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]


# A test has no time to look every two seconds.
QUICK = {
    "poll_interval": 0.3,
    "startup_check_interval_seconds": 1,
    "base_container_status_polling_interval": 0.3,
}


@contextmanager
def place_in_cluster(models: Any, folder: Path) -> Iterator[Place]:
    """Make the namespace, its accounts and the driver's image; record every call to the API meanwhile."""
    admin = kubernetes.Connection(path=os.environ["KUBECONFIG"])
    with fresh_namespace() as name, kubernetes.Cluster(admin, name) as cluster, recorded() as asked:
        image = build_driver(models.registry)
        worker, driver = (account(cluster, one) for one in ("worker", "driver"))
        yield Place(Site(cluster), folder, worker, driver, image, asked)


def context(run: str, try_number: int = 1) -> dict[str, Any]:
    """What an operator reads of Airflow's context."""
    ti = SimpleNamespace(
        dag_id="dag",
        run_id=run,
        task_id="deploy",
        map_index=-1,
        try_number=try_number,
        start_date=datetime.now(UTC),
        xcom_push=lambda key, value: None,
    )
    return {"ti": ti, "run_id": run, "dag": SimpleNamespace(), "outlet_events": {}, "params": {}}


def attempt(run: str, try_number: int = 1) -> str:
    """The key under which the cluster keeps the end of such a task."""
    return f"dag/{run}/deploy/-1/{try_number}"


def deferred(task: Any, of: dict[str, Any]) -> TaskDeferred:
    """Execute a task up to its deferral."""
    with pytest.raises(TaskDeferred) as caught:
        task.execute(of)
    return caught.value


def again(of: TaskDeferred) -> Any:
    """The trigger as the triggerer makes it: from what Airflow has stored."""
    _, fields = of.trigger.serialize()
    return type(of.trigger)(**fields)


def event_of(of: TaskDeferred) -> dict[str, Any]:
    """Run the trigger of a deferral to its event."""

    async def first() -> dict[str, Any]:
        async for event in again(of).run():
            return dict(event.payload)
        raise AssertionError("no event")

    return asyncio.run(first())


def wait_until(condition: Callable[[], object], what: str, within_s: float = 90.0) -> None:
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.1)


class Started(threading.Thread):
    """Something that takes its time, begun; `ended` gives what it returned, or raises what it raised."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error

    def ended(self, within_s: float = 90.0) -> Any:
        """Wait for the end."""
        self.join(within_s)
        assert not self.is_alive(), "it goes on"
        if self._error is not None:
            raise self._error
        return self._result
