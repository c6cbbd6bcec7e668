"""Wait until a service in a cluster serves a revision that has proved itself; changes nothing there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator

from airflow_model_deploy.operators import clusters, execution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from airflow_model_deploy.engine.deployment import kubernetes as k8s


class ModelServiceSensor(BaseSensorOperator):
    """True as soon as a confirmed revision of a service is live; another Dag may have deployed it.

    A revision is confirmed once its rollout has ended well: one that is still being watched doesn't count. Each look
    is one call to the cluster, so ``mode="reschedule"`` fits.

    :param name: the service. (templated)
    :param namespace: where it runs; None: the connection's. (templated)
    :param conn_id: connection of type kubernetes; None: that of ``[model_deploy] kubernetes_conn_id``. (templated)
    :param revision: the one that is waited for; None: any. Where its last rollout was rolled back, the task fails at
        once. (templated)
    """

    template_fields: Sequence[str] = ("service", "namespace", "conn_id", "revision")
    ui_color = "#e3eedd"

    def __init__(
        self,
        *,
        name: str,
        namespace: str | None = None,
        conn_id: str | None = None,
        revision: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.service = name
        self.namespace = namespace
        self.conn_id = conn_id
        self.revision = revision

    def poke(self, context: Context) -> bool:
        """Look once."""
        from airflow_model_deploy.engine.errors import ModelDeployError
        from airflow_model_deploy.operators.verdict import read_decision

        del context
        extras = clusters.connection_extras(clusters.connection_id({"conn_id": self.conn_id}))
        namespace = execution.given(self.namespace) or clusters.connection_namespace(extras)
        fields = clusters.cluster_fields(extras)
        try:
            with clusters.open_cluster(fields, str(namespace), log=self.log) as cluster:
                _, decision = read_decision(cluster, self.service)
        except ModelDeployError as error:
            if error.permanent:
                execution.fail(str(error))
            self.log.warning("It can't be looked at now: %s", error)  # the sensor's own timeout is the bound
            return False
        wanted = execution.given(self.revision)
        if wanted:
            self._require_not_rolled_back(decision, wanted)
        self.log.info(
            "%s: live %s, stage %s", self.service, decision.live or "none", decision.stage or "none"
        )
        # After the switch all requests go to a revision that is still being watched.
        return decision.live is not None and decision.stage != "switched" and wanted in (None, decision.live)

    def _require_not_rolled_back(self, decision: k8s.Decision, wanted: str) -> None:
        if wanted in (decision.live, decision.candidate):
            return
        last = (decision.outcome,) if decision.outcome else ()
        for one in (*last, *decision.history):
            taken_out = one.action == "rollback" and one.result == "promoted" and decision.previous == wanted
            sent_back = one.revision == wanted and one.result in ("rolled back", "held")
            if taken_out or sent_back:
                execution.fail(
                    f"revision {wanted} of {self.service} was rolled back; found: live {decision.live}; wanted:"
                    f" {wanted}; {one.reason}"
                )
            if one.revision == wanted:
                return
