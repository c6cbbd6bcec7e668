from __future__ import annotations

from importlib import metadata

import pytest

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.packaging.images.contents.engine_images import _DRIVER, _EVERY_STEP
from airflow_model_deploy.engine.packaging.images.contents.pins import canonical, closure, extra, pins
from airflow_model_deploy.engine.packaging.images.contents.target import Target, target
from airflow_model_deploy.engine.steps import STEP_NAMES, requirements


def _names(found: tuple[str, ...]) -> set[str]:
    return {pin.partition("==")[0] for pin in found}


def _required(step: str) -> set[str]:
    from packaging.requirements import Requirement

    return {canonical(Requirement(line).name) for line in requirements(step)}


def test_pins_are_what_is_installed() -> None:
    version = metadata.version("numpy")
    assert pins(["numpy"]) == (f"numpy=={version}",)
    assert f"numpy=={version}" in closure(["onnxruntime>=1"], target())


def test_a_closure_follows_extras_and_the_markers_of_the_target() -> None:
    found = closure(["uvicorn[standard]"], Target("3.11", "amd64"))
    assert {"click", "h11", "httptools", "uvloop"} <= _names(found)
    assert "colorama" not in _names(found)  # Windows only
    assert {"click", "h11"} == _names(closure(["uvicorn"], target())) - {"uvicorn", "typing-extensions"}


@pytest.mark.parametrize("asked", ["no-such-distribution", "torch=="])
def test_what_cannot_be_pinned_is_named(asked: str) -> None:
    with pytest.raises(InputError, match=asked):
        closure([asked], target())


def test_an_extra_that_we_do_not_have() -> None:
    with pytest.raises(InputError, match="engine"):
        extra("gpu")


@pytest.mark.parametrize("step", STEP_NAMES)
def test_the_worker_has_what_every_step_asks_for(step: str) -> None:
    assert _required(step) <= _names(closure((*_EVERY_STEP, *extra("engine")), target()))


def test_the_driver_has_no_training_library() -> None:
    found = _names(closure(_DRIVER, target()))
    assert not found & {"torch", "onnx", "onnxruntime", "onnxscript", "apache-airflow", "apache-airflow-core"}
    assert {"kubernetes", "docker", "httpx", "numpy", "fsspec", "pydantic"} <= found
    assert _required("rollback") | _required("monitor") <= found
