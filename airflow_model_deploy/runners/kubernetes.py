"""Runs a step in a pod: KubernetesPodOperator waits for it and reads its log, we say what it is and why it ended.

How the store is opened goes into a Secret that the pod owns: it can't outlive it, whoever removes the pod, and is in
no argument, no variable and no pod's description. The verdict is the result file in the store, never the pod's own.
"""

from __future__ import annotations

import hashlib
import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_model_deploy.engine.errors import InputError, ModelDeployError
from airflow_model_deploy.runners.base import Log, Runner, ended_without_result, read_result
from airflow_model_deploy.runners.pod import TASK, Pod, labels, pod_object, secret_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
    from airflow.sdk import BaseOperator

    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import Cluster
    from airflow_model_deploy.engine.steps import StepRequest, StepResult

__all__ = ["KubernetesRunner", "Pod"]

_LOG_SECONDS = 15  # how often the triggerer passes on what a deferred task's pod has said
_GONE_SECONDS = 3.0  # Airflow kills a task five seconds after it asked it to end


class KubernetesRunner(Runner):
    """Runs steps in pods.

    :param pod: what to run.
    :param connect: opens the pod's namespace of the cluster.
    :param conn_id: the Airflow connection to the same cluster, for the waiting.
    :param task: the operator whose step it is.
    :param context: of its execution.
    :param log: where the runner's own lines go.
    """

    def __init__(
        self,
        pod: Pod,
        connect: Callable[[], Cluster],
        *,
        conn_id: str,
        task: BaseOperator,
        context: Any,
        log: Log | None = None,
    ) -> None:
        self.pod, self.conn_id, self.task, self.context = pod, conn_id, task, context
        self.log: Log = log or logging.getLogger(__name__)
        self._connect = connect
        self._waiter: KubernetesPodOperator | None = None
        self._request: StepRequest | None = None
        self._options: Mapping[str, Any] | None = None
        self._name = ""
        self._cancelled = False

    def start(
        self,
        request: StepRequest,
        *,
        store_options: Mapping[str, Any] | None = None,
        connections: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Remove what earlier attempts left, create the pod, and the Secret that it waits for.

        Raises:
            InputError: the store is a folder of this machine, the cluster refuses, or the step acts on engines.
            UnavailableError: the cluster doesn't answer.
        """
        _refuse(request, connections)
        self._request, self._options = request, store_options
        name, task = f"model-deploy-{request.step}-{uuid4().hex[:10]}", self._mark()
        described = pod_object(self.pod, request, name, task=task, has_secret=bool(store_options))
        self._waiter = waiter = self._make_waiter(request.step, described)
        waiter.pod_request_obj = waiter.build_pod_request_obj(self.context)
        body = waiter.client.api_client.sanitize_for_serialization(waiter.pod_request_obj)
        with self._connect() as cluster:
            self._remove_left(cluster)
            self._name = name
            with self._removed_unless_kept(keep=()):
                self._require_not_cancelled()
                made = _created(cluster, body)
                self._require_not_cancelled()  # `cancel` may have come before there was anything to delete
                waiter.pod = waiter.pod_request_obj
                if store_options:
                    _created(cluster, secret_object(made, store_options))
        self.log.info("pod %s in namespace %s runs step %s", name, self.pod.namespace, request.step)
        return {"name": name, "namespace": self.pod.namespace}

    def wait(self) -> StepResult:
        """Wait for the pod's end; a deferrable one raises TaskDeferred, for the operator to raise as its own."""
        waiter = self._waiter
        if waiter is None:
            raise RuntimeError("wait() needs start()")
        return self._ended(waiter.execute_async if self.pod.deferrable else waiter.execute_sync)

    def resume(
        self,
        handle: Mapping[str, Any],
        request: StepRequest,
        *,
        store_options: Mapping[str, Any] | None = None,
        connections: Mapping[str, Any] | None = None,
    ) -> StepResult:
        """Go on after a deferral: `handle` is the trigger's event, which names the pod."""
        _refuse(request, connections)
        self._request, self._options, self._name = request, store_options, str(handle["name"])
        event = dict(handle)
        described = pod_object(self.pod, request, self._name, task=self._mark(), has_secret=False)
        self._waiter = waiter = self._make_waiter(request.step, described)
        if event["status"] == "timeout":  # it may run for long yet: its log would be followed to the end
            return self._ended(lambda _: None, str(event.get("message") or ""))
        return self._ended(lambda context: waiter.trigger_reentry(context, event))

    def cancel(self) -> None:
        """Delete the pod, and wait for its end; also while `start` or `wait` runs."""
        self._cancelled = True
        if not self._name:
            return
        # A connection of its own: the other one may be in the middle of a call that this one interrupts.
        with self._told(), self._connect() as cluster:
            self._delete(cluster)
            deadline = time.monotonic() + _GONE_SECONDS
            while cluster.get("Pod", self._name) is not None and time.monotonic() < deadline:
                time.sleep(0.1)

    def remove_left(self) -> None:
        """Remove the pods that attempts at this task have left; a Secret goes with its pod."""
        with self._told(), self._connect() as cluster:
            self._remove_left(cluster)

    def _remove_left(self, cluster: Cluster) -> None:
        for left in cluster.list("Pod", {TASK: self._mark()}):
            self.log.info("removing pod %s of an earlier attempt", left["metadata"]["name"])
            cluster.delete("Pod", left["metadata"]["name"])

    def _require_not_cancelled(self) -> None:
        if self._cancelled:
            raise InterruptedError("the step was cancelled before its pod was started")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what could not be removed, and go on: the step's own end is what matters to the task."""
        try:
            yield
        except ModelDeployError as error:
            self.log.warning("pod %s may be left running: %s", self._name or "of this task", error)

    def _ended(self, waiting: Callable[[Any], Any], said: str = "") -> StepResult:
        from airflow.providers.common.compat.sdk import AirflowException, TaskDeferred
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        with self._removed_unless_kept(keep=(TaskDeferred,)):
            try:
                waiting(self.context)
            except (AirflowException, ApiException, HTTPError) as error:
                said = _first_line(error)
            return self._result(said)

    def _result(self, said: str) -> StepResult:
        from airflow_model_deploy.runners.pod_ending import Ending, ending

        request = self._request
        if request is None:
            raise RuntimeError("a result needs a request")
        if found := read_result(request, self._options):
            return found
        if self._cancelled:
            how = Ending("the step was cancelled; nothing of it is left running, and a retry starts it anew")
        else:
            with self._connect() as cluster:
                pod = cluster.get("Pod", self._name)
                how = ending(self.pod, pod, said, cluster.events(self._name) if pod else [])
        return ended_without_result(request, how.message, permanent=how.permanent)

    @contextmanager
    def _removed_unless_kept(self, keep: tuple[type[BaseException], ...]) -> Iterator[None]:
        """Remove pod and Secret at the end of a start that failed, or of a run, unless it goes on elsewhere."""
        kept = False
        try:
            yield
            kept = not keep  # a start that went well
        except keep:
            kept = True
            raise
        finally:
            if not kept:
                with self._told(), self._connect() as cluster:
                    self._delete(cluster)

    def _delete(self, cluster: Cluster) -> None:
        cluster.delete("Pod", self._name)
        if self._options:  # before the cluster's own cleaning gets to it
            cluster.delete("Secret", self._name)

    def _make_waiter(self, step: str, described: dict[str, Any]) -> KubernetesPodOperator:
        from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

        waiter = KubernetesPodOperator(
            task_id=self.task.task_id,
            kubernetes_conn_id=self.conn_id,
            namespace=self.pod.namespace,
            labels=labels(step, self._mark()),
            pod_template_dict=described,
            random_name_suffix=False,  # its name is random already
            do_xcom_push=False,
            deferrable=self.pod.deferrable,
            logging_interval=_LOG_SECONDS if self.pod.deferrable else None,
            startup_timeout_seconds=round(self.pod.startup_timeout_s),
            startup_check_interval_seconds=1,
            on_finish_action="keep_pod",  # it is asked why it ended, then we delete it
            termination_message_policy="FallbackToLogsOnError",
            log_events_on_failure=True,
            log_pod_spec_on_failure=False,
            container_name_log_prefix_enabled=False,
            execution_timeout=self.task.execution_timeout,
        )
        # A pod of an earlier attempt writes another result: it is replaced, never taken over.
        waiter.durable = waiter.reattach_on_restart = False
        return waiter

    def _mark(self) -> str:
        task = self.context["ti"]
        parts = (task.dag_id, task.run_id, task.task_id, str(task.map_index))
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _refuse(request: StepRequest, connections: Mapping[str, Any] | None) -> None:
    from airflow_model_deploy.engine.artifacts import is_local

    if is_local(request.store):
        raise InputError(
            "the store can't be reached from a pod",
            found=request.store,
            wanted="a store that worker and cluster both reach, such as s3://",
            remedy="Set [model_deploy] store, or `store` of the operator.",
        )
    if connections:
        raise InputError(
            f"step {request.step!r} can't run in a pod",
            found="a step that talks to engines or clusters",
            wanted="a computing step",
            remedy="Leave `pod` out.",
        )


def _created(cluster: Cluster, obj: dict[str, Any]) -> dict[str, Any]:
    from airflow_model_deploy.engine.deployment.targets.kubernetes.cluster import ExistsError

    try:
        return cluster.create(obj)
    except ExistsError:  # the name is random: it is ours, from a call whose answer was lost
        found = cluster.get(obj["kind"], obj["metadata"]["name"])
        if found is None:
            raise
        return found


def _first_line(error: Exception) -> str:
    """Return what an error says without the whole object that some carry."""
    return (str(error).strip() or type(error).__name__)[:500]
