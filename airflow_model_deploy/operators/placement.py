"""From an author's settings, which were rendered and so may all be text, to the runner of a container or a pod."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.operators import execution
from airflow_model_deploy.version_compat import read_config

if TYPE_CHECKING:
    from airflow_model_deploy.runners import KubernetesRunner, Runner
    from airflow_model_deploy.runners.base import Log


def container_runner(container: Mapping[str, Any], *, log: Log) -> Runner:
    """Return the runner in a container, from the rendered fields of a `ContainerConfig`."""
    from airflow_model_deploy.engine.containers import Credentials, Engine
    from airflow_model_deploy.operators.engines import docker_connections
    from airflow_model_deploy.runners import Container, DockerRunner

    fields = _Fields(container, "ContainerConfig")
    described = Container(
        image=fields.image(),
        memory_bytes=fields.number("memory_bytes", int),
        cpus=fields.number("cpus", float),
        gpus=fields.number("gpus", int) or 0,
        network=execution.given(container.get("network")) or "bridge",
        mounts=tuple(container.get("mounts") or ()),
        environment=fields.environment(),
    )
    reached = docker_connections(container.get("docker") or {})
    return DockerRunner(
        Engine(**reached["engine"]),
        described,
        credentials=[Credentials(**one) for one in reached["registries"]],
        log=log,
    )


def pod_runner(pod: Mapping[str, Any], task: Any, context: Any, *, log: Log) -> KubernetesRunner:
    """Return the runner in a pod, from the rendered fields of a `PodConfig`."""
    from airflow_model_deploy.operators.clusters import (
        cluster_fields,
        connection_extras,
        connection_id,
        connection_namespace,
        open_cluster,
    )
    from airflow_model_deploy.runners import KubernetesRunner, Pod

    fields, conn_id = _Fields(pod, "PodConfig"), connection_id(pod)
    extras = connection_extras(conn_id)
    defaults = Pod(
        image=fields.image(), namespace=execution.given(pod.get("namespace")) or connection_namespace(extras)
    )
    described = replace(
        defaults,
        cpus=fields.number("cpus", float),
        memory_bytes=fields.number("memory_bytes", int),
        scratch_bytes=fields.number("scratch_bytes", int) or defaults.scratch_bytes,
        gpus=fields.number("gpus", int) or 0,
        gpu_resource=execution.given(pod.get("gpu_resource")) or defaults.gpu_resource,
        node_selector=dict(pod.get("node_selector") or {}),
        tolerations=tuple(pod.get("tolerations") or ()),
        service_account=execution.given(pod.get("service_account")),
        image_pull_secrets=tuple(pod.get("image_pull_secrets") or ()),
        startup_timeout_s=fields.number("startup_timeout_s", float) or defaults.startup_timeout_s,
        deferrable=fields.flag("deferrable", read_config("operators", "default_deferrable")),
        environment=fields.environment(),
    )
    # What opens it again when the task is killed must not ask Airflow for the connection: found here, once.
    reached = cluster_fields(extras)
    return KubernetesRunner(
        described,
        lambda: open_cluster(reached, described.namespace, log=log),
        conn_id=conn_id,
        task=task,
        context=context,
        log=log,
    )


@dataclass(frozen=True)
class _Fields:
    """The rendered fields of one of the author's settings, which may all be text."""

    values: Mapping[str, Any]
    owner: str

    def image(self) -> str:
        found = execution.given(self.values.get("image")) or read_config("model_deploy", "worker_image")
        if not found:
            execution.fail(
                "no worker image is named; found: none; wanted: one that `model-deploy image worker` made; set `image`"
                f" of {self.owner} or [model_deploy] worker_image"
            )
        return str(found)

    def number(self, name: str, kind: type[Any]) -> Any:
        value = execution.given(self.values.get(name))
        try:
            return None if value is None else kind(value)
        except ValueError:
            return execution.fail(f"{name} of {self.owner}; found: {value!r}; wanted: a number")

    def flag(self, name: str, default: str) -> bool:
        value = execution.given(self.values.get(name))
        return str(default if value is None else value).strip().lower() in ("true", "1", "yes", "on")

    def environment(self) -> dict[str, str]:
        return {name: str(value) for name, value in (self.values.get("environment") or {}).items()}
