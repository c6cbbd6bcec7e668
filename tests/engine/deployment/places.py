"""One way to use every place where a service can run, for tests that hold them to one behaviour."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from airflow_model_deploy.engine.containers import Engine, Limits, connect
from airflow_model_deploy.engine.deployment import docker, host
from tests.engine.deployment.images import build_model
from tests.engine.serving.servables import REPOSITORY, linear, request, write_servable

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_model_deploy.engine.deployment import Deployment

LIMITS = Limits(memory_bytes=256 << 20, cpus=1.0)
PREFIX = "model-deploy-test-"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Setting(Protocol):
    """A place, a service there, and releases for it."""

    room: Any
    service: Any
    program: str

    def release(self, version: str, scale: float = 1.0) -> Any: ...


class HostSetting:
    """A service in a folder of this machine."""

    room = host

    def __init__(self, folder: Path, make_bundle: Callable[..., Path]) -> None:
        self.service = host.Service(
            root=folder / "services", name="tiny", port=free_port(), ready_timeout_s=20, drain_s=3
        )
        self.program = (
            f"host.Service(Path({str(self.service.root)!r}), 'tiny', port={self.service.port}, drain_s=3)"
        )
        self._make_bundle = make_bundle

    def release(self, version: str, scale: float = 1.0) -> Path:
        return self._make_bundle(version, linear(scale))


class DockerSetting:
    """A service on the engine of DOCKER_HOST."""

    room = docker

    def __init__(self, folder: Path, made: set[str]) -> None:
        name = f"{PREFIX}{uuid.uuid4().hex[:8]}"
        self.service = docker.Service(
            name=name, engine=Engine(), port=free_port(), limits=LIMITS, ready_timeout_s=20, drain_s=3
        )
        self.program = (
            f"docker.Service({name!r}, Engine(), {self.service.port}, Limits(256 << 20, 1.0), drain_s=3)"
        )
        self._folder, self._made, self._client = folder, made, connect(Engine())

    def release(self, version: str, scale: float = 1.0) -> str:
        folder = self._folder / f"servable-{version}"
        if not folder.exists():
            write_servable(folder, linear(scale), version=version)
        return self.image(folder)

    def image(self, folder: Path) -> str:
        """A model image of a servable."""
        image = build_model(self._client, folder)
        self._made.add(image)
        return image

    def close(self) -> None:
        remove_service(self._client, self.service.name)
        self._client.close()


def remove_service(client: Any, name: str) -> None:
    """Remove what a test made on the engine, by its own name."""
    label = f"io.model-deploy.service={name}"
    for container in client.containers(all=True, filters={"label": label}):
        client.remove_container(container["Id"], force=True)
    for volume in client.volumes(filters={"label": label})["Volumes"] or ():
        client.remove_volume(volume["Name"], force=True)


def remove_images(images: set[str]) -> None:
    """Remove images, but what somebody else uses."""
    from docker.errors import APIError

    client = connect(Engine())
    for image in images:
        with contextlib.suppress(APIError):
            client.remove_image(image)
    client.close()


def version(service: Any) -> str:
    return str(request(f"{service.url}/v2/models/tiny")[1]["versions"][0])


def act_elsewhere(
    setting: Setting, release: Any, hang_at: int, action: str = "deploy"
) -> subprocess.Popen[bytes]:
    """Deploy, or roll back, in a process that hangs in its check number `hang_at`; return once it does."""
    named = f"Path({str(release)!r})" if isinstance(release, Path) else repr(release)
    arguments = f"service, {named}" if action == "deploy" else "service"
    program = textwrap.dedent(
        f"""
        import time
        from pathlib import Path
        from airflow_model_deploy.engine.containers import Engine, Limits
        from airflow_model_deploy.engine.deployment import docker, host
        from tests.engine.deployment.traffic import Result
        calls = []
        def check(url: str, release: Path) -> Result:
            calls.append(url)
            if len(calls) == {hang_at}:
                print("hangs", flush=True)
                time.sleep(60)
            return Result(True, "fine")
        service = {setting.program}
        {setting.room.__name__.rsplit(".", 1)[1]}.{action}({arguments}, check=check)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"hangs\n"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def deployed(setting: Setting, release: Any, check: Any) -> Deployment:
    result: Deployment = setting.room.deploy(setting.service, release, check=check)
    return result
