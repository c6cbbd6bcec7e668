"""An LSTM that tells three kinds of waves apart; waves may be of any length."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


class WaveReader(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.rnn = nn.LSTM(2, width, batch_first=True)
        self.head = nn.Linear(width, 3)

    def forward(self, wave):
        states, _ = self.rnn(wave)
        return self.head(states[:, -1])


def build(width=32):
    return WaveReader(width)


def fit(model, inputs, targets, *, epochs, progress, seed=0):
    waves, kinds = torch.from_numpy(inputs["wave"]), torch.from_numpy(targets)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in progress(range(epochs), "epochs"):
        loss = nn.functional.cross_entropy(model(waves), kinds)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def load(split, length=20):
    random = np.random.default_rng(len(split))
    count = 300 if split == "train" else 150
    kinds = random.integers(0, 3, count)
    time = np.arange(length) + random.uniform(0, 6, (count, 1))
    speed = np.array([0.3, 0.8, 1.6])[kinds][:, None]
    waves = np.stack([np.sin(speed * time), np.cos(speed * time)], axis=2)
    return {"wave": (waves + random.normal(0, 0.1, waves.shape)).astype("float32")}, kinds
