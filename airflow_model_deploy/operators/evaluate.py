"""Test the servable against its gates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from airflow_model_deploy.config import GateConfig, ModelCode
from airflow_model_deploy.operators.base import StepOperator
from airflow_model_deploy.operators.execution import UNSET

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context


class EvaluateModelOperator(StepOperator):
    """Run the servable in its real server and hold it to its gates; a gate that isn't kept fails the task.

    :param servable: the result of the build. (templated)
    :param baseline: the result of the task that trained or ingested the model. (templated)
    :param code: data and metric; without them no gate on quality can be kept.
    :param champion: what serves now, to be compared with on the same data: the result or reference of a release or
        a servable, or an Asset whose last event names one, as those of ``deploy_model`` and ``package_image`` do;
        None, or an Asset without events: nothing to compare with. (templated)
    :param name: chooses from a mapping of code. (templated)
    :param gates: what has to be kept. (templated)
    """

    step = "test"
    template_fields: Sequence[str] = (*StepOperator.template_fields, "champion")

    def __init__(
        self,
        *,
        servable: Any,
        baseline: Any,
        code: ModelCode | Mapping[str, ModelCode] | None = None,
        name: str = "",
        gates: GateConfig | None = None,
        champion: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            inputs={"servable": servable, "baseline": baseline},
            code=code,
            name=name,
            spec=dict(vars(gates or GateConfig())),
            **kwargs,
        )
        self.champion = champion
        if isinstance(champion, Asset):
            self.inlets = [*self.inlets, champion]

    def full_inputs(self, context: Context) -> dict[str, Any]:
        """Add the champion, if there is one."""
        champion = self.champion
        if isinstance(champion, Asset):
            events = context["inlet_events"][champion]
            champion = events[-1].extra if len(events) else None
        return self.inputs if champion in UNSET else {**self.inputs, "champion": champion}

    def full_spec(self, context: Context) -> dict[str, Any]:
        """Add the gates that are not set: to the step, an absent one means its default."""
        gates = [name for name in self.spec if name != "confident"]  # no gate of its own
        return dict.fromkeys(gates) | super().full_spec(context)
