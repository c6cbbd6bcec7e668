"""A training function that goes on where a killed attempt stopped."""

# A model's own code, which no Dag imports.
# ruff: noqa: TID253, TC002, TC003

# [START fit]
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import nn


def fit(
    model: nn.Module,
    inputs: dict[str, np.ndarray],
    targets: np.ndarray,
    *,
    epochs: int,
    progress: Callable[[Iterable[int], str], Iterable[int]],
    seed: int = 0,
    checkpoint: Any = None,
) -> None:
    """Train in place; whatever decides the next epoch is in the checkpoint."""
    points, labels = torch.from_numpy(inputs["points"]), torch.from_numpy(targets)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    order = torch.Generator().manual_seed(seed)
    done = 0
    state = checkpoint.load() if checkpoint is not None else None
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        order.set_state(state["order"])
        torch.set_rng_state(state["dropout"])
        done = state["epoch"]
    model.train()
    for epoch in progress(range(done, epochs), "epochs"):
        for rows in torch.randperm(len(points), generator=order).split(64):
            loss = nn.functional.cross_entropy(model(points[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if checkpoint is not None:
            checkpoint.save(
                {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "order": order.get_state(),
                    "dropout": torch.get_rng_state(),
                    "epoch": epoch + 1,
                }
            )


# [END fit]
