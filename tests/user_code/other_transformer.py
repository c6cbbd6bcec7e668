"""A transformer encoder over token numbers: which of two words comes more often? Texts may be of any length."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

WORDS, LONGEST = 40, 48


class Reader(nn.Module):
    def __init__(self, width, layers):
        super().__init__()
        self.words = nn.Embedding(WORDS, width, padding_idx=0)
        self.places = nn.Parameter(torch.zeros(1, LONGEST, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers)
        self.head = nn.Linear(width, 2)

    def forward(self, tokens):
        empty = tokens == 0
        seen = self.words(tokens) + self.places[:, : tokens.shape[1]]
        seen = self.encoder(seen, src_key_padding_mask=empty)
        kept = (~empty).unsqueeze(2).to(seen.dtype)
        return self.head((seen * kept).sum(1) / kept.sum(1).clamp(min=1))


def build(width=32, layers=1):
    return Reader(width, layers)


def fit(model, inputs, targets, *, epochs, progress, seed=0):
    tokens, answers = torch.from_numpy(inputs["tokens"]), torch.from_numpy(targets)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    random = torch.Generator().manual_seed(seed)
    for _ in progress(range(epochs), "epochs"):
        for rows in torch.randperm(len(tokens), generator=random).split(64):
            loss = nn.functional.cross_entropy(model(tokens[rows]), answers[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def load(split, length=16):
    random = np.random.default_rng(len(split))
    count = 600 if split == "train" else 200
    tokens = random.integers(3, WORDS, (count, length))
    asked = random.random((count, length)) < 0.4
    tokens[asked] = random.integers(1, 3, int(asked.sum()))
    tokens[np.arange(length) >= random.integers(length // 2, length + 1, (count, 1))] = 0  # shorter texts
    return {"tokens": tokens}, ((tokens == 1).sum(1) > (tokens == 2).sum(1)).astype(np.int64)
