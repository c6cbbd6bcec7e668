"""Makes a trained model smaller and faster: prune, recover, export, quantize, optimize."""

from __future__ import annotations

from airflow_model_deploy.engine.compression.choice import Candidate, Choice, Measurement
from airflow_model_deploy.engine.compression.cost import ModelCost, model_cost
from airflow_model_deploy.engine.compression.export import export_onnx
from airflow_model_deploy.engine.compression.masks import (
    TensorZeros,
    ZeroReport,
    apply_masks,
    zero_fraction,
    zero_report,
)
from airflow_model_deploy.engine.compression.optimization import apply as apply_choice
from airflow_model_deploy.engine.compression.optimization import candidates, choose
from airflow_model_deploy.engine.compression.quantization import quantize_dynamic, quantize_static
from airflow_model_deploy.engine.compression.recovery import fit_in_place, masked_training
from airflow_model_deploy.engine.compression.selection import prunable_weights
from airflow_model_deploy.engine.compression.structured import prune_channels
from airflow_model_deploy.engine.compression.unstructured import magnitude_masks, mean_threshold
from airflow_model_deploy.engine.models import CpuFingerprint, cpu_fingerprint

__all__ = [
    "Candidate",
    "Choice",
    "CpuFingerprint",
    "Measurement",
    "ModelCost",
    "TensorZeros",
    "ZeroReport",
    "apply_choice",
    "apply_masks",
    "candidates",
    "choose",
    "cpu_fingerprint",
    "export_onnx",
    "fit_in_place",
    "magnitude_masks",
    "masked_training",
    "mean_threshold",
    "model_cost",
    "prunable_weights",
    "prune_channels",
    "quantize_dynamic",
    "quantize_static",
    "zero_fraction",
    "zero_report",
]
