"""Take in a trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.operators.base import StepOperator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from airflow_model_deploy.config import ModelCode


class IngestModelOperator(StepOperator):
    """Make an artifact of weights with their factory, of a Hugging Face folder or an ONNX file, or check one.

    :param source: a .safetensors, .pt, .pth (state dicts) or .onnx file, the folder of a transformers model with
        safetensors, or an artifact's URI. (templated)
    :param name: the model's name. (templated)
    :param sha256: what the file must hash to. (templated)
    :param task: what a transformers folder is taken for: "auto", "embedding", "classification", "base" or
        "causal-lm". (templated)
    :param code: factory and data; a transformers folder or an ONNX file needs no factory, its data only measures.
    """

    step = "ingest"

    def __init__(
        self,
        *,
        source: str,
        name: str,
        sha256: str | None = None,
        task: str | None = None,
        code: ModelCode | Mapping[str, ModelCode] | None = None,
        **kwargs: Any,
    ) -> None:
        spec = {"source": source, "sha256": sha256, "task": task}
        super().__init__(code=code, name=name, spec=spec, **kwargs)

    def full_spec(self, context: Context) -> dict[str, Any]:
        """Add the model's name."""
        return super().full_spec(context) | {"name": self.name}

    def code_spec(self, code: ModelCode, context: Context) -> dict[str, Any]:
        """Add the factory, and what may vary."""
        return super().code_spec(code, context) | {"factory": code.factory, "dynamic": code.dynamic}
