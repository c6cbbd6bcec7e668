from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from airflow_model_deploy.engine.errors import IntegrityError
from airflow_model_deploy.engine.packaging import read_servable
from airflow_model_deploy.engine.packaging.images.contents import model_spec

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_model_deploy.engine.packaging.images import ImageSpec
    from tests.engine.packaging.conftest import Parts

RUNTIME = "registry.example/runtime@sha256:" + "0" * 64


def _paths(spec: ImageSpec) -> list[list[str]]:
    return [[entry.path for entry in layer.entries] for layer in spec.layers]


def test_a_small_servable_is_one_layer_as_it_is(parts: Parts, tmp_path: Path) -> None:
    digest = parts.write(tmp_path / "servable")
    spec = model_spec(RUNTIME, tmp_path / "servable")
    assert _paths(spec) == [["servable/golden.json", "servable/model.onnx", "servable/servable.json"]]
    assert [layer.compressed for layer in spec.layers] == [False]
    assert (spec.base, spec.kind, spec.settings.entrypoint) == (RUNTIME, "model", None)
    labels = spec.settings.labels
    assert labels["io.model-deploy.servable-digest"] == digest == read_servable(tmp_path / "servable").digest
    assert (labels["io.model-deploy.model"], labels["io.model-deploy.precision"]) == ("affine", "int8")


def test_large_files_travel_alone(parts: Parts, tmp_path: Path) -> None:
    large = tmp_path / "large.onnx"
    parts.save_affine(large, np.zeros((4, 2**22), np.float32))
    parts.write(tmp_path / "servable", model=large)
    spec = model_spec(RUNTIME, tmp_path / "servable")
    assert _paths(spec) == [["servable/golden.json", "servable/servable.json"], ["servable/model.onnx"]]
    assert [layer.compressed for layer in spec.layers] == [False, False]


def test_the_same_servable_elsewhere_is_the_same_image(parts: Parts, tmp_path: Path) -> None:
    keys = set()
    for name in ("a", "b"):
        parts.write(tmp_path / name / "servable")
        keys.add(model_spec(RUNTIME, tmp_path / name / "servable").content_key("sha256:" + "1" * 64))
    assert len(keys) == 1


def test_a_servable_that_was_changed_is_refused(parts: Parts, tmp_path: Path) -> None:
    parts.write(tmp_path / "servable")
    with (tmp_path / "servable/model.onnx").open("ab") as stream:
        stream.write(b"\n")
    with pytest.raises(IntegrityError, match=r"changed: model\.onnx"):
        model_spec(RUNTIME, tmp_path / "servable")
