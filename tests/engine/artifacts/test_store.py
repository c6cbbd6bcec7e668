"""Publication and verification: a reader never sees half an artifact, and never a changed one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from airflow_model_deploy.engine.artifacts import (
    Description,
    Manifest,
    Reference,
    Signature,
    StepRecord,
    Store,
    TensorSpec,
    file_sha256,
)
from airflow_model_deploy.engine.errors import InputError, IntegrityError

DESCRIPTION = Description(name="tiny", kind="model", format="onnx", metrics={"quality": 0.5})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "made"
    (path / "deep").mkdir(parents=True)
    (path / "model.onnx").write_bytes(b"weights")
    (path / "deep" / "note.json").write_text("{}")
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def test_what_is_published_comes_back_verified(store, folder):
    reference, manifest = store.publish(folder, DESCRIPTION)
    fetched, again = store.fetch(reference)
    assert again == manifest
    assert manifest.digest == reference.digest
    assert sorted(entry.path for entry in manifest.files) == ["deep/note.json", "model.onnx"]
    assert (fetched / "model.onnx").read_bytes() == b"weights"


def test_the_digest_says_what_the_artifact_is_not_where_or_when(tmp_path, folder):
    one, _ = Store(str(tmp_path / "one")).publish(folder, DESCRIPTION)
    os.utime(folder / "model.onnx", (1, 1))
    other, _ = Store(str(tmp_path / "other")).publish(folder, DESCRIPTION)
    assert one.digest == other.digest
    assert one.uri != other.uri


def test_any_change_of_content_or_description_changes_the_digest(store, folder):
    first, _ = store.publish(folder, DESCRIPTION)
    other_metrics, _ = store.publish(folder, Description("tiny", "model", "onnx", metrics={"quality": 0.6}))
    (folder / "model.onnx").write_bytes(b"Weights")
    other_content, _ = store.publish(folder, DESCRIPTION)
    assert len({first.digest, other_metrics.digest, other_content.digest}) == 3


def test_a_manifest_survives_json_with_all_its_parts(store, folder):
    signature = Signature(
        (TensorSpec("x", ("batch", 3), "float32"),), (TensorSpec("y", ("batch",), "int64"),)
    )
    record = StepRecord("prune", 1, {"ratio": 0.5}, {"torch": "2.13.0"})
    description = Description("tiny", "model", "onnx", signature, {"model": "sha256:" + "0" * 64}, record)
    reference, manifest = store.publish(folder, description)
    assert store.manifest(reference) == manifest
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json())), source="here") == manifest


@pytest.mark.parametrize("damage", ["changed", "truncated", "removed", "linked"])
def test_a_damaged_file_is_refused_by_name(store, folder, damage):
    reference, _ = store.publish(folder, DESCRIPTION)
    path = store.fetch(reference)[0] / "model.onnx"
    if damage == "changed":
        path.write_bytes(b"weightz")
    elif damage == "truncated":
        path.write_bytes(b"wei")
    else:
        path.unlink()
        if damage == "linked":
            path.symlink_to(folder / "model.onnx")
    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        store.fetch(reference)


def test_a_manifest_that_lists_a_file_outside_is_refused(store, folder, tmp_path):
    _, manifest = store.publish(folder, DESCRIPTION)
    value = manifest.to_json()
    value["files"][0]["path"] = "../../secret"
    hostile = Manifest.from_json(value, source="here")
    place = tmp_path / "store" / "artifacts" / hostile.digest.replace(":", "-")
    place.mkdir(parents=True)
    (place / "manifest.json").write_text(json.dumps(value))
    with pytest.raises(IntegrityError, match="outside its folder"):
        store.fetch(store.reference(hostile.digest))


def test_a_publication_that_died_half_way_does_not_exist_and_is_completed(store, folder):
    reference, _ = store.publish(folder, DESCRIPTION)
    place = Path(reference.uri.removeprefix("file://"))
    (place / "manifest.json").unlink()
    (place / "files" / "model.onnx").write_bytes(b"half")
    assert not store.has(reference)
    with pytest.raises(InputError, match="no artifact"):
        store.fetch(reference)
    store.publish(folder, DESCRIPTION)
    assert (store.fetch(reference)[0] / "model.onnx").read_bytes() == b"weights"


def test_has_notices_a_missing_file(store, folder):
    reference, _ = store.publish(folder, DESCRIPTION)
    assert store.has(reference)
    (store.fetch(reference)[0] / "model.onnx").unlink()
    assert not store.has(reference)


def test_links_cannot_be_published(store, folder):
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match="a link"):
        store.publish(folder, DESCRIPTION)


def test_an_artifact_of_another_store_is_refused_by_name(store, folder, tmp_path):
    reference, _ = Store(str(tmp_path / "elsewhere")).publish(folder, DESCRIPTION)
    with pytest.raises(InputError, match="another store"):
        store.fetch(reference)


def test_a_store_that_cannot_be_written_says_so(tmp_path, folder):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="can't be written"):
        Store(str(tmp_path / "file" / "store")).publish(folder, DESCRIPTION)


def test_an_unknown_kind_of_store_says_what_is_missing():
    with pytest.raises(InputError, match="can't be opened"):
        Store("nosuchprotocol://bucket/models")


def test_small_files_are_replaced_whole(store, tmp_path):
    store.write_json("runs/a/result.json", {"a": 1})
    store.write_json("runs/a/result.json", {"a": 2})
    assert store.read_json("runs/a/result.json") == {"a": 2}
    assert store.read_json("runs/none.json") is None
    assert [path.name for path in (tmp_path / "store" / "runs" / "a").iterdir()] == ["result.json"]


def test_a_remote_store_is_copied_and_verified(folder, tmp_path):
    store = Store("memory://bucket/models")
    reference, _ = store.publish(folder, DESCRIPTION)
    fetched, _ = store.fetch(reference, tmp_path / "cache")
    assert file_sha256(fetched / "model.onnx") == file_sha256(folder / "model.onnx")
    assert store.has(reference)


@pytest.mark.parametrize("value", [None, "x", {"uri": "file:///a"}, {"uri": 1, "digest": 2}])
def test_what_is_no_reference_is_refused(value):
    with pytest.raises(InputError, match="no artifact reference"):
        Reference.from_json(value)


def test_a_step_result_counts_as_the_reference_it_holds():
    digest = "sha256:" + "a" * 64
    assert (
        Reference.from_json({"artifact": {"uri": "file:///a", "digest": digest}, "step": "x"}).digest
        == digest
    )
