"""Students, losses and a resumable training of a test's own."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import nn
from toy_model import Toy


def build(width=8):
    return Toy(width)


def wide(width=8):
    return nn.Linear(2, 5)


class Renamed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Linear(2, 2)

    def forward(self, dots):
        return self.layers(dots)


def renamed():
    return Renamed()


def loss(outputs, targets, *, pause=None):
    """Cross-entropy that waits to be killed as soon as somebody asks for it, at the 30th batch."""
    waiting = Path(pause) if pause else None
    if waiting and waiting.is_dir():
        number = len(list(waiting.iterdir()))
        (waiting / f"{number}").touch()
        time.sleep(0.03)
        if number == 30:
            time.sleep(120)
    return nn.functional.cross_entropy(outputs, targets)


def fit(model, inputs, targets, *, epochs, progress, checkpoint, seed=0, pause=None):
    points, labels = torch.from_numpy(inputs["points"]), torch.from_numpy(targets)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    state = checkpoint.load()
    done = 0
    if state:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["epoch"]
    for epoch in progress(range(done, epochs), "epochs"):
        optimizer.zero_grad()
        loss(model(points), labels, pause=pause).backward()
        optimizer.step()
        checkpoint.save(
            {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
        )
