"""What can't be used is refused for good, with an error that says what it is, what was found and what to do."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import socket
import zipfile

import pytest

from airflow_model_deploy.engine import cli
from airflow_model_deploy.engine.steps import StepRequest, run_request
from airflow_model_deploy.engine.steps.service import service_status, stop_service
from tests.hardening.flow import DATA, FACTORY, STAGES, Workspace, importable


class Touch:
    """A pickle that touches a file when it is read."""

    def __init__(self, canary):
        self.canary = str(canary)

    def __reduce__(self):
        return (open, (self.canary, "w"))


def state_dict(code):
    with importable(code):
        import toy_model

        return toy_model.build(**FACTORY["options"]).state_dict()


def truncated(folder, code):
    from safetensors.torch import save_file

    save_file(state_dict(code), folder / "cut.safetensors")
    content = (folder / "cut.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(content[: len(content) * 2 // 3])
    return folder / "cut.safetensors"


def other_weights(folder, code):
    from safetensors.torch import save_file

    save_file({"layers.0.weight": state_dict(code)["layers.0.weight"]}, folder / "other.safetensors")
    return folder / "other.safetensors"


def hostile_torch(folder, code):
    import torch

    torch.save({"layers.0.weight": Touch(folder / "canary")}, folder / "hostile.pt")
    return folder / "hostile.pt"


def pickled(name):
    def write(folder, code):
        (folder / name).write_bytes(pickle.dumps(Touch(folder / "canary")))
        return folder / name

    return write


def foreign_zip(folder, code):
    with zipfile.ZipFile(folder / "zip.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Touch(folder / "canary")))
        archive.writestr("archive/version", "3\n")
    return folder / "zip.pt"


def onnx_model(op="Relu", shape=("batch", 2), location=None):
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node(op, ["points"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "w"], ["logits"]),
    ]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2, 2], [1.0, 0.0, 0.0, 1.0])
    if location:
        weight.ClearField("float_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", "16")):
            entry = weight.external_data.add()
            entry.key, entry.value = key, value
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("points", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def onnx_file(**options):
    def write(folder, code):
        (folder / "secret.bin").write_bytes(b"\0" * 16)
        place = folder / "place"
        place.mkdir()
        (place / "link.bin").symlink_to(folder / "secret.bin")
        given = {k: v.format(folder=folder) if isinstance(v, str) else v for k, v in options.items()}
        (place / "model.onnx").write_bytes(onnx_model(**given).SerializeToString())
        return place / "model.onnx"

    return write


def whole(folder, code):
    from safetensors.torch import save_file

    save_file(state_dict(code), folder / "whole.safetensors")
    return folder / "whole.safetensors"


OUTSIDE = ("external data of", "found: ", "wanted: a plain file inside the model's folder")
NO_TENSORS = ("found: a file that holds more than tensors, or is damaged", "safetensors.torch.save_file")
# what is wrong: (how the file is made, changes of the spec, what the message says)
FILES = {
    "missing": (
        lambda folder, code: folder / "no.safetensors",
        {},
        ("there is no model file at", "no.safetensors", "wanted: a ", "Correct the location"),
    ),
    "truncated safetensors": (truncated, {}, ("cut.safetensors", "are no safetensors", "Save it again")),
    "pickle in a .pt": (hostile_torch, {}, ("hostile.pt", *NO_TENSORS)),
    "pickle named .pt": (pickled("bare.pt"), {}, ("bare.pt", *NO_TENSORS)),
    "pickle named .safetensors": (
        pickled("p.safetensors"),
        {},
        ("p.safetensors", "no safetensors", "Save it again"),
    ),
    "pickle named .onnx": (
        pickled("p.onnx"),
        {},
        ("p.onnx", "no complete ONNX model", "Export or copy it again"),
    ),
    "pickle under its own name": (
        pickled("p.pkl"),
        {},
        ("found: a file ending in '.pkl'", "wanted: .safetensors", "Save the weights"),
    ),
    "zip that torch didn't write": (foreign_zip, {}, ("zip.pt", *NO_TENSORS)),
    "wrong sha256": (
        whole,
        {"sha256": "0" * 64},
        ("whole.safetensors", "wanted: sha256 0000", "Get it again"),
    ),
    "weights of another model": (
        other_weights,
        {},
        ("5 missing (layers.0.bias", "wanted: the 6 tensors", "Give the weights"),
    ),
    "factory with another shape": (
        whole,
        {"factory": {**FACTORY, "options": {"width": 8}}},
        ("with another shape (layers.0.weight (32, 2) for (8, 2)", "Give the weights"),
    ),
    "unknown operator": (onnx_file(op="Sharpen"), {}, ("model.onnx", "Sharpen", "Export it again")),
    "rank not stated": (
        onnx_file(shape=None),
        {},
        ("points", "without a known rank", "Export the model with tensors of known rank"),
    ),
    "external data above": (
        onnx_file(location="../secret.bin"),
        {},
        (*OUTSIDE, "../secret.bin", "Save it beside the model"),
    ),
    "external data elsewhere": (
        onnx_file(location="{folder}/secret.bin"),
        {},
        (*OUTSIDE, "secret.bin", "Save it beside the model"),
    ),
    "external data by a link": (
        onnx_file(location="link.bin"),
        {},
        (*OUTSIDE, "symbolic link", "Copy the file"),
    ),
    "module missing": (
        whole,
        {"factory": {"path": "toy_nowhere:build"}},
        ("toy_nowhere:build", "no 'toy_nowhere'", "Put it into the Dag folder"),
    ),
    "attribute missing": (
        whole,
        {"factory": {"path": "toy_model:sharpen"}},
        ("toy_model:sharpen", "names nothing", "Correct the import path"),
    ),
    "module raising at import": (
        whole,
        {"factory": {"path": "toy_raising:build"}},
        (
            "toy_raising:build",
            "RuntimeError: no licence",
            "wanted: a module that imports",
            "correct the import path",
        ),
    ),
    "module importing what is missing": (
        whole,
        {"factory": {"path": "toy_importing:build"}},
        ("toy_importing:build", "No module named 'nowhere_to_be_found'", "Install what is missing"),
    ),
}


def assert_refused(result, words):
    assert result.status == "failed"
    assert result.artifact is None
    assert result.error["permanent"] is True, result.error
    assert_told(result.error["message"], words)


def assert_told(message, words):
    for word in words:
        assert word in message, message
    remedy = message.split("; ")[-1]
    assert not remedy.startswith(("found: ", "wanted: ")), message


def artifacts(workspace):
    folder = workspace.folder / "store" / "artifacts"
    manifests = folder.glob("*/manifest.json") if folder.is_dir() else ()
    return {path.parent.name for path in manifests if json.loads(path.read_bytes())["kind"] != "code"}


@pytest.fixture
def code(hardening_code):
    (hardening_code / "toy_raising.py").write_text("raise RuntimeError('no licence')\n")
    (hardening_code / "toy_importing.py").write_text("import nowhere_to_be_found\n")
    return hardening_code


@pytest.mark.parametrize("wrong", FILES)
def test_a_model_that_can_not_be_taken_in(wrong, code, tmp_path):
    make, changes, words = FILES[wrong]
    workspace = Workspace(tmp_path, code, {})
    source = make(tmp_path, code)
    spec = {"name": "toy", "source": str(source), "factory": FACTORY, "data": DATA, **changes}
    result = workspace.run(StepRequest("ingest", spec, {}, workspace.store.url))
    assert_refused(result, words)
    assert artifacts(workspace) == set()
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("stage", "changes", "words"),
    [
        ("compress", {"ratio": 1.5}, ("ratio = 1.5", "less than", "model-deploy steps prune")),
        ("test", {"min_quality": 1.01}, ("min_value(accuracy) failed", "1.01", "Compress less")),
        ("build", {"golden_requests": 150}, ("200 samples", "wanted: at least 300", "Give more test data")),
    ],
)
def test_a_step_that_is_asked_for_what_can_not_be(stage, changes, words, undisturbed, tmp_path):
    workspace = undisturbed.without(stage, tmp_path)
    before = artifacts(workspace)
    result = workspace.run(workspace.request(stage, **changes))
    assert_refused(result, words)
    assert artifacts(workspace) == before


@pytest.mark.parametrize("place", ["file", "file/deeper"])
def test_a_store_that_can_not_be_written(place, code, tmp_path):
    (tmp_path / "file").write_text("in the way")
    spec = STAGES["train"][1]
    with importable(code):
        result = run_request(StepRequest("train", spec, {}, f"file://{tmp_path}/{place}"))
    assert_refused(
        result, (f"{tmp_path}/{place}", "wanted: a place that this user may write", "name another store")
    )


def test_a_step_that_is_not_there(tmp_path, capsys):
    result = run_request(StepRequest("sharpen", {}, {}, f"file://{tmp_path}/store"))
    assert_refused(result, ("sharpen", "wanted: ", "train"))
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "sharpen"])
    assert ended.value.code == 2
    assert "'train'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"schema_version": 1, "step": "tr', ("can't be read", "JSONDecodeError")),
        ("[]", ("this is no step request",)),
        ('{"schema_version": 1, "step": "train"}', ("this is no step request", "'store'")),
        ('{"schema_version": 2}', ("another schema version", "found: 2")),
        (
            '{"schema_version": 1, "step": "train", "store": "file:///s", "inputs": {"model": 3}}',
            ("no artifact reference",),
        ),
        (None, ("can't be read", "No such file")),
    ],
)
def test_a_damaged_request(content, words, tmp_path, capsys):
    path = tmp_path / "request.json"
    if content is not None:
        path.write_text(content)
    assert cli.main(["run", "train", "--request", str(path)]) == cli.EXIT_FAILED
    assert_told(capsys.readouterr().err.strip(), words)


def test_a_port_that_somebody_else_uses_may_become_free(undisturbed, unused_port, tmp_path):
    root = tmp_path / "host"
    request = StepRequest(
        "deploy",
        {"root": str(root), "port": unused_port, "ready_timeout_s": 30},
        {"release": undisturbed.made["package"]},
        undisturbed.store.url,
    )
    try:
        with socket.create_server(("127.0.0.1", unused_port)):
            error = run_request(request).error
            assert error["permanent"] is False
            assert_told(
                error["message"], (str(unused_port), f"process {os.getpid()}", "End who uses the port")
            )
            assert service_status(root, "toy")["supervisor"] is None
        assert run_request(request).status == "succeeded"
    finally:
        with contextlib.suppress(Exception):
            stop_service(root, "toy")
