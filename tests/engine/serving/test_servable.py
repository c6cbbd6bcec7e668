from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest

from airflow_model_deploy.engine.serving import servable
from airflow_model_deploy.engine.serving.cpus import available_cpus
from airflow_model_deploy.engine.serving.servable import ServableRefusedError
from airflow_model_deploy.engine.serving.session import open_session
from tests.engine.serving.servables import broken, edit, entry, linear, tensor, wide, write_servable

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = json.loads(Path(servable.__file__).with_name("servable.schema.json").read_text())


def test_a_good_servable_is_read_as_written_and_follows_the_schema(tmp_path: Path) -> None:
    folder = write_servable(tmp_path / "s")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads((folder / "servable.json").read_text()), SCHEMA)

    loaded = servable.load(folder)

    assert (loaded.name, loaded.version, loaded.precision) == ("tiny", "v1", "fp32")
    assert [t.to_json() for t in loaded.inputs] == [tensor("x", "FP32", [-1, 4])]
    raw = (folder / "servable.json").read_bytes()
    assert loaded.digest == "sha256:" + hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize("field", SCHEMA["required"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    folder = write_servable(tmp_path / "s")
    edit(folder, lambda document: document.pop(field))
    with pytest.raises(ServableRefusedError, match=f"{field}: missing"):
        servable.load(folder)


@pytest.mark.parametrize("field", SCHEMA["properties"]["session"]["required"])
def test_a_missing_session_setting_is_named(tmp_path: Path, field: str) -> None:
    folder = write_servable(tmp_path / "s")
    edit(folder, lambda document: document["session"].pop(field))
    with pytest.raises(ServableRefusedError, match=rf"session\.{field}: missing"):
        servable.load(folder)


def _set(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("schema_version", to=2), "schema_version: found 2, wanted 1"),
        (_set("schema_version", to=True), "schema_version: found bool"),
        (_set("name", to="../etc"), "name: found '../etc'"),
        (_set("model", "file", to="other.onnx"), "model.file: 'other.onnx' is not in files"),
        (_set("golden", to="golden.json"), "golden: 'golden.json' is not in files"),
        (_set("golden", to=[]), "golden: found list, wanted str"),
        (_set("signature", "inputs", to=[]), "signature.inputs: found none"),
        (_set("signature", "inputs", 0, "datatype", to="BYTES"), r"signature.inputs\[0\].datatype"),
        (_set("signature", "inputs", 0, "shape", to=[0, 4]), r"signature.inputs\[0\].shape"),
        (_set("session", "intra_op_threads", to=0), "session.intra_op_threads: found 0"),
        (_set("session", "graph_optimization_level", to="most"), "graph_optimization_level: found 'most'"),
        (_set("files", 0, "size", to=1), r"model.onnx: has \d+ bytes, files says 1"),
        (_set("files", 0, "sha256", to="0" * 64), "model.onnx: sha256 is"),
        (_set("files", 0, "sha256", to="abc"), "model.onnx: sha256 'abc'"),
        (_set("files", 0, to="model.onnx"), r"files\[0\]: found str"),
        (_set("files", 0, "path", to="/etc/passwd"), "'/etc/passwd' may not leave"),
        (_set("files", 0, "path", to="a/../../b"), "may not leave"),
        (_set("files", 0, "path", to="..\\b"), "may not leave"),
        (_set("files", 0, "path", to="./model.onnx"), "may not leave"),
        (_set("files", 0, "path", to="C:model.onnx"), "may not leave"),
        (_set("files", 0, "path", to="a\0b"), "may not leave"),
        (_set("files", 0, "path", to="\ud800"), "can't be read"),
        (_set("files", 0, "path", to="x" * 5000), "can't be read"),
        (_set("files", 0, "path", to="model.onnx/x"), "model.onnx/x: is missing"),
        (_set("files", 0, "path", to="gone.onnx"), "gone.onnx: is missing"),
        (lambda document: document["files"].append(document["files"][0]), "'model.onnx' is listed twice"),
        (
            _set("files", 0, "path", to="servable.json"),
            "'servable.json' is listed twice, or is servable.json",
        ),
        (_set("ranges", to=[]), "ranges: found list, wanted dict"),
        (_set("ranges", to={"y": [0, 1]}), r"ranges\.y: is no float input, which are \['x'\]"),
        (_set("ranges", to={"x": 1}), r"ranges\.x: found 1, wanted two finite numbers"),
        (_set("ranges", to={"x": [0, 1, 2]}), "wanted two finite numbers"),
        (_set("ranges", to={"x": [False, True]}), "wanted two finite numbers"),
        (_set("ranges", to={"x": [0, float("nan")]}), "wanted two finite numbers"),
        (_set("ranges", to={"x": [float("-inf"), 0]}), "wanted two finite numbers"),
        (_set("ranges", to={"x": [0, 10**400]}), "wanted two finite numbers"),
        (_set("ranges", to={"x": [1, 0]}), "wanted the smaller number first"),
    ],
)
def test_a_wrong_field_is_named(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    folder = write_servable(tmp_path / "s")
    edit(folder, change)
    with pytest.raises(ServableRefusedError, match=message):
        servable.load(folder)


def test_one_changed_byte_of_the_model_is_refused(tmp_path: Path) -> None:
    folder = write_servable(tmp_path / "s")
    data = bytearray((folder / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "model.onnx").write_bytes(data)
    with pytest.raises(ServableRefusedError, match=r"model\.onnx: sha256 is"):
        servable.load(folder)


def test_a_file_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    folder = write_servable(tmp_path / "s")
    (folder / "extra").mkdir()
    (folder / "extra" / "code.py").write_text("")
    with pytest.raises(ServableRefusedError, match=r"extra/code\.py: is in the folder and not in files"):
        servable.load(folder)


def test_links_are_refused(tmp_path: Path) -> None:
    folder = write_servable(tmp_path / "s")
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder / "model.onnx").rename(outside / "model.onnx")
    (folder / "model.onnx").symlink_to(outside / "model.onnx")
    with pytest.raises(ServableRefusedError, match=r"model\.onnx: is a symbolic link"):
        servable.load(folder)

    (folder / "model.onnx").unlink()
    (folder / "weights").symlink_to(outside)
    edit(folder, _set("files", 0, "path", to="weights/model.onnx"))
    with pytest.raises(ServableRefusedError, match="'weights' is a symbolic link"):
        servable.load(folder)


def test_a_link_to_a_folder_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    folder = write_servable(tmp_path / "s")
    (folder / "weights").symlink_to(tmp_path)
    with pytest.raises(ServableRefusedError, match="weights: is in the folder"):
        servable.load(folder)


def test_ranges_are_read_and_without_them_there_are_none(tmp_path: Path) -> None:
    assert servable.load(write_servable(tmp_path / "without")).ranges == {}
    folder = write_servable(tmp_path / "with", ranges={"x": [-1.5, 2]})
    jsonschema.validate(json.loads((folder / "servable.json").read_text()), SCHEMA)
    assert servable.load(folder).ranges == {"x": (-1.5, 2.0)}


@pytest.mark.parametrize("wrong", [{"x": [1]}, {"x": ["a", "b"]}, {"x": [1, 2, 3]}, [1, 2]])
def test_the_schema_refuses_what_are_no_ranges(tmp_path: Path, wrong: Any) -> None:
    folder = write_servable(tmp_path / "s", ranges=wrong)
    document = json.loads((folder / "servable.json").read_text())
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(document)
    with pytest.raises(ServableRefusedError, match="ranges"):
        servable.load(folder)


def test_another_format_than_onnx_is_refused(tmp_path: Path) -> None:
    folder = write_servable(tmp_path / "s")
    (folder / "model.onnx").rename(folder / "model.ort")
    edit(folder, _set("files", 0, to=entry(folder, "model.ort")))
    edit(folder, _set("model", "file", to="model.ort"))
    with pytest.raises(ServableRefusedError, match=r"model\.file: found 'model\.ort', wanted .* \.onnx"):
        servable.load(folder)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", "[" * 100_000, '"' + "x" * (17 << 20)],
    ids=["empty", "list", "cut off", "deep", "long"],
)
def test_a_manifest_that_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    folder = write_servable(tmp_path / "s")
    (folder / "servable.json").write_text(content)
    with pytest.raises(ServableRefusedError, match=r"servable\.json"):
        servable.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _set("signature", "inputs", 0, "name", to="z"),
            r"inputs are \['x'\] in the model, declared are \['z'\]",
        ),
        (_set("signature", "inputs", 0, "datatype", to="FP64"), r"'x' is tensor\(float\) in the model"),
        (_set("signature", "inputs", 0, "shape", to=[-1, 5]), "input 'x' has shape"),
        (_set("signature", "outputs", 1, "datatype", to="INT32"), "output 'label' is"),
    ],
)
def test_a_signature_that_is_not_the_models_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    folder = write_servable(tmp_path / "s")
    edit(folder, change)
    with pytest.raises(ServableRefusedError, match=message):
        open_session(servable.load(folder))


