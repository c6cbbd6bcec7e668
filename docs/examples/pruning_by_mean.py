"""The worked case of the mean rules: ten weights and their gradients."""

# A program that is run by hand.
# ruff: noqa: TID253

# [START by_mean]
import torch

from airflow_model_deploy.engine.compression import score_masks

w = torch.tensor([1.0, -5, 3, 7, 2, -8, 6, -1, 9, 0])
g = torch.tensor([0.2, 0.05, 0.3, 0.1, 0.15, 0.05, 0.2, 0.1, 0.3, 0.05])
for name, scores in {"|w|": w, "|g|": g, "|w g|": w * g}.items():
    kept = score_masks({"layer": scores}, rule="mean", weights={"layer": w})["layer"]
    print(f"{name:5} sum {scores.abs().sum():.4g}, mean {scores.abs().mean():.3g}: {w[kept].tolist()} stay")
# [END by_mean]
