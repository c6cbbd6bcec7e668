from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import (
    Cut,
    Surgery,
    fill_model,
    load_torch_model,
    load_weights,
    read_factory,
    save_torch_model,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Net(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 2)
        self.register_buffer("step", torch.tensor(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.norm(self.first(x))))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.embed(x))


def resolver(factory: Callable[..., object]) -> Callable[[str], Callable[..., object]]:
    return lambda path: factory if path == "my.nets:net" else pytest.fail(path)


def save(model: nn.Module, folder: Path, surgery: Surgery | None = None, **options: int) -> Path:
    save_torch_model(model, folder, factory="my.nets:net", options=options, surgery=surgery)
    return folder


def test_a_saved_model_comes_back_in_eval_mode(tmp_path: Path) -> None:
    model = Net(width=6).train()
    model(torch.randn(8, 4))  # moves the norm's buffers
    folder = save(model, tmp_path / "new" / "model", width=6)
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "weights.safetensors"]
    assert json.loads((folder / "model.json").read_text()) == {
        "schema_version": 1, "factory": "my.nets:net", "options": {"width": 6},
    }  # fmt: skip
    assert read_factory(folder).options == {"width": 6}
    loaded = load_torch_model(folder, resolver(Net))
    assert not loaded.training
    x = torch.randn(3, 4)
    assert torch.equal(loaded(x), model.eval()(x))
    assert set(load_file(folder / "weights.safetensors")) == set(model.state_dict())


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    model = Tied()
    one, two = save(model, tmp_path / "a"), save(model, tmp_path / "b")
    assert all(
        (one / n).read_bytes() == (two / n).read_bytes() for n in ("weights.safetensors", "model.json")
    )


def test_tied_weights_are_stored_once_and_tied_again(tmp_path: Path) -> None:
    model = Tied()
    folder = save(model, tmp_path)
    assert list(load_file(folder / "weights.safetensors")) == ["embed.weight"]
    loaded = load_torch_model(folder, resolver(Tied))
    assert loaded.out.weight is loaded.embed.weight
    assert torch.equal(loaded.embed.weight, model.embed.weight)


def test_weights_tied_only_after_the_factory_ran(tmp_path: Path) -> None:
    def untied() -> Tied:
        model = Tied()
        model.out.weight = nn.Parameter(torch.zeros(7, 4))
        return model

    model = Tied()
    loaded = load_torch_model(save(model, tmp_path), resolver(untied))
    assert torch.equal(loaded.out.weight, model.out.weight)


def test_views_that_overlap_are_saved_whole(tmp_path: Path) -> None:
    model = Net()
    base = torch.randn(16, 4)
    model.first.weight.data, model.last.weight.data = base[:8], base.T[:2, 8:]
    loaded = load_torch_model(save(model, tmp_path), resolver(Net))
    assert torch.equal(loaded.last.weight, model.last.weight)


def test_surgery_is_part_of_the_model(tmp_path: Path) -> None:
    surgery = Surgery(
        (Cut("first", "out", (0, 3, 5)), Cut("norm", "out", (0, 3, 5)), Cut("last", "in", (0, 3, 5)))
    )
    model = surgery.apply(Net()).eval()
    folder = save(model, tmp_path, surgery)
    assert Surgery.read(folder) == surgery
    x = torch.randn(3, 4)
    assert torch.equal(load_torch_model(folder, resolver(Net))(x), model(x))
    save(Net(), tmp_path)  # an unpruned model in the same place brings no old surgery along
    assert Surgery.read(folder) is None
    load_torch_model(folder, resolver(Net))


def test_weights_that_do_not_fit_are_listed() -> None:
    weights = Net().state_dict()
    weights["first.weight"] = torch.zeros(9, 4)
    weights["extra"] = weights.pop("norm.bias")
    weights["last.weight"] = weights["last.weight"].double()
    with pytest.raises(InputError) as error:
        fill_model(Net(), weights, source="w.pt")
    for part in (
        "1 missing (norm.bias)", "1 unexpected (extra)",
        "1 with another shape (first.weight (9, 4) for (8, 4))",
        "1 of a wider type than the model (last.weight)", "w.pt", "the 10 tensors of the factory's Net",
    ):  # fmt: skip
        assert part in str(error.value)


def test_narrower_weights_widen() -> None:
    weights = {n: t.half() if t.is_floating_point() else t for n, t in Net().state_dict().items()}
    model = Net()
    fill_model(model, weights, source="w")
    assert torch.equal(model.first.weight, weights["first.weight"].float())


def test_long_lists_are_shortened() -> None:
    with pytest.raises(
        InputError, match=r"10 missing \(step, first\.weight, first\.bias, norm\.weight, \.\.\.\)"
    ):
        fill_model(Net(), {}, source="w")


@pytest.mark.parametrize(
    ("factory", "options", "reason"),
    [
        (Net, {"depth": 3}, "unexpected keyword argument 'depth'"),
        (lambda: "a string", {}, "found: str; wanted: a torch.nn.Module"),
    ],
)
def test_factories_that_fail(
    factory: Callable[..., object], options: dict, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=reason):
        load_torch_model(save(Net(), tmp_path, **options), resolver(factory))


def test_arguments_and_folders_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"package\.module:callable"):
        save_torch_model(Net(), tmp_path, factory="nets.net", options={})
    with pytest.raises(InputError, match="JSON values"):
        save_torch_model(Net(), tmp_path, factory="a:b", options={"x": object()})
    with pytest.raises(InputError, match="no such file"):
        load_torch_model(tmp_path / "nowhere", resolver(Net))
    folder = save(Net(), tmp_path)
    (folder / "model.json").write_text('{"schema_version": 2}')
    with pytest.raises(InputError, match="schema_version 2"):
        load_torch_model(folder, resolver(Net))
    (folder / "model.json").write_text("{")
    with pytest.raises(InputError, match="no JSON"):
        load_torch_model(folder, resolver(Net))


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("code in the file was run",))


def pickled(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_state_dicts_are_read(suffix: str, tmp_path: Path) -> None:
    state, path = Net().state_dict(), tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    weights = load_weights(path)
    assert set(weights) == set(state)
    assert all(torch.equal(weights[n], state[n]) for n in state)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("w.pt", lambda: pickled({"w": Evil()}), "more than tensors, or is damaged"),
        ("w.pt", lambda: pickled(Net()), "more than tensors, or is damaged"),
        (
            "w.pt",
            lambda: pickled({"model": {"w": torch.ones(1)}, "epoch": 3}),
            "model, epoch .2 of 2. is no tensor",
        ),
        ("w.pt", lambda: pickled([torch.ones(1)]), "found: list"),
        ("w.pt", lambda: pickled(Net().state_dict())[:500], "damaged"),
        ("w.pt", lambda: b"", "damaged"),
        ("w.pt", lambda: b"hello", "damaged"),
        ("w.safetensors", lambda: pickled(Net().state_dict()), "no safetensors"),
        ("w.safetensors", lambda: b"\x08\0\0\0\0\0\0\0{}", "no safetensors"),
        ("w.pkl", lambda: b"", "ending in '.pkl'"),
    ],
)
def test_files_that_are_no_weights(
    name: str, content: Callable[[], bytes], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content())
    with pytest.raises(InputError, match=reason) as error:
        load_weights(path)
    assert str(path) in str(error.value)
    assert error.value.wanted
    assert error.value.remedy
    with pytest.raises(InputError, match="no such file"):
        load_weights(tmp_path / "nowhere.pt")