def test_bytes_that_are_no_model_are_refused(tmp_path: Path) -> None:
    folder = write_servable(tmp_path / "s")
    (folder / "model.onnx").write_bytes(b"not a model")
    edit(folder, _set("files", 0, to=entry(folder, "model.onnx")))
    with pytest.raises(ServableRefusedError, match=r"model\.onnx: is no ONNX model"):
        servable.load(folder)


def test_a_graph_that_is_none_is_refused(tmp_path: Path) -> None:
    folder = write_servable(tmp_path / "s")
    (folder / "model.onnx").write_bytes(b"\x08\x08\x3a\x02\x12\x00")  # complete, and empty
    edit(folder, _set("files", 0, to=entry(folder, "model.onnx")))
    with pytest.raises(ServableRefusedError, match=r"model\.onnx: can't be loaded"):
        open_session(servable.load(folder))


def test_threads_follow_the_servable_then_the_override_and_never_exceed_the_cpus(tmp_path: Path) -> None:
    folder = write_servable(tmp_path / "s", linear())
    loaded = servable.load(folder)
    assert open_session(loaded).threads == 1
    assert open_session(loaded, threads=2).threads == min(2, available_cpus())
    assert open_session(loaded, threads=4096).threads == available_cpus()


def test_a_model_that_can_not_run_is_refused_before_it_is_ready(tmp_path: Path) -> None:
    folder = write_servable(tmp_path / "s", broken)
    with pytest.raises(ServableRefusedError, match=r"model\.onnx: can't run on zeros"):
        open_session(servable.load(folder))


def test_a_warm_up_whose_sizes_are_a_guess_refuses_nothing(tmp_path: Path) -> None:
    folder = write_servable(tmp_path / "s", wide)
    session = open_session(servable.load(folder))
    x = np.ones((1, 5), dtype=np.float32)
    np.testing.assert_array_equal(session.run({"x": x}, ("y",))["y"], x[:, :4])
