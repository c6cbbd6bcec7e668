"""The code that an author of a Dag brings along for one model: data, factory, training, a metric of one's own."""

# A model's own code, which no Dag imports.
# ruff: noqa: TID253, TC003

# [START imports]
from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn

# [END imports]


# [START data]
def load(split: str, samples: int = 400) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return a split: two coordinates a sample under "points", and the class of each sample."""
    random = np.random.default_rng(0 if split == "train" else 1)
    points = random.normal(size=(samples, 2)).astype(np.float32)
    labels = (points[:, 0] * points[:, 1] > 0).astype(np.int64)
    return {"points": points}, labels


def fingerprint(samples: int = 400) -> str:
    """Return something that changes when the data does: here the data follows from its size."""
    return f"{samples} samples, drawn with seeds 0 and 1"


# [END data]


# [START factory]
class Net(nn.Module):
    """A small perceptron. The argument of forward has the name of the loader's array."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
        )

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Map points (n, 2) to scores (n, 2)."""
        return self.layers(points)


def build(width: int = 64) -> nn.Module:
    """Return the untrained model."""
    return Net(width)


# [END factory]


# [START fit]
def fit(
    model: nn.Module,
    inputs: dict[str, np.ndarray],
    targets: np.ndarray,
    *,
    epochs: int,
    progress: Callable[[Iterable[int], str], Iterable[int]],
    seed: int,
    learning_rate: float = 1e-2,
) -> None:
    """Train in place. Pruning calls this again to let the model recover."""
    points, labels = torch.from_numpy(inputs["points"]), torch.from_numpy(targets)
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    model.train()
    for _ in progress(range(epochs), "epochs"):
        for rows in torch.randperm(len(points), generator=random).split(100):
            loss = nn.functional.cross_entropy(model(points[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


# [END fit]


# [START metric]
def recall(outputs: dict[str, np.ndarray], targets: np.ndarray, of_class: int = 1) -> float:
    """Return the share of a class's samples that the model finds; more is better."""
    found = outputs["output"].argmax(axis=1) == of_class
    return float(found[targets == of_class].mean())


# [END metric]
