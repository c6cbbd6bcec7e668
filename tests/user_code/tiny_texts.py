"""Texts as token numbers for tiny transformers models: labelled, unlabelled, or with the next token as target."""

from __future__ import annotations

import numpy as np


def load(split, samples=64, width=12, targets="none", names=("input_ids", "attention_mask")):
    random = np.random.default_rng([len(split), samples])
    lengths = random.integers(3, width + 1, samples)
    mask = (np.arange(width) < lengths[:, None]).astype(np.int64)
    ids = random.integers(3, 64, (samples, width)) * mask
    wanted = {
        "none": None,
        "labels": ids[:, 0] % 2,
        "tokens": np.where(
            np.roll(mask, -1, axis=1) & (np.arange(width) < width - 1), np.roll(ids, -1, axis=1), -100
        ),
    }[targets]
    return dict(zip(names, (ids, mask), strict=True)), wanted
