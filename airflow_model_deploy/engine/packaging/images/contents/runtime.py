"""The runtime image: the server and what it imports, no model. Built rarely, shared by all models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_model_deploy.engine.packaging.host_release import SERVER_NEEDS
from airflow_model_deploy.engine.packaging.images.contents.packages import gather
from airflow_model_deploy.engine.packaging.images.contents.pins import own_version, pins
from airflow_model_deploy.engine.packaging.images.contents.sources import (
    SERVER_PACKAGE,
    folder_files,
    server_source,
)
from airflow_model_deploy.engine.packaging.images.contents.target import target as target_of
from airflow_model_deploy.engine.packaging.images.contents.trimming import SERVER_TRIMS
from airflow_model_deploy.engine.packaging.images.foundation import ARCHITECTURE_LABEL, PYTHON_LABEL
from airflow_model_deploy.engine.packaging.images.spec import Folder, Healthcheck, ImageSpec, Layer, Settings

if TYPE_CHECKING:
    from pathlib import Path

USER = 65532
USER_AND_GROUP = f"{USER}:{USER}"
SERVER_HOME = "/opt/model-server"
SERVABLE_HOME = "/servable"
RUN_FOLDER = "/run/model-server"
PORT = 8080
ENVIRONMENT = {
    "ORT_DISABLE_TELEMETRY": "1",
    "PYTHONDONTWRITEBYTECODE": "1",  # the file system is read-only
    "PYTHONUNBUFFERED": "1",
}
TITLE_LABEL, VERSION_LABEL = "org.opencontainers.image.title", "org.opencontainers.image.version"
# uvicorn's front page imports its command line. h11 it imports only where httptools is missing.
_NEEDED_BY_THOSE = ("click",)


def runtime_spec(
    base: str, *, python: str | None = None, architecture: str | None = None, scratch: Path
) -> ImageSpec:
    """The server on a base that has `python3`.

    Args:
        base: reference of an image with CPython and glibc 2.28 or newer, such as "python:3.11-slim".
        python: the base's Python, such as "3.11"; this interpreter's by default.
        architecture: the base's, "amd64" or "arm64"; this machine's by default.
        scratch: a folder to gather packages in; kept, it saves the next build the download. The spec's files
            are read from it when the image is built.

    Raises:
        InputError: a package that the server needs isn't installed here, or has no wheel for the base.
        UnavailableError: the package index doesn't answer.
    """
    target = target_of(python, architecture)
    packages = gather(
        pins((*SERVER_NEEDS, *_NEEDED_BY_THOSE)), target, scratch, prefix=SERVER_HOME, trims=SERVER_TRIMS
    )
    run_folder = Folder(RUN_FOLDER.lstrip("/"), mode=0o700, uid=USER, gid=USER)
    return ImageSpec(
        base=base,
        layers=(
            Layer("packages", folder_files(packages.folder, SERVER_HOME)),
            Layer("server", (run_folder, *server_source(target, scratch, SERVER_HOME))),
        ),
        settings=Settings(
            entrypoint=("python3", "-m", SERVER_PACKAGE),
            command=("--servable", SERVABLE_HOME, "--host", "0.0.0.0", "--port", str(PORT)),  # noqa: S104 - its own network
            env={**ENVIRONMENT, "PYTHONPATH": SERVER_HOME},
            user=USER_AND_GROUP,
            working_dir="/",
            labels={
                TITLE_LABEL: "model-server",
                VERSION_LABEL: own_version(),
                PYTHON_LABEL: target.python,
                ARCHITECTURE_LABEL: target.architecture,
            },
            ports=(f"{PORT}/tcp",),
            healthcheck=Healthcheck(
                ("python3", "-m", f"{SERVER_PACKAGE}.health"),
                interval_s=10,
                timeout_s=5,
                start_period_s=60,
                retries=3,
            ),
            stop_signal="SIGTERM",
        ),
        kind="runtime",
    )
