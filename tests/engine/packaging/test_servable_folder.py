from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest

from airflow_model_deploy.engine.artifacts import Signature, TensorSpec
from airflow_model_deploy.engine.errors import InputError, IntegrityError
from airflow_model_deploy.engine.packaging import read_servable
from airflow_model_deploy.engine.probing import load_golden

if TYPE_CHECKING:
    from tests.engine.packaging.conftest import Parts


def test_what_is_written_fits_the_schema_that_the_server_publishes(parts: Parts, tmp_path: Path) -> None:
    parts.write(tmp_path / "s")
    source = resources.files("airflow_model_deploy.engine") / "serving" / "servable.schema.json"
    schema = json.loads(source.read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads((tmp_path / "s/servable.json").read_text()))


def test_the_digest_is_that_of_the_index_and_the_same_for_the_same_content(
    parts: Parts, tmp_path: Path
) -> None:
    digest = parts.write(tmp_path / "a")
    assert digest == parts.write(tmp_path / "b")
    assert digest == "sha256:" + hashlib.sha256((tmp_path / "a/servable.json").read_bytes()).hexdigest()
    assert digest != parts.write(tmp_path / "c", golden=None)


def test_reading_returns_what_was_written(parts: Parts, tmp_path: Path) -> None:
    digest = parts.write(tmp_path / "s", session={"intra_op_threads": 2})
    servable = read_servable(tmp_path / "s")
    assert servable.digest == digest
    assert (servable.name, servable.version, servable.precision) == ("affine", "3f9a1c2b4d5e", "int8")
    assert servable.signature == parts.signature
    assert servable.session["intra_op_threads"] == 2
    assert servable.model.read_bytes() == parts.model.read_bytes()
    assert servable.golden is not None
    assert len(load_golden(servable.golden).requests) == len(parts.golden.requests)


def _change_model(folder: Path) -> None:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[-1] ^= 1
    (folder / "model.onnx").write_bytes(content)


def _link_model(folder: Path) -> None:
    (folder / "model.onnx").rename(folder.parent / "elsewhere.onnx")
    (folder / "model.onnx").symlink_to(folder.parent / "elsewhere.onnx")


def _escape(folder: Path) -> None:
    index = json.loads((folder / "servable.json").read_text())
    index["files"][0]["path"] = "../outside"
    (folder / "servable.json").write_text(json.dumps(index))


def _unlist_model(folder: Path) -> None:
    index = json.loads((folder / "servable.json").read_text())
    index["model"]["file"] = "other.onnx"
    (folder / "servable.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_change_model, "changed: model.onnx"),
        (_link_model, "a link"),
        (_escape, "../outside"),
        (_unlist_model, "other.onnx"),
        (lambda f: (f / "extra.py").write_text("1"), "not listed: extra.py"),
        (lambda f: (f / "golden.json").unlink(), "missing: golden.json"),
    ],
)
def test_a_servable_that_was_touched_is_refused_by_name(
    parts: Parts, tmp_path: Path, harm: object, words: str
) -> None:
    parts.write(tmp_path / "s")
    harm(tmp_path / "s")  # type: ignore[operator]
    with pytest.raises(IntegrityError, match=words):
        read_servable(tmp_path / "s")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../x"},
        {"version": ""},
        {"session": {"threads": 1}},
        {"session": {"intra_op_threads": 0}},
        {"session": {"graph_optimization_level": "most"}},
        {"signature": Signature((TensorSpec("x", ("batch",), "object"),), ())},
        {"model": Path("/nowhere/model.onnx")},
    ],
)
def test_what_the_server_would_refuse_is_not_written(
    parts: Parts, tmp_path: Path, changes: dict[str, object]
) -> None:
    with pytest.raises(InputError):
        parts.write(tmp_path / "s", **changes)
    assert not (tmp_path / "s/servable.json").exists()


def test_a_folder_in_use_is_left_alone(parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(InputError, match="empty"):
        parts.write(tmp_path)


def test_a_folder_without_index_is_no_servable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no servable"):
        read_servable(tmp_path)
