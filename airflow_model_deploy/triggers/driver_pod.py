"""Waits for a driver's pod in the triggerer; a task that is killed meanwhile has its traffic given back.

Airflow tells a trigger of a kill from version 3.3 on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger

from airflow_model_deploy.operators import clusters
from airflow_model_deploy.operators.verdict import Driven, ended

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

# Airflow gives `on_kill` 30 seconds ([triggerer] on_kill_timeout).
_PATIENCE_S, _CALLS_S = 15.0, 5.0


class DriverPodTrigger(KubernetesPodTrigger):
    """The trigger of KubernetesPodOperator, which also knows what the pod was sent to do.

    :param driven: that, as JSON.
    """

    def __init__(self, *, driven: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.driven = driven

    @classmethod
    def of(cls, trigger: BaseTrigger, driven: str) -> DriverPodTrigger:
        """Return the same trigger, knowing what the pod was sent to do."""
        _, fields = trigger.serialize()
        return cls(**{**fields, "driven": driven})

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments; Airflow encrypts what it stores of them."""
        _, fields = super().serialize()
        return f"{type(self).__module__}.{type(self).__qualname__}", {**fields, "driven": self.driven}

    async def on_kill(self) -> None:
        """Delete the pod with time to give the traffic back, and see that it did."""
        await super().on_kill()
        if not self._fired_event and self.on_kill_action.value != "keep_pod":
            await asyncio.to_thread(self._see_to_it)

    def _see_to_it(self) -> None:
        driven = Driven.from_json(self.driven)
        if driven is None:
            return
        fields = clusters.cluster_fields(
            self.connection_extras or {},
            in_cluster=self.in_cluster,
            context=self.cluster_context,
            config=self.config_dict,
        )
        with clusters.open_cluster(fields, driven.namespace, log=self.log, patience_s=_CALLS_S) as cluster:
            outcome = ended(cluster, driven, patience_s=_PATIENCE_S, log=self.log)
        self.log.info("%s: %s", driven.service, outcome.result if outcome else "nothing had been moved")
