from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from airflow_model_deploy.engine.compression import export_onnx
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import check_onnx, create_session, onnx_precision, read_signature, run
from tests.engine.compression.nets import build

AGAIN = """
import sys
from tests.engine.compression.nets import build
from airflow_model_deploy.engine.compression import export_onnx
model, example = build("PlainCNN")
export_onnx(model, {"x": example}, sys.argv[1])
"""


def test_another_process_writes_the_same_bytes_and_prints_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    env = {"PYTHONPATH": ":".join(p for p in sys.path if p), "PYTHONHASHSEED": "5", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, "model.onnx"],
        env=env,
        cwd=tmp_path / "there",
        check=True,
        capture_output=True,
    )
    assert done.stdout + done.stderr == b""
    model, example = build("PlainCNN")
    for _ in range(2):  # exporting before leaves no trace either
        export_onnx(model, {"x": example}, tmp_path / "here.onnx")
        content = (tmp_path / "here.onnx").read_bytes()
        assert (
            hashlib.sha256(content).digest()
            == hashlib.sha256((tmp_path / "there/model.onnx").read_bytes()).digest()
        )
    assert str(Path(__file__).parent).encode() not in content


def test_the_file_answers_as_torch_does_for_any_batch(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, example = build("ResidualCNN")
    model.train()
    export_onnx(model, {"picture": example[:1]}, tmp_path / "model.onnx", output_names=["scores"])
    assert capfd.readouterr() == ("", "")
    assert model.training  # left as it was
    check_onnx(tmp_path / "model.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    signature = read_signature(tmp_path / "model.onnx")
    assert [(t.name, t.shape, t.dtype) for t in signature.inputs] == [
        ("picture", ("batch", 1, 8, 8), "float32")
    ]
    assert [(t.name, t.shape) for t in signature.outputs] == [("scores", ("batch", 10))]
    assert onnx_precision(tmp_path / "model.onnx") == "fp32"
    proto = onnx.load(tmp_path / "model.onnx")
    assert not proto.graph.value_info
    assert not any(n.metadata_props or n.doc_string for n in proto.graph.node)
    x = torch.randn(7, 1, 8, 8)
    with torch.no_grad():
        want = model.eval()(x).numpy()
    got = run(create_session(tmp_path / "model.onnx"), {"picture": x.numpy()}, batch_size=3)["scores"]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


class TwoOutputs(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"total": a + b, "product": (a * b).sum(1)}


class BakedBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, -1)


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_inputs_in_order_and_outputs_by_the_names_of_a_returned_dict(tmp_path: Path) -> None:
    pair = {"a": torch.randn(3, 4), "b": torch.randn(3, 4)}
    export_onnx(TwoOutputs(), pair, tmp_path / "model.onnx")
    signature = read_signature(tmp_path / "model.onnx")
    assert [t.name for t in signature.inputs] == ["a", "b"]
    assert [(t.name, t.shape) for t in signature.outputs] == [
        ("total", ("batch", 4)),
        ("product", ("batch",)),
    ]


def test_an_output_may_have_the_name_that_a_value_inside_has_already(tmp_path: Path) -> None:
    class Embedder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(20, 4)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.table(tokens).mean(1)

    model, tokens = Embedder().eval(), torch.randint(0, 20, (3, 5))
    export_onnx(model, {"tokens": tokens}, tmp_path / "m.onnx", output_names=["embedding"])
    assert "embedding_1" in {
        name for node in onnx.load(tmp_path / "m.onnx").graph.node for name in node.output
    }
    answer = run(create_session(tmp_path / "m.onnx"), {"tokens": tokens.numpy()})
    np.testing.assert_allclose(answer["embedding"], model(tokens).detach().numpy(), rtol=1e-5)


def test_a_fixed_batch_on_request(tmp_path: Path) -> None:
    export_onnx(nn.Linear(4, 2), {"x": torch.randn(3, 4)}, tmp_path / "model.onnx", dynamic=None)
    assert read_signature(tmp_path / "model.onnx").inputs[0].shape == (3, 4)


@pytest.mark.parametrize(
    ("model", "inputs", "reason"),
    [
        (BakedBatch(), {"x": torch.randn(2, 4)}, "one row a sample"),
        (Branching(), {"x": torch.randn(2, 4)}, "export of Branching to ONNX.*data-dependent"),
        (TwoOutputs(), {"a": torch.randn(2, 4)}, "missing 1 required positional argument: 'b'"),
        (TwoOutputs(), {"a": torch.randn(2, 4), "b": torch.randn(3, 4)}, "as many samples"),
        (nn.Linear(4, 2), {"x": torch.randn(2, 5)}, "forward of Linear"),
    ],
)
def test_what_cannot_be_exported_leaves_the_old_file(
    model: nn.Module, inputs: dict, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match=reason):
        export_onnx(model, inputs, path)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_wrong_output_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 different names"):
        export_onnx(nn.Linear(4, 2), {"x": torch.randn(2, 4)}, tmp_path / "m.onnx", output_names=["a", "b"])


class Tagger(nn.Module):
    """One tag for every step of a sequence of any length."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn = kind(3, 8, batch_first=True)

    def forward(self, scale: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        return self.rnn(steps)[0] * scale[:, :, None]


@pytest.mark.parametrize(("kind", "times"), [(nn.LSTM, 2), (nn.GRU, 1)])
def test_named_dimensions_vary_in_every_export_and_inputs_go_by_their_names(
    kind: type[nn.RNNBase], times: int, tmp_path: Path
) -> None:
    model = Tagger(kind).eval()
    # Not in forward's order: names decide.
    example = {"steps": torch.randn(2, 9, 3), "scale": torch.rand(2, 1)}
    for _ in range(times):  # what torch has looked up in the first export must not decide the second
        export_onnx(model, example, tmp_path / "m.onnx", dynamic_dims={"steps": {1: "time"}})
    signature = read_signature(tmp_path / "m.onnx")
    assert {t.name: t.shape for t in signature.inputs} == {
        "steps": ("batch", "time", 3),
        "scale": ("batch", 1),
    }
    assert signature.dynamic == {"steps": {1: "time"}}
    session = create_session(tmp_path / "m.onnx")
    for rows, length in ((1, 4), (5, 30)):
        x = {"steps": torch.randn(rows, length, 3), "scale": torch.rand(rows, 1)}
        got = run(session, {name: t.numpy() for name, t in x.items()})["output"]
        with torch.no_grad():
            np.testing.assert_allclose(got, model(**x).numpy(), atol=1e-5)


def test_a_length_that_forward_has_baked_in_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="with any size of what may vary"):
        export_onnx(
            nn.Sequential(nn.Flatten(), nn.Linear(12, 2)),
            {"input": torch.randn(2, 4, 3)},
            tmp_path / "m.onnx",
            dynamic_dims={"input": {1: "time"}},
        )
