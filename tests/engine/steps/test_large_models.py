"""Models too large for one file, by a limit lowered for the test: their weights travel beside them, to the end."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnx
import pytest

from airflow_model_deploy.engine.artifacts import Store
from airflow_model_deploy.engine.models import create_session, file_size, onnx_sha256, onnx_stream, run
from airflow_model_deploy.engine.packaging import bless, read_servable
from airflow_model_deploy.engine.serving import servable as server
from airflow_model_deploy.engine.steps import StepRequest, run_request
from tests.engine.compression.graphs import initializers, language_model

LIMIT = 60_000
LOADER = """
import numpy as np
def load(split):
    tokens = np.random.default_rng(0).integers(0, 211, (64, 7))
    return {"tokens": tokens}, None
def fingerprint():
    return "1"
"""
POINTS = """
import numpy as np
def load(split):
    x = np.random.default_rng(0).uniform(-4, 6, (64, 32)).astype(np.float32)
    x[3, :4] = -4.5, 6.25, np.nan, np.inf
    return {"x": x}, None
def fingerprint():
    return "1"
"""


@pytest.fixture
def limit(monkeypatch):
    monkeypatch.setattr(onnx_stream, "ONE_FILE", LIMIT)


@pytest.fixture
def data(tmp_path, monkeypatch, forget_modules):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "token_data.py").write_text(LOADER)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    forget_modules(["token_data"])
    return {"loader": {"path": "token_data:load"}, "fingerprint": {"path": "token_data:fingerprint"}}


class Flow:
    def __init__(self, folder):
        self.store, self.results = Store(f"file://{folder}/store"), {}

    def run(self, stage, spec, step=None, **inputs):
        references = {role: self.results[name].artifact for role, name in inputs.items()}
        result = run_request(
            StepRequest(step=step or stage, spec=spec, inputs=references, store=str(self.store.url))
        )
        self.results[stage] = result
        return result

    def folder(self, stage):
        result = self.results[stage]
        assert result.status == "succeeded", result.error
        return self.store.fetch(result.artifact)[0]


@pytest.fixture
def flow(tmp_path):
    return Flow(tmp_path)


def external_model(folder):
    """A model as exporters of large ones leave it: each tensor beside it, in files of their own."""
    folder.mkdir()
    return language_model(
        folder / "exported.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=False,
        size_threshold=100,
    )


def test_from_the_file_to_the_blessed_bundle(limit, flow, data, tmp_path):
    source = external_model(tmp_path / "from")
    spec = {"data": data, "metric": "cosine"}
    flow.run("ingest", {"name": "tokens", "source": str(source), **spec})
    flow.run("quantize", {"mode": "weight-only", **spec}, model="ingest")
    flow.run("optimize", {"batch_sizes": [1], **spec}, model="quantize")
    flow.run("build", {"data": data, "margin": 3}, model="optimize", baseline="ingest")
    flow.run("test", {"max_quality_drop": 50, **spec}, servable="build", baseline="ingest")
    flow.run("prepare", {}, servable="build", evaluation="test")
    flow.run("package", {}, servable="build", plan="prepare")

    for stage in ("ingest", "quantize", "optimize"):
        path = flow.folder(stage) / "model.onnx"
        data_file = path.with_name("model.onnx.data")
        assert data_file.stat().st_size > LIMIT > path.stat().st_size
        if stage != "ingest":
            assert flow.results[stage].metrics["model_bytes"] == file_size(path)
    assert flow.results["optimize"].details["chosen"].startswith("unchanged")
    folder = flow.folder("build")
    listed = [entry["path"] for entry in json.loads((folder / "servable.json").read_text())["files"]]
    assert listed == ["golden.json", "model.onnx", "model.onnx.data"]
    assert server.load(folder).digest == read_servable(folder).digest
    size = file_size(folder / "model.onnx")
    assert flow.results["build"].metrics["model_bytes"] == size
    assert flow.results["test"].details["model_bytes"] == size
    assert flow.results["test"].measurements["compressed_bytes"] > LIMIT / 2
    bundle = flow.folder("package")
    found = next(path.parent for path in bundle.rglob("SHA256SUMS"))
    assert (found / "servable" / "model.onnx.data").stat().st_size > LIMIT
    assert bless(found, python=sys.executable).passed


def test_a_sha256_covers_the_weights_beside_the_file(flow, tmp_path):
    source = external_model(tmp_path / "from")
    spec = {"name": "tokens", "source": str(source), "sha256": onnx_sha256(source)}
    assert flow.run("ingest", spec).status == "succeeded"
    assert flow.run("ingest", spec).cached
    weights = source.with_name("up_w")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    changed = flow.run("ingest", {**spec, "metric": "cosine"})
    assert changed.error["integrity"] is True
    assert "is not the one asked for" in changed.error["message"]


@pytest.mark.parametrize(
    ("spec", "kept"),
    [
        ({"mode": "none"}, {"table", "up_w", "gate_w", "down_w", "gemm_w"}),
        ({"mode": "dynamic", "exclude_nodes": ["up"]}, {"up_w"}),
        ({"mode": "mixed", "formats": {"*": "int8-dynamic", "gate": "fp32"}}, {"gate_w"}),
    ],
)
def test_every_other_mode_keeps_them_beside(spec, kept, limit, flow, data, tmp_path):
    source = external_model(tmp_path / "from")
    flow.run("ingest", {"name": "tokens", "source": str(source)})
    flow.run("quantize", {**spec, "data": data, "metric": "cosine"}, model="ingest")
    path = flow.folder("quantize") / "model.onnx"
    assert path.with_name("model.onnx.data").stat().st_size > LIMIT > path.stat().st_size
    want, got = initializers(source), initializers(path)
    assert want.keys() & got.keys() >= kept
    for name in want.keys() & got.keys():
        np.testing.assert_array_equal(got[name], want[name])


def test_the_same_model_gives_the_same_digests(limit, data, tmp_path):
    source = external_model(tmp_path / "from")
    digests = []
    for place in ("a", "b"):
        flow = Flow(tmp_path / place)
        flow.run("ingest", {"name": "tokens", "source": str(source), "data": data, "metric": "cosine"})
        flow.run("quantize", {"mode": "weight-only"}, model="ingest")
        digests.append([result.artifact.digest for result in flow.results.values()])
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    "spec",
    [
        {"mode": "static"},
        {"mode": "static", "include_nodes": ["up"]},
        {"mode": "mixed", "formats": {"up": "int8-outlier", "down": "int8-weight"}},
    ],
)
def test_what_must_run_the_model_is_refused_before_its_data_is_loaded(
    spec, limit, flow, data, tmp_path, forget_modules
):
    flow.run("ingest", {"name": "tokens", "source": str(external_model(tmp_path / "from"))})
    (tmp_path / "code" / "token_data.py").write_text(
        LOADER.replace("    return {", "    raise RuntimeError('loaded')\n    return {")
    )
    forget_modules(["token_data"])
    result = flow.run("quantize", {**spec, "data": data}, model="ingest")
    assert result.status == "failed"
    assert result.error["permanent"] is True
    assert "wanted: at most 1500000000, since it has to be run" in result.error["message"]
    assert "Choose mode 'dynamic' or 'weight-only'" in result.error["message"]


def test_weights_inside_of_branches_come_along(tmp_path, flow):
    """External data of a graph in a graph, and of an attribute, which only a parser of all would find."""
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    tensor = onnx.numpy_helper.from_array

    def branch(name, value):
        return onnx.helper.make_graph(
            [node("MatMul", ["x", f"{name}_w"], [f"{name}_y"])], name, [], [info(f"{name}_y", 1, ["b", 64])],
            [tensor(np.full((32, 64), value, np.float32), f"{name}_w")],
        )  # fmt: skip

    nodes = [
        node("Constant", [], ["zero"], value=tensor(np.zeros((32, 64), np.float32), "constant")),
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("ReduceSum", ["zero"], ["z"], keepdims=0),
        node("Greater", ["s", "z"], ["positive"]),
        node("If", ["positive"], ["y"], then_branch=branch("then", 2.0), else_branch=branch("else", 3.0)),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [info("x", 1, ["b", 32])], [info("y", 1, ["b", 64])])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "from").mkdir()
    source = tmp_path / "from" / "branches.onnx"
    onnx.save(model, source, save_as_external_data=True, convert_attribute=True, size_threshold=100)
    assert len(list((tmp_path / "from").iterdir())) == 2
    flow.run("ingest", {"name": "branches", "source": str(source)})
    folder = flow.folder("ingest")
    assert [path.name for path in folder.glob("model*")] == ["model.onnx"]
    x = {"x": np.ones((2, 32), np.float32)}
    np.testing.assert_array_equal(run(create_session(folder / "model.onnx"), x)["y"], np.full((2, 64), 64.0))


@pytest.fixture
def points(tmp_path, monkeypatch, forget_modules):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "point_data.py").write_text(POINTS)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    forget_modules(["point_data"])
    return {"loader": {"path": "point_data:load"}, "fingerprint": {"path": "point_data:fingerprint"}}


def signs(path):
    """A model that answers whatever it is asked, NaN too."""
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        node("Sub", ["x", "x"], ["nothing"]),
        node("IsNaN", ["nothing"], ["odd"]),
        node("Cast", ["odd"], ["y"], to=1),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [info("x", 1, ["b", 32])], [info("y", 1, ["b", 32])])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path


def built(flow, tmp_path, data):
    spec = {"name": "points", "source": str(signs(tmp_path / "signs.onnx"))}
    flow.run("ingest", spec)
    flow.run("build", {"data": data}, model="ingest", baseline="ingest")
    return read_servable(flow.folder("build"))


def test_a_servable_knows_the_range_of_its_real_inputs_without_what_is_no_number(flow, points, tmp_path):
    found = built(flow, tmp_path, points)
    assert found.ranges == {"x": (-4.5, 6.25)}
    assert server.load(found.folder).ranges == found.ranges


def test_random_inputs_have_no_range_worth_knowing(flow, tmp_path):
    assert built(flow, tmp_path, None).ranges == {}


def test_tokens_have_no_range(flow, data, tmp_path):
    flow.run("ingest", {"name": "tokens", "source": str(language_model(tmp_path / "l.onnx"))})
    flow.run("build", {"data": data}, model="ingest", baseline="ingest")
    assert read_servable(flow.folder("build")).ranges == {}
