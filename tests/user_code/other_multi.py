"""Two inputs and two outputs: a picture and some numbers give a class and a value."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class PictureAndNumbers(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.picture = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(128, width),
            nn.ReLU(),
        )
        self.numbers = nn.Sequential(nn.Linear(3, width), nn.ReLU())
        self.kind = nn.Linear(2 * width, 2)
        self.value = nn.Linear(2 * width, 1)

    def forward(self, picture, numbers):
        seen = torch.cat([self.picture(picture), self.numbers(numbers)], dim=1)
        return {"value": self.value(seen), "kind": self.kind(seen)}


def build(width=32):
    return PictureAndNumbers(width)


def fit(model, inputs, targets, *, epochs, progress, seed=0):
    feed = {name: torch.from_numpy(array) for name, array in inputs.items()}
    kind, value = torch.from_numpy(targets["kind"]), torch.from_numpy(targets["value"])
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in progress(range(epochs), "epochs"):
        found = model(**feed)
        loss = nn.functional.cross_entropy(found["kind"], kind)
        loss = loss + nn.functional.mse_loss(found["value"][:, 0], value)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def load(split):
    random = np.random.default_rng(len(split))
    count = 400 if split == "train" else 160
    numbers = random.normal(size=(count, 3)).astype("float32")
    picture = random.normal(0, 0.3, (count, 1, 8, 8)).astype("float32")
    kind = random.integers(0, 2, count)
    picture[kind == 1, :, :4] += 1  # bright above, or bright below
    picture[kind == 0, :, 4:] += 1
    value = (numbers @ [0.5, -1.0, 0.25] + kind).astype("float32")
    # In an order of the data's own, which is not that of forward's arguments.
    return {"numbers": numbers, "picture": picture}, {"kind": kind, "value": value}


def cost(outputs, targets, weight=1.0):
    """Share of wrong kinds, and the mean error of the value."""
    wrong = float((outputs["kind"].argmax(1) != targets["kind"]).mean())
    return wrong + weight * float(np.abs(outputs["value"][:, 0] - targets["value"]).mean())


cost.higher_is_better = False
