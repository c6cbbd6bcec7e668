"""The training function that the docs show goes on where it was stopped, to the same bits."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from airflow_model_deploy.engine.artifacts import Checkpoint, Store
from airflow_model_deploy.engine.compression import fit_in_place
from tests.docs.examples import EXAMPLES

RANDOM = np.random.default_rng(0)
POINTS = RANDOM.standard_normal((200, 2)).astype(np.float32)
LABELS = (POINTS[:, 0] * POINTS[:, 1] > 0).astype(np.int64)


def trained(fit, checkpoint, stop_after=None):
    def progress(epochs, label):
        for done, epoch in enumerate(epochs):
            if done == stop_after:
                raise KeyboardInterrupt
            seen.append(epoch)
            yield epoch

    seen = []
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))
    arguments = {"masks": {}, "epochs": 6, "seed": 1, "progress": progress, "checkpoint": checkpoint}
    if stop_after is None:
        fit_in_place(model, fit, {"points": POINTS}, LABELS, **arguments)
    else:
        with pytest.raises(KeyboardInterrupt):
            fit_in_place(model, fit, {"points": POINTS}, LABELS, **arguments)
    return model.state_dict(), seen


def test_the_example_of_a_resumable_training_function(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr("airflow_model_deploy.engine.artifacts.checkpoints._PAUSE", 0.0)
    from resumable_fit import fit

    try:
        whole, _ = trained(fit, None)
        store = Store(str(tmp_path / "store"))
        trained(fit, Checkpoint(store, "train/key"), stop_after=4)
        torch.manual_seed(99)
        resumed, seen = trained(fit, Checkpoint(store, "train/key"))
    finally:
        sys.modules.pop("resumable_fit", None)
    assert seen == [4, 5]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
