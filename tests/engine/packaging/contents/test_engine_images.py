"""The driver's and the worker's files run alone, in an interpreter that sees nothing else. Large: slow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from airflow_model_deploy.engine.packaging.images.contents import driver_spec, worker_spec
from airflow_model_deploy.engine.packaging.images.contents.sources import engine_source
from airflow_model_deploy.engine.packaging.images.contents.target import target
from tests.engine.packaging.contents.conftest import lay_out

if TYPE_CHECKING:
    from pathlib import Path

BASE = "registry.example/python:3.11-slim"


def _python(home: Path, *arguments: str) -> str:
    # Where the base's interpreter looks by itself: nowhere but its standard library.
    argv = [os.path.realpath(sys.executable), "-S", *arguments]
    environment = {"PYTHONPATH": str(home), "HOME": str(home.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_engine_goes_without_airflow_and_with_its_metadata(tmp_path: Path) -> None:
    paths = {file.path for file in engine_source(target(), tmp_path, "/opt/model-deploy")}
    below = "opt/model-deploy/airflow_model_deploy"
    assert f"{below}/engine/cli.py" in paths
    assert f"{below}/engine/packaging/resources/start.py" in paths
    assert {path for path in paths if path.startswith(f"{below}-") and path.endswith("METADATA")}
    assert not [path for path in paths if "/operators/" in path or path == f"{below}/config.py"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_driver_runs_alone(tmp_path: Path) -> None:
    spec = driver_spec(BASE, tmp_path / "scratch")
    home = lay_out(spec, tmp_path / "root") / "opt/model-deploy"
    steps = json.loads(_python(home, "-m", "airflow_model_deploy.engine.cli", "steps"))
    assert {"deploy", "rollback", "monitor"} <= set(steps)
    assert "httpx" in _python(home, "-m", "airflow_model_deploy.engine.cli", "requirements", "rollback")
    _python(home, "-c", "import docker, httpx, kubernetes, numpy, prometheus_client, psutil, tqdm")
    assert [layer.name for layer in spec.layers] == ["packages", "engine"]
    assert spec.settings.user == "65532:65532"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_worker_runs_alone(tmp_path: Path) -> None:
    spec = worker_spec(BASE, tmp_path / "scratch")
    assert [layer.name for layer in spec.layers] == ["bulk", "packages", "engine"]
    home = lay_out(spec, tmp_path / "root") / "opt/model-deploy"
    code = """
import torch, torch_pruning, onnx, onnxruntime.quantization, safetensors.torch
m = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
torch_pruning.DependencyGraph().build_dependency(m, torch.zeros(1, 4))
m(torch.ones(3, 4)).sum().backward()
program = torch.onnx.export(m, (torch.zeros(1, 4),), dynamo=True, verbose=False)
print(len(program.model_proto.graph.node), torch.__file__)"""
    nodes, where = _python(home, "-c", code).splitlines()[-1].split()
    assert int(nodes) == 3
    assert where.startswith(str(home))
    assert "train" in json.loads(_python(home, "-m", "airflow_model_deploy.engine.cli", "steps"))
