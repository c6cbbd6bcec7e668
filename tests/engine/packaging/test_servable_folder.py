from __future__ import annotations

import hashlib
import json
import re
import sys
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import numpy as np
import onnx
import pytest

from airflow_model_deploy.engine.artifacts import Signature, TensorSpec
from airflow_model_deploy.engine.errors import InputError, IntegrityError
from airflow_model_deploy.engine.models import Stream, create_session, open_onnx, run, write_onnx
from airflow_model_deploy.engine.packaging import bless, read_servable, write_bundle
from airflow_model_deploy.engine.probing import load_golden
from airflow_model_deploy.engine.serving import servable

if TYPE_CHECKING:
    from tests.engine.packaging.conftest import Parts


def test_what_is_written_fits_the_schema_that_the_server_publishes(parts: Parts, tmp_path: Path) -> None:
    parts.write(tmp_path / "s")
    jsonschema.Draft202012Validator(server_schema()).validate(
        json.loads((tmp_path / "s/servable.json").read_text())
    )


def server_schema() -> dict[str, object]:
    source = resources.files("airflow_model_deploy.engine") / "serving" / "servable.schema.json"
    schema: dict[str, object] = json.loads(source.read_text())
    return schema


def test_the_digest_is_that_of_the_index_and_the_same_for_the_same_content(
    parts: Parts, tmp_path: Path
) -> None:
    digest = parts.write(tmp_path / "a")
    assert digest == parts.write(tmp_path / "b")
    assert digest == "sha256:" + hashlib.sha256((tmp_path / "a/servable.json").read_bytes()).hexdigest()
    assert digest != parts.write(tmp_path / "c", golden=None)


def test_reading_returns_what_was_written(parts: Parts, tmp_path: Path) -> None:
    digest = parts.write(tmp_path / "s", session={"intra_op_threads": 2})
    found = read_servable(tmp_path / "s")
    assert found.digest == digest
    assert (found.name, found.version, found.precision) == ("affine", "3f9a1c2b4d5e", "int8")
    assert found.signature == parts.signature
    assert found.session["intra_op_threads"] == 2
    assert found.model.read_bytes() == parts.model.read_bytes()
    assert found.golden is not None
    assert len(load_golden(found.golden).requests) == len(parts.golden.requests)


def test_ranges_are_written_read_and_fit_the_schema(parts: Parts, tmp_path: Path) -> None:
    parts.write(tmp_path / "s", ranges={"x": (-1, 0.1)})
    index = json.loads((tmp_path / "s/servable.json").read_text())
    jsonschema.Draft202012Validator(server_schema()).validate(index)
    found = {"x": (-1.0, 0.1)}
    assert read_servable(tmp_path / "s").ranges == found
    assert servable.load(tmp_path / "s").ranges == found
    parts.write(tmp_path / "none", ranges={})
    assert "ranges" not in json.loads((tmp_path / "none/servable.json").read_text())
    assert read_servable(tmp_path / "none").ranges == {}


@pytest.fixture
def large(parts: Parts, tmp_path: Path) -> Path:
    """The model with its weights in a file beside it, as one too large for a single file has them."""
    (tmp_path / "large").mkdir()
    write_onnx(
        open_onnx(parts.model), tmp_path / "large/built.onnx", folder=parts.model.parent, one_file=0,
        streams=as_streams(parts.model),
    )  # fmt: skip
    return tmp_path / "large/built.onnx"


def as_streams(path: Path) -> dict[str, Stream]:
    contents = {t.name: t.raw_data for t in onnx.load(path).graph.initializer}
    return {name: Stream(len(content), partial(iter, [content])) for name, content in contents.items()}


def test_weights_beside_the_model_come_along(parts: Parts, large: Path, tmp_path: Path) -> None:
    digest = parts.write(tmp_path / "s", model=large)
    assert digest == parts.write(tmp_path / "again", model=large)
    listed = [e["path"] for e in json.loads((tmp_path / "s/servable.json").read_text())["files"]]
    assert listed == ["built.onnx.data", "golden.json", "model.onnx"]
    assert read_servable(tmp_path / "s").digest == digest
    assert servable.load(tmp_path / "s").digest == digest
    want, got = (create_session(p) for p in (parts.model, tmp_path / "s/model.onnx"))
    x = {"x": np.random.default_rng(0).random((3, 4), dtype=np.float32)}
    np.testing.assert_array_equal(run(got, x)["y"], run(want, x)["y"])


def test_a_bundle_of_such_a_model_is_blessed(parts: Parts, large: Path, tmp_path: Path) -> None:
    parts.write(tmp_path / "s", model=large)
    write_bundle(tmp_path / "s", tmp_path / "bundle")
    assert bless(tmp_path / "bundle", python=sys.executable).passed


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../weights.bin", "'../weights.bin'; wanted: a plain file inside"),
        ("./built.onnx.data", "'./built.onnx.data'; wanted: a plain file inside"),
        ("/etc/hostname", "wanted: a plain file inside"),
        ("", "wanted: a plain file inside"),
        ("link.bin", "is a symbolic link"),
        ("gone.bin", "is missing"),
        ("short.bin", "wanted: the complete file"),
        ("servable.json", "wanted: another file name"),
        ("golden.json", "wanted: another file name"),
        ("model.onnx", "wanted: another name than that of the copy"),
    ],
)
def test_weights_that_a_server_would_refuse_are_not_packaged(
    parts: Parts, large: Path, tmp_path: Path, location: str, message: str
) -> None:
    data = (tmp_path / "large/built.onnx.data").read_bytes()
    for name in ("weights.bin", "large/servable.json", "large/golden.json", "large/model.onnx"):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "large/short.bin").write_bytes(data[:-1])
    (tmp_path / "large/link.bin").symlink_to(tmp_path / "weights.bin")
    model = onnx.load(large, load_external_data=False)
    (entry,) = (e for e in model.graph.initializer[0].external_data if e.key == "location")
    entry.value = location
    large.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=re.escape(message)):
        parts.write(tmp_path / "s", model=large)
    assert not (tmp_path / "s/servable.json").exists()


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
        {"ranges": {"y": (0.0, 1.0)}},
        {"ranges": {"x": (1.0, 0.0)}},
        {"ranges": {"x": (0.0, float("inf"))}},
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
