"""Train a model, or take one in where its source is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.operators import execution
from airflow_model_deploy.operators.base import StepOperator
from airflow_model_deploy.operators.execution import UNSET

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_model_deploy.config import ModelCode


class TrainModelOperator(StepOperator):
    """Train a model with the author's own function; with a ``source``, ingest that instead.

    :param code: factory, data and training function, or a mapping of names to them; None: an ONNX file is the
        source.
    :param name: the model's name; chooses from a mapping. (templated)
    :param epochs: passes over the training data. (templated)
    :param seed: every random choice follows from it. (templated)
    :param threads: threads to train with. (templated)
    :param source: where a trained model is (weights, an ONNX file, an artifact's URI); empty: train. (templated)
    """

    template_fields: Sequence[str] = (*StepOperator.template_fields, "source")

    def __init__(
        self,
        *,
        code: ModelCode | Mapping[str, ModelCode] | None = None,
        name: str,
        epochs: int | str | None = None,
        seed: int | str | None = None,
        threads: int | str | None = None,
        source: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            code=code, name=name, spec={"epochs": epochs, "seed": seed, "threads": threads}, **kwargs
        )
        self.source = source

    def step_name(self) -> str:
        """Ingest where a source is named, else train."""
        return "ingest" if self._has_source else "train"

    @property
    def _has_source(self) -> bool:
        return self.source not in UNSET

    def full_spec(self, context: Context) -> dict[str, Any]:
        """Return the spec of whichever of the two steps runs."""
        spec = super().full_spec(context) | {"name": self.name}
        if self._has_source:
            kept = ("name", "data", "metric", "factory", "dynamic")
            return {key: spec[key] for key in kept if key in spec} | {"source": self.source}
        missing = [key for key in ("factory", "fit", "data") if spec.get(key) is None]
        if missing:
            execution.fail(
                f"the model {self.name!r} can't be trained; found: no {', no '.join(missing)}; wanted: all three in its"
                " ModelCode; give them, or name a trained model as the source"
            )
        return spec

    def code_spec(self, code: ModelCode, context: Context) -> dict[str, Any]:
        """Add factory and training function, and what may vary."""
        added = {"factory": code.factory, "fit": code.fit, "dynamic": code.dynamic}
        return super().code_spec(code, context) | added
