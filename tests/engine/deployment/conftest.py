from __future__ import annotations

import hashlib
import shutil
import socket
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import airflow_model_deploy.engine.serving as serving
from airflow_model_deploy.engine.deployment import host
from tests.engine.deployment.places import DockerSetting, HostSetting, remove_images
from tests.engine.serving.servables import Writer, linear, write_servable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.engine.deployment.places import Setting

START = textwrap.dedent(
    """
    import pathlib, runpy, sys
    here = pathlib.Path(__file__).resolve().parent
    sys.path.insert(0, str(here / "server"))
    sys.argv[1:1] = ["--servable", str(here / "servable")]
    runpy.run_module("model_server", run_name="__main__", alter_sys=True)
    """
)


def write_sums(bundle: Path) -> None:
    files = sorted(p for p in bundle.rglob("*") if p.is_file() and p.name != "SHA256SUMS")
    lines = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(bundle).as_posix()}\n" for p in files
    ]
    (bundle / "SHA256SUMS").write_text("".join(lines))


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Assemble a host release bundle as packaging does."""

    def make(name: str, model: Writer | None = None, start: str = START) -> Path:
        bundle = tmp_path / f"bundle-{name}"
        if bundle.exists():
            return bundle
        write_servable(bundle / "servable", model or linear(), version=name)
        source = Path(serving.__file__).parent
        shutil.copytree(
            source, bundle / "server" / "model_server", ignore=shutil.ignore_patterns("__pycache__")
        )
        (bundle / "start.py").write_text(start)
        (bundle / "requirements.txt").write_text("onnxruntime\n")
        write_sums(bundle)
        return bundle

    return make


@pytest.fixture
def service(tmp_path: Path) -> Iterator[host.Service]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    service = host.Service(root=tmp_path / "services", name="tiny", port=port, ready_timeout_s=20, drain_s=3)
    yield service
    host.stop(service)


@pytest.fixture(scope="session")
def model_images() -> Iterator[set[str]]:
    """The images of models that the session made; what they stand on stays for the next session."""
    made: set[str] = set()
    yield made
    remove_images(made)


@pytest.fixture
def docker_setting(tmp_path: Path, model_images: set[str]) -> Iterator[DockerSetting]:
    setting = DockerSetting(tmp_path, model_images)
    yield setting
    setting.close()


@pytest.fixture(params=["host", pytest.param("docker", marks=pytest.mark.docker)])
def setting(
    request: pytest.FixtureRequest, tmp_path: Path, make_bundle: Callable[..., Path]
) -> Iterator[Setting]:
    if request.param == "docker":
        yield request.getfixturevalue("docker_setting")
        return
    setting = HostSetting(tmp_path, make_bundle)
    yield setting
    host.stop(setting.service)
