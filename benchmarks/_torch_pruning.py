"""Prunes the digits model by Torch-Pruning's own pruner: python -m benchmarks._torch_pruning MODEL TARGET RATIO ...

Then the example's own training as recovery and the same export: only the pruner is another one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
import torch_pruning

from airflow_model_deploy.engine.compression import export_onnx
from airflow_model_deploy.engine.models import load_torch_model, reproducible, resolve
from example_models import digits_data, digits_model


def main() -> None:
    """Prune, recover, export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder of a trained model")
    parser.add_argument("target", type=Path, help="ONNX file to write")
    parser.add_argument("--ratio", type=float, required=True)
    parser.add_argument("--round-to", type=int, default=8)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args()
    model = load_torch_model(given.model, resolve)
    inputs, targets = digits_data.load("train")
    example = {"images": torch.from_numpy(inputs["images"][:2])}
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        example["images"],
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=given.ratio,
        round_to=given.round_to,
        ignored_layers=[model.classifier],
    )
    pruner.step()
    with reproducible(given.seed, 1):
        digits_model.fit(
            model, inputs, targets, epochs=given.epochs, seed=given.seed, progress=lambda steps, _: steps
        )
    export_onnx(model, example, given.target)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(json.dumps({"parameters": parameters, "torch-pruning": torch_pruning.__version__}))


if __name__ == "__main__":
    main()
