"""A small perceptron of a test's own."""

from __future__ import annotations

import torch
from torch import nn


class Toy(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
        )

    def forward(self, points):
        return self.layers(points)


def build(width=64):
    return Toy(width)


def fit(model, inputs, targets, *, epochs, progress, seed=0):
    points, labels = torch.from_numpy(inputs["points"]), torch.from_numpy(targets)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in progress(range(epochs), "epochs"):
        loss = nn.functional.cross_entropy(model(points), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def diverge(model, inputs, targets, *, epochs, progress, seed=0):
    raise RuntimeError("the loss is NaN after 3 steps")


def fit_for_long(model, inputs, targets, *, epochs, progress, seed=0):
    import time

    for _ in progress(range(10_000), "epochs"):
        fit(model, inputs, targets, epochs=1, progress=lambda items, label: items)
        time.sleep(0.05)
