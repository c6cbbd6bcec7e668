"""The bundle that one host runs without network or container engine; knows its bytes, starts nothing."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from importlib import metadata, resources
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.artifacts import list_files
from airflow_model_deploy.engine.errors import InputError, IntegrityError
from airflow_model_deploy.engine.packaging.listing import check_listing
from airflow_model_deploy.engine.packaging.servable import read_servable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable
    from pathlib import Path

SUMS = "SHA256SUMS"
REVISION_LENGTH = 12
# What the server imports of others' packages; it imports itself relatively.
SERVER_NEEDS = ("httptools", "numpy", "onnxruntime", "orjson", "prometheus_client", "uvicorn", "uvloop")
_REQUIREMENTS_HEAD = "# What this bundle's server imports. pip install -r requirements.txt\n"
_MARKERS = {"uvloop": ' ; sys_platform != "win32"'}


@dataclass(frozen=True)
class Bundle:
    """A written bundle.

    Args:
        digest: "sha256:..." of its SHA256SUMS.
        revision: the first 12 hex digits of the digest; what a host calls the release.
        files: relative paths, sorted, without SHA256SUMS.
        size_bytes: of all files.
    """

    digest: str
    revision: str
    files: tuple[str, ...]
    size_bytes: int


def write_bundle(servable: Path, folder: Path) -> Bundle:
    """Write servable, server, start.py, requirements.txt and SHA256SUMS into an empty or new folder.

    The same servable, server and installed versions give the same bytes.

    Raises:
        InputError: the folder holds something, or a package that the server needs isn't installed here.
        IntegrityError: the servable isn't what its index says.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"the folder for a bundle, {folder}", found="files in it", wanted="an empty folder")
    read_servable(servable)
    requirements = _requirements()
    folder.mkdir(parents=True, exist_ok=True)
    for entry in list_files(servable):
        target = folder / "servable" / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(servable / entry.path, target)
    for path, source in server_files():
        _write(folder / "server" / "model_server" / path, source.read_bytes())
    packaging = resources.files("airflow_model_deploy.engine.packaging")
    _write(folder / "start.py", (packaging / "resources" / "start.py").read_bytes())
    _write(folder / "requirements.txt", requirements.encode())
    entries = list_files(folder)
    _write(folder / SUMS, "".join(f"{e.sha256}  {e.path}\n" for e in entries).encode())
    for written in folder.rglob("*"):  # whatever the umask and the sources' modes were
        written.chmod(0o755 if written.is_dir() else 0o644)
    digest = _digest(folder)
    return Bundle(digest, revision_of(digest), tuple(e.path for e in entries), sum(e.size for e in entries))


def verify_bundle(folder: Path) -> str:
    """Compare every file with SHA256SUMS; returns the bundle's digest.

    Raises:
        IntegrityError: a file is missing, changed, a link or not listed, or SHA256SUMS can't be read.
    """
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise IntegrityError(f"bundle {folder} can't be verified", found=str(e), wanted=SUMS) from e
    wanted = {path: sha256 for sha256, _, path in (line.partition("  ") for line in lines)}
    check_listing(folder, wanted, index=SUMS, thing="bundle")
    return _digest(folder)


def revision_of(digest: str) -> str:
    """The short name of a bundle on a host: the first 12 hex digits of its digest."""
    return digest.removeprefix("sha256:")[:REVISION_LENGTH]


def _requirements() -> str:
    lines = []
    for name in SERVER_NEEDS:
        try:
            lines.append(f"{name}=={metadata.version(name)}{_MARKERS.get(name, '')}\n")
        except metadata.PackageNotFoundError as e:
            raise InputError(
                f"the server needs {name}",
                found="not installed here",
                remedy="Install the extra: pip install 'airflow-model-deploy[engine]'",
            ) from e
    return _REQUIREMENTS_HEAD + "".join(lines)


def server_files() -> Iterator[tuple[str, Traversable]]:
    """The server's program: (path below its package, source), sorted."""
    # Found through the parent package: asking for the server's own package would import it.
    server = resources.files("airflow_model_deploy.engine") / "serving"
    return _program_files(server, "")


def _program_files(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda e: e.name):
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _program_files(entry, f"{prefix}{entry.name}/")
        elif entry.is_file() and entry.name.endswith((".py", ".json")):
            yield prefix + entry.name, entry


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _digest(folder: Path) -> str:
    return "sha256:" + hashlib.sha256((folder / SUMS).read_bytes()).hexdigest()
