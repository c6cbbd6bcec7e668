"""A regression on a table: how far diabetes has come a year later, on scikit-learn's data."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class Regressor(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(10),
            nn.Linear(10, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 1),
        )
        self.register_buffer("scale", torch.tensor([150.0, 80.0]))

    def forward(self, features):
        return self.layers(features) * self.scale[1] + self.scale[0]


def build(width=64):
    return Regressor(width)


def fit(model, inputs, targets, *, epochs, progress, seed=0):
    features, wanted = torch.from_numpy(inputs["features"]), torch.from_numpy(targets)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    for _ in progress(range(epochs), "epochs"):
        loss = nn.functional.mse_loss(model(features)[:, 0] / 80, wanted / 80)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def load(split, dtype="float32"):
    from sklearn.datasets import load_diabetes

    data = load_diabetes()
    rows = np.arange(len(data.target)) % 4 == 0
    rows = rows if split == "test" else ~rows
    return {"features": data.data[rows].astype(dtype)}, data.target[rows].astype("float32")
