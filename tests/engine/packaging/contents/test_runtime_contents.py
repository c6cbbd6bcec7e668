from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from airflow_model_deploy.engine.packaging.images import File, Folder, default_base
from tests.engine.packaging.contents.conftest import lay_out

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_model_deploy.engine.packaging.images import ImageSpec
    from tests.engine.packaging.conftest import Parts


@pytest.fixture(scope="module")
def home(runtime: ImageSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(runtime, tmp_path_factory.mktemp("root")) / "opt/model-server"


def _argv(*options: str) -> list[str]:
    # -S: nothing but the standard library and what PYTHONPATH names, as in a bare base.
    return [os.path.realpath(sys.executable), "-S", *options]


@contextlib.contextmanager
def _serving(home: Path, servable: Path, ready: Path) -> Iterator[str]:
    environment = {"PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = _argv("-m", "model_server", "--servable", str(servable), "--ready-file", str(ready))
    with subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not ready.exists():
                if process.poll() is not None:
                    raise AssertionError((process.stderr and process.stderr.read()) or "it ended")
                time.sleep(0.01)
            yield f"http://127.0.0.1:{json.loads(ready.read_bytes())['port']}"
        finally:
            process.terminate()
            process.communicate()


def test_the_server_runs_with_nothing_but_what_the_image_has(
    home: Path, parts: Parts, tmp_path: Path
) -> None:
    parts.write(tmp_path / "servable")
    golden = json.loads((tmp_path / "servable/golden.json").read_bytes())
    with _serving(home, tmp_path / "servable", tmp_path / "ready.json") as url:
        for request in golden["requests"]:
            asked = urllib.request.Request(
                f"{url}/v2/models/affine/infer", json.dumps({"inputs": request["inputs"]}).encode()
            )
            with urllib.request.urlopen(asked, timeout=10) as answer:
                got: Any = json.loads(answer.read())["outputs"]
            assert got[0]["data"] == pytest.approx(request["built"][0]["data"], rel=1e-5)
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
            assert b"model_info" in answer.read()


def test_trimmed_libraries_still_compute(home: Path) -> None:
    code = """
import json, numpy as np, onnxruntime
a = np.random.default_rng(0).normal(size=(200, 200))
print(json.dumps([
    float(abs(np.linalg.inv(a) @ a - np.eye(200)).max()),
    float(abs(np.fft.ifft(np.fft.fft(a)).real - a).max()),
    np.polynomial.Polynomial([1, 2])(3.0), float(np.ma.masked_less(a, 9.0).count()),
    np.__file__, onnxruntime.__file__,
]))"""
    done = subprocess.run(
        _argv("-c", code), env={"PYTHONPATH": str(home)}, capture_output=True, text=True, check=True
    )
    inverse, transform, value, count, *files = json.loads(done.stdout)
    assert inverse < 1e-9
    assert transform < 1e-12
    assert (value, count) == (7.0, 0.0)
    assert all(file.startswith(str(home)) for file in files)


def test_the_layers_are_small_and_complete(runtime: ImageSpec, home: Path) -> None:
    assert [layer.name for layer in runtime.layers] == ["packages", "server"]
    assert all(layer.compressed for layer in runtime.layers)
    files = [entry for layer in runtime.layers for entry in layer.entries if isinstance(entry, File)]
    size = sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
    assert size < 95e6
    paths = {file.path for file in files}
    modules = {path for path in paths if path.startswith("opt/model-server/model_server/")}
    assert {f"opt/model-server/model_server/{name}.py" for name in ("__main__", "health")} <= modules
    assert "opt/model-server/model_server/servable.schema.json" in modules
    assert "opt/model-server/numpy-" in "".join(sorted(paths))  # versions can be read in the image
    assert not [path for path in paths if "/tests/" in path or path.endswith((".pyi", ".h", "RECORD"))]
    folders = [entry for layer in runtime.layers for entry in layer.entries if isinstance(entry, Folder)]
    assert folders == [Folder("run/model-server", 0o700, 65532, 65532)]


def test_how_a_container_of_it_runs(runtime: ImageSpec) -> None:
    settings = runtime.settings
    assert settings.entrypoint == ("python3", "-m", "model_server")
    assert settings.command == ("--servable", "/servable", "--host", "0.0.0.0", "--port", "8080")  # noqa: S104
    assert (settings.user, settings.working_dir, settings.stop_signal) == ("65532:65532", "/", "SIGTERM")
    assert settings.env["PYTHONPATH"] == "/opt/model-server"
    assert settings.healthcheck is not None
    assert settings.healthcheck.command == ("python3", "-m", "model_server.health")
    assert settings.ports == ("8080/tcp",)
    assert runtime.kind == "runtime"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert settings.labels["io.model-deploy.python"] == python
    assert settings.labels["io.model-deploy.architecture"] in ("amd64", "arm64")
    assert default_base() == f"python:{python}-slim"
