"""Makes a trained model smaller and faster: prune, recover, distil, export, quantize, optimize, and plan all of it.

Where to look:

- pruning single weights: `unstructured` (scores), `score_masks` (rules), `exact_mean`, `gradients`, `activations`,
  `layouts`, `selection` (which weights), `masks`
- pruning structure: `structured` and `channel_groups` (channels), `ffn` (feed-forward neurons), `removal`
- training: `training` (our loop), `recovery` (the user's), `losses`, `distillation`, `teaching_losses`, `hidden_states`
- to ONNX: `export`, `normal_form`, `forward`, `cost`
- integers: `affine` (the formulas), `weight_nodes` (what can be quantized), `mixed` (a format for each node),
  `rewriting`, `weight_only`, `outliers`, `quantization` (static), `calibration`, `node_choice`, `weight_zeros`,
  `publishing`
- graphs: `optimization`, `choice`, `trials`
- planning: `sensitivity`, `bit_losses`, `answer_losses`, `layer_costs`, `knapsack`, `plan`
"""

from __future__ import annotations

from airflow_model_deploy.engine.compression.activations import input_square_sums
from airflow_model_deploy.engine.compression.affine import (
    AffineParameters,
    affine_dequantize,
    affine_parameters,
    affine_quantize,
    fake_quantize,
)
from airflow_model_deploy.engine.compression.answer_losses import cosine_loss, relative_error
from airflow_model_deploy.engine.compression.bit_losses import bit_losses
from airflow_model_deploy.engine.compression.choice import Candidate, Choice, Measurement
from airflow_model_deploy.engine.compression.cost import ModelCost, model_cost
from airflow_model_deploy.engine.compression.distillation import Distillation, Teaching, check_outputs
from airflow_model_deploy.engine.compression.exact_mean import mean_threshold
from airflow_model_deploy.engine.compression.export import export_onnx
from airflow_model_deploy.engine.compression.ffn import FeedForward, feed_forward_blocks, prune_ffn
from airflow_model_deploy.engine.compression.forward import forward
from airflow_model_deploy.engine.compression.gradients import accumulated_gradients, batch_gradients
from airflow_model_deploy.engine.compression.knapsack import best_upgrade, cheapest
from airflow_model_deploy.engine.compression.layer_costs import LayerCost, layer_costs
from airflow_model_deploy.engine.compression.layouts import Layout, weight_layouts
from airflow_model_deploy.engine.compression.losses import LOSSES, Loss, resolve_loss
from airflow_model_deploy.engine.compression.masks import (
    TensorZeros,
    ZeroReport,
    apply_masks,
    joined_masks,
    zero_fraction,
    zero_masks,
    zero_report,
)
from airflow_model_deploy.engine.compression.mixed import quantize_dynamic, quantize_mixed
from airflow_model_deploy.engine.compression.node_choice import chosen_nodes, formats_by_pattern
from airflow_model_deploy.engine.compression.optimization import apply as apply_choice
from airflow_model_deploy.engine.compression.optimization import candidates, choose
from airflow_model_deploy.engine.compression.plan import (
    PLAN_VERSION,
    Budget,
    Objective,
    Structure,
    Treatment,
    Verified,
    treatment_of,
)
from airflow_model_deploy.engine.compression.quantization import quantize_static
from airflow_model_deploy.engine.compression.recovery import fit_in_place, masked_training
from airflow_model_deploy.engine.compression.score_masks import check_rule, score_masks
from airflow_model_deploy.engine.compression.selection import prunable_weights
from airflow_model_deploy.engine.compression.sensitivity import (
    LayerSensitivity,
    activations_of,
    analyse,
    treatments,
)
from airflow_model_deploy.engine.compression.structured import prune_channels
from airflow_model_deploy.engine.compression.training import Schedule, Trained, train_in_place
from airflow_model_deploy.engine.compression.unstructured import (
    magnitude_masks,
    taylor_scores,
    wanda_scores,
)
from airflow_model_deploy.engine.compression.weight_nodes import (
    Format,
    WeightedNode,
    graph_nodes,
    weighted_nodes,
)
from airflow_model_deploy.engine.compression.weight_zeros import weight_zeros
from airflow_model_deploy.engine.models import CpuFingerprint, cpu_fingerprint

__all__ = [
    "LOSSES",
    "PLAN_VERSION",
    "AffineParameters",
    "Budget",
    "Candidate",
    "Choice",
    "CpuFingerprint",
    "Distillation",
    "FeedForward",
    "Format",
    "LayerCost",
    "LayerSensitivity",
    "Layout",
    "Loss",
    "Measurement",
    "ModelCost",
    "Objective",
    "Schedule",
    "Structure",
    "Teaching",
    "TensorZeros",
    "Trained",
    "Treatment",
    "Verified",
    "WeightedNode",
    "ZeroReport",
    "accumulated_gradients",
    "activations_of",
    "affine_dequantize",
    "affine_parameters",
    "affine_quantize",
    "analyse",
    "apply_choice",
    "apply_masks",
    "batch_gradients",
    "best_upgrade",
    "bit_losses",
    "candidates",
    "cheapest",
    "check_outputs",
    "check_rule",
    "choose",
    "chosen_nodes",
    "cosine_loss",
    "cpu_fingerprint",
    "export_onnx",
    "fake_quantize",
    "feed_forward_blocks",
    "fit_in_place",
    "formats_by_pattern",
    "forward",
    "graph_nodes",
    "input_square_sums",
    "joined_masks",
    "layer_costs",
    "magnitude_masks",
    "masked_training",
    "mean_threshold",
    "model_cost",
    "prunable_weights",
    "prune_channels",
    "prune_ffn",
    "quantize_dynamic",
    "quantize_mixed",
    "quantize_static",
    "relative_error",
    "resolve_loss",
    "score_masks",
    "taylor_scores",
    "train_in_place",
    "treatment_of",
    "treatments",
    "wanda_scores",
    "weight_layouts",
    "weight_zeros",
    "weighted_nodes",
    "zero_fraction",
    "zero_masks",
    "zero_report",
]
