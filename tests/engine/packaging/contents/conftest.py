"""A folder of real wheels that pip finds by its own settings, and the packages of the real runtime image."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_model_deploy.engine.packaging.images import File
from airflow_model_deploy.engine.packaging.images.contents import runtime_spec

if TYPE_CHECKING:
    from airflow_model_deploy.engine.packaging.images import ImageSpec


@dataclass(frozen=True)
class Wheels:
    """Wheels in a folder.

    Args:
        folder: what PIP_FIND_LINKS names.
    """

    folder: Path

    def add(self, name: str, version: str = "1.0", tag: str = "py3-none-any", **files: bytes | str) -> Path:
        """Write a wheel; "__" in a file's name stands for "/", "_dot_" for "."."""
        about = f"{name}-{version}.dist-info"
        content = {f"{name}/__init__.py": f"VERSION = {version!r}\n"}
        content |= {path.replace("__", "/").replace("_dot_", "."): text for path, text in files.items()}
        content |= {
            f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{about}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
            f"{about}/licenses/LICENSE.c": "do what you like\n",
            f"{about}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
        }
        path = self.folder / f"{name}-{version}-{tag}.whl"
        lines = []
        with zipfile.ZipFile(path, "w") as archive:
            for one, text in content.items():
                data = text if isinstance(text, bytes) else text.encode()
                archive.writestr(one, data)
                digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                lines.append(f"{one},sha256={digest},{len(data)}\n")
            archive.writestr(f"{about}/RECORD", "".join(lines) + f"{about}/RECORD,,\n")
        return path


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheels:
    folder = tmp_path / "wheels"
    folder.mkdir()
    # No index and no other setting of this machine: pip's environment variables are its own way to be told.
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return Wheels(folder)


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> ImageSpec:
    return runtime_spec("registry.example/python:3.11-slim", scratch=tmp_path_factory.mktemp("scratch"))


def lay_out(spec: ImageSpec, folder: Path) -> Path:
    """Write a spec's files as they lie in the image."""
    for layer in spec.layers:
        for entry in layer.entries:
            if isinstance(entry, File):
                path = folder / entry.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(
                    entry.source if isinstance(entry.source, bytes) else entry.source.read_bytes()
                )
    return folder
