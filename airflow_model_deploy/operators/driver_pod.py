"""The pod in the cluster that moves a service's traffic, as a task.

This module alone subclasses KubernetesPodOperator, and pays for its import when a Dag is parsed. The pod's own end
decides nothing: it may be lost, deleted or collected before anybody has seen it. What became of the traffic stands on
the service in the cluster, and is read there on every way out.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

from airflow_model_deploy.config import KubernetesConfig
from airflow_model_deploy.operators import clusters, driver_spec, execution
from airflow_model_deploy.operators.driver_end import PodEnd, concluded
from airflow_model_deploy.operators.verdict import Driven, ended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import timedelta
    from typing import NoReturn

    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

# Airflow ends a killed task's process five seconds after it asked it to end.
_KILL_PATIENCE_S, _KILL_CALLS_S = 3.0, 2.0


class DriverPodOperator(KubernetesPodOperator):
    """Send a driver into the cluster, wait for it, deferred if wanted, and tell how the cluster says it ended.

    :param kubernetes: namespace, connection, driver and service. (templated)
    """

    template_fields: Sequence[str] = ("kubernetes", *KubernetesPodOperator.template_fields)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **KubernetesPodOperator.template_fields_renderers,
        "kubernetes": "json",
    }

    def __init__(self, *, kubernetes: KubernetesConfig | None = None, **kwargs: Any) -> None:
        given = {**(kwargs.get("default_args") or {}), **kwargs}
        ours = {"kubernetes_conn_id": None, **driver_spec.DEFAULTS}
        super().__init__(**{name: value for name, value in ours.items() if name not in given}, **kwargs)
        # KubernetesPodOperator means its pod's sidecar by this; the result here is the step's own.
        self.do_xcom_push = True
        self.kubernetes = asdict(kubernetes or KubernetesConfig())
        self._driven: Driven | None = None
        self._reached: dict[str, Any] | None = None
        self._adopted = False

    def drive(self, driven: Driven, context: Context) -> dict[str, Any]:
        """Run the driver; returns the result, or raises as `concluded` says."""
        self.adopt()
        self._driven = driven
        driver_spec.send(self, driven)
        wait = super().execute
        return self._followed(context, lambda: wait(context))

    def release_of(self) -> Any:
        """Return the release that the driver deploys; None where there is none."""
        return None

    def sent(self, context: Context) -> Driven | None:
        """Return what this try's driver was sent to do, where its pod is gone; None where that can't be known."""
        del context
        return None

    def adopt(self) -> None:
        """Take over what the settings say and the pod's own arguments don't; once, after rendering."""
        if not self._adopted:
            self._adopted = True
            driver_spec.adopt(self, self.kubernetes)
            self.cluster_fields()

    def cluster_fields(self) -> dict[str, Any]:
        """Return how the cluster is reached, with credentials: never logged, and passed on privately only."""
        if self._reached is None:
            # Found once: a task that is killed may be in the middle of asking Airflow for something.
            extras = clusters.connection_extras(str(self.kubernetes_conn_id))
            self._reached = clusters.cluster_fields(
                extras, in_cluster=self.in_cluster, path=self.config_file, context=self.cluster_context
            )
        return self._reached

    def find_pod(self, namespace: str, context: Context, *, exclude_checked: bool = True) -> Any:
        """Find this task's newest driver that isn't being ended; the base class gives up where it sees two."""
        selector = self._build_find_pod_label_selector(context, exclude_checked=exclude_checked)
        pods = self.client.list_namespaced_pod(namespace, label_selector=selector).items
        living = [pod for pod in pods if pod.metadata.deletion_timestamp is None]
        return max(living, key=lambda pod: pod.metadata.creation_timestamp, default=None)

    def get_or_create_pod(self, pod_request_obj: Any, context: Context) -> Any:
        """Find the driver of an earlier try whose worker died, or start one; never follow one with other work."""
        if self._killed:
            raise InterruptedError("the task was killed before its driver was started")
        pod = self._unless_killed(super().get_or_create_pod(pod_request_obj, context))
        found, ours = driver_spec.driven_by(pod), self._driven
        ending = pod.metadata.deletion_timestamp is not None
        if found is None or ours is None or ending or not found.same_work(ours):
            self.log.info("Pod %s is being ended, or was sent to do something else", pod.metadata.name)
            self.pod_manager.delete_pod(pod)
            self.reattach_on_restart = False
            return self._unless_killed(super().get_or_create_pod(pod_request_obj, context))
        self._driven = found
        return pod

    def _unless_killed(self, pod: Any) -> Any:
        """Return a pod; end it where the task was killed while it was made: `on_kill` couldn't know it."""
        if not self._killed:
            return pod
        if self.on_kill_action.value != "keep_pod":
            self.pod_manager.delete_pod(pod)
        raise InterruptedError("the task was killed while its driver was started")

    def convert_config_file_to_dict(self) -> None:
        """Read the worker's kubeconfig for the triggerer, unless the connection says how the cluster is reached."""
        extras = clusters.connection_extras(str(self.kubernetes_conn_id))
        if not clusters.cluster_fields(extras).keys() - {"context"}:
            super().convert_config_file_to_dict()  # type: ignore[no-untyped-call]

    def defer(
        self,
        *,
        trigger: BaseTrigger,
        method_name: str,
        kwargs: dict[str, Any] | None = None,
        timeout: timedelta | float | None = None,
    ) -> NoReturn:
        """Defer by our own trigger, which knows whose traffic is at stake when the task is killed."""
        from airflow_model_deploy.triggers.driver_pod import DriverPodTrigger

        text = self._driven.to_json() if self._driven else ""
        super().defer(
            trigger=DriverPodTrigger.of(trigger, text),
            method_name=method_name,
            kwargs={**(kwargs or {}), "driven": text},
            timeout=timeout,
        )

    def trigger_reentry(self, context: Context, event: dict[str, Any], driven: str | None = None) -> Any:
        """Resume after the deferral. Without `driven` it is `execute` itself that found the pod ended already."""
        if driven is None:
            return super().trigger_reentry(context, event)
        self.adopt()
        self._driven = Driven.from_json(driven)
        if (
            event["status"] == "timeout"
        ):  # it may be at work for long yet: its log would be followed to the end
            return self._followed(context, lambda: self._end(event))
        resume = super().trigger_reentry
        return self._followed(context, lambda: resume(context, event))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume; where the deferral itself failed or ran out of time, end the driver and read the verdict, too."""
        resume = super().resume_execution
        if hasattr(self, next_method):
            return resume(next_method, next_kwargs, context)
        self.adopt()
        self.pod = self.find_pod(str(self.namespace), context)
        self._driven = driver_spec.driven_by(self.pod)
        if self._driven is not None:
            self.pod_manager.delete_pod(self.pod)
        else:
            self._driven = self.sent(context)
        if self._driven is not None:
            return self._followed(context, lambda: resume(next_method, next_kwargs, context))
        self.log.warning(
            "No driver is left, and so no verdict was read; `model-deploy status` shows what serves"
        )
        return resume(next_method, next_kwargs, context)

    def on_kill(self) -> None:
        """End the driver, which gives the traffic back, and see that it did."""
        from airflow_model_deploy.engine.errors import ModelDeployError

        self._killed = True
        if self._driven is None or self.on_kill_action.value == "keep_pod":
            return
        try:
            # A client of its own: the other one may be in the middle of a call that this one interrupts.
            with clusters.open_cluster(
                self.cluster_fields(), self._driven.namespace, log=self.log, patience_s=_KILL_CALLS_S
            ) as cluster:
                if self.pod is not None:
                    cluster.delete("Pod", self.pod.metadata.name)
                ended(cluster, self._driven, patience_s=_KILL_PATIENCE_S, log=self.log)
        except ModelDeployError as error:
            self.log.warning("The driver was told to end, but its end was not seen: %s", error)

    def _end(self, event: dict[str, Any]) -> NoReturn:
        """Tell the driver of a task that is out of time to end."""
        from airflow.providers.common.compat.sdk import AirflowException

        from airflow_model_deploy.engine.errors import ModelDeployError

        name = str(event["name"])
        with clusters.open_cluster(self.cluster_fields(), str(event["namespace"]), log=self.log) as cluster:
            with suppress(ModelDeployError):  # a pod that never ran may say why
                for said in cluster.events(name):
                    self.log.warning("Pod %s: %s", name, said)
            cluster.delete("Pod", name)  # by its own grace, in which it gives the traffic back
        raise AirflowException(str(event.get("message") or "the task is out of time"))

    def _followed(self, context: Context, wait: Callable[[], Any]) -> dict[str, Any]:
        """Wait for the pod, and then ask the cluster, however that went."""
        from airflow.providers.common.compat.sdk import AirflowException

        failure: Exception | None = None
        try:
            with self._without_sidecar():
                wait()
        except Exception as error:
            # Whatever the pod, its node or the way to it said: the verdict stands in the cluster.
            failure = error
        driven = self._driven
        if driven is None or self._killed:
            raise AirflowException(f"the driver was ended: {failure or 'the task was killed'}") from failure
        seen = PodEnd(
            failure,
            driver_spec.exit_code(self),
            float(self.termination_grace_period or driver_spec.GRACE_S) + 10.0,
        )
        with clusters.open_cluster(self.cluster_fields(), driven.namespace, log=self.log) as cluster:
            result = concluded(
                cluster, driven, seen, release=self.release_of(), context=context, log=self.log
            )
        execution.announce(self.outlets, context, result)
        return result

    @contextmanager
    def _without_sidecar(self) -> Iterator[None]:
        """Keep KubernetesPodOperator from adding a sidecar for a result: Airflow reads the flag only afterwards."""
        self.do_xcom_push = False
        try:
            yield
        finally:
            self.do_xcom_push = True
