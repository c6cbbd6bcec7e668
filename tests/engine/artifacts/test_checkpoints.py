from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from airflow_model_deploy.engine.artifacts import Checkpoint, Store
from airflow_model_deploy.engine.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

PLACE = "train/0123"


@pytest.fixture(params=["file", "memory"])
def store(request, tmp_path):
    return Store(f"file://{tmp_path}/store" if request.param == "file" else f"memory://{tmp_path}")


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bytes_of(a) == bytes_of(b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a)


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def test_state_dicts_come_back_as_they_were(store):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, dtype=torch.bfloat16))
    optimizer = torch.optim.AdamW(model[0].parameters(), lr=0.1)
    model[0](torch.randn(5, 3)).sum().backward()
    optimizer.step()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),  # numbers as keys, tuples, None
        "generator": torch.Generator().get_state(),
        "numpy": np.random.get_state(),
        "epoch": 3,
        "best": float("inf"),
        "name": "ü",
        "views": [torch.arange(12).reshape(3, 4).T[::2], torch.tensor(1.5), torch.empty(0, 2)],
        "tied": (model[0].weight, model[0].weight),
    }
    Checkpoint(store, PLACE).save(state)
    found = Checkpoint(store, PLACE)
    assert same({**state, "model": dict(state["model"])}, found.load())
    assert found.found
    fresh = torch.optim.AdamW(model[0].parameters(), lr=0.5)
    fresh.load_state_dict(found.load()["optimizer"])
    assert fresh.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5))
TENSORS = st.builds(
    lambda shape, dtype, seed: (
        torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul(9).to(dtype)
    ),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]),
    st.integers(0, 99),
)
VALUES = st.recursive(
    SCALARS | TENSORS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=3))
def test_any_nesting_comes_back(state):
    store = Store("memory://nesting")
    Checkpoint(store, PLACE).save(state)
    assert same(state, Checkpoint(store, PLACE).load())


def test_nothing_is_kept_without_a_key(tmp_path):
    for checkpoint in (Checkpoint(), Checkpoint(Store(str(tmp_path / "store")), None)):
        checkpoint.save({"epoch": 1}, now=True)
        assert checkpoint.load() is None
        checkpoint.remove()
    assert not (tmp_path / "store").exists()


def test_a_checkpoint_is_that_of_one_key_and_part_and_removing_it_leaves_the_others(store):
    mine, other = Checkpoint(store, PLACE), Checkpoint(store, "train/4567")
    mine.save({"epoch": 1})
    other.save({"epoch": 2})
    mine.part("round-2").save({"epoch": 3})
    assert [c.load()["epoch"] for c in (mine, other, mine.part("round-2"))] == [1, 2, 3]
    mine.remove()
    assert mine.load() is None
    assert mine.part("round-2").load() is None
    assert other.load() == {"epoch": 2}
    mine.remove()  # again: nothing to do


def file_of(tmp_path: Path) -> Path:
    return tmp_path / "store" / "checkpoints" / PLACE / "state.safetensors"


@pytest.mark.parametrize("damage", ["half", "empty", "bit", "text", "json"])
def test_a_damaged_checkpoint_is_told_and_passed_over(damage, tmp_path, caplog):
    checkpoint = Checkpoint(Store(str(tmp_path / "store")), PLACE)
    checkpoint.save({"weights": torch.ones(100), "epoch": 1})
    path = file_of(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "half":
        del content[len(content) // 2 :]
    elif damage == "empty":
        content.clear()
    elif damage == "bit":
        content[-5] ^= 1
    elif damage == "text":
        place = content.index(b'\\"epoch\\", 1')
        content[place + len(b'\\"epoch\\", ')] = ord("2")
    else:
        content[:] = b'{"epoch": 1}'
    path.write_bytes(content)
    assert checkpoint.load() is None
    assert not checkpoint.found
    assert "starting over" in caplog.text
    checkpoint.save({"epoch": 2}, now=True)
    assert checkpoint.load() == {"epoch": 2}


def test_soon_after_a_save_another_is_passed_over_unless_asked_for(tmp_path, monkeypatch):
    checkpoint = Checkpoint(Store(str(tmp_path / "store")), PLACE)
    checkpoint.save({"epoch": 1})
    checkpoint.save({"epoch": 2})
    assert checkpoint.load() == {"epoch": 1}
    checkpoint.save({"epoch": 3}, now=True)
    assert checkpoint.load() == {"epoch": 3}


@pytest.mark.parametrize("value", [{1, 2}, object(), nn.Linear(1, 1), b"bytes"])
def test_what_no_checkpoint_can_hold_is_named(value, tmp_path):
    with pytest.raises(InputError, match=r"state\['a'\]\[1\] can't be kept in a checkpoint"):
        Checkpoint(Store(str(tmp_path)), PLACE).save({"a": [0, value]})
    with pytest.raises(InputError, match="a key of state"):
        Checkpoint(Store(str(tmp_path)), PLACE).save({(1, 2): 0})


def test_a_store_that_cannot_be_written_is_told_and_the_work_goes_on(tmp_path, caplog):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "checkpoints").write_text("a file where a folder has to be")
    Checkpoint(Store(str(tmp_path / "store")), PLACE).save({"epoch": 1})
    assert "was not kept" in caplog.text


def test_unfinished_files_of_killed_attempts_go(tmp_path):
    checkpoint = Checkpoint(Store(str(tmp_path / "store")), PLACE)
    folder = file_of(tmp_path).parent
    folder.mkdir(parents=True)
    old = folder / ".state.safetensors.x.tmp"
    old.write_text("half")
    os.utime(old, (0, 0))
    checkpoint.save({"epoch": 1})
    assert [path.name for path in folder.iterdir()] == ["state.safetensors"]
