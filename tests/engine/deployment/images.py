"""Model images made by hand, as the builders lay them out, for tests that need one before any builder."""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import sysconfig
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import airflow_model_deploy.engine.serving as serving
from airflow_model_deploy.engine.containers import find_image

if TYPE_CHECKING:
    from collections.abc import Iterator

BASE = "python:3.11-slim"
REPOSITORY = "model-deploy-test"
_PACKAGES = ("numpy", "onnxruntime", "uvicorn", "uvloop", "httptools", "orjson", "prometheus_client")
_FOLDERS = (*_PACKAGES, "numpy.libs", "click", "h11", "flatbuffers", "google", "packaging")
_LEFT_OUT = {"tests", "__pycache__", "include", "transformers", "quantization", "tools"}
_RUNTIME = f"""\
FROM {BASE}
COPY packages /opt/model-server
COPY --chown=65532:65532 run /run/model-server
RUN chmod 0700 /run/model-server && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/model-server
ENV PYTHONPATH=/opt/model-server PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
USER 65532:65532
WORKDIR /
ENTRYPOINT ["python3", "-m", "model_server"]
CMD ["--servable", "/servable", "--host", "0.0.0.0", "--port", "8080"]
EXPOSE 8080/tcp
STOPSIGNAL SIGTERM
"""


def build_model(client: Any, servable: Path) -> str:
    """Build a model image on an engine and return its id; what was built of the same content is found again."""
    base = _ensure_runtime(client)
    files = {f"servable/{path.relative_to(servable)}": path for path in _files(servable)}
    source = Path(serving.__file__).parent
    for path in _files(source):
        files[f"model_server/{path.relative_to(source)}"] = path
    text = (
        f"FROM {base}\nCOPY model_server /opt/model-server/model_server\nCOPY servable /servable\n"
        'LABEL io.model-deploy.kind="model"\n'
    )
    return _build(client, "model", text, files)


def _ensure_runtime(client: Any) -> str:
    key = hashlib.sha256((_RUNTIME + _versions()).encode()).hexdigest()[:12]
    tag = f"{REPOSITORY}/runtime:{key}"
    if find_image(client, tag) is None:
        site = Path(sysconfig.get_path("purelib"))
        files = {
            f"packages/{path.relative_to(site)}": path for name in _FOLDERS for path in _files(site / name)
        }
        files["packages/typing_extensions.py"] = site / "typing_extensions.py"
        _build(client, "runtime", _RUNTIME, files, tag)
    return tag


def _versions() -> str:
    return " ".join(f"{name}={importlib.metadata.version(name)}" for name in _PACKAGES)


def _build(client: Any, kind: str, text: str, files: dict[str, Path], tag: str = "") -> str:
    if not tag:
        digest = hashlib.sha256(text.encode())
        for name, path in sorted(files.items()):
            digest.update(name.encode() + hashlib.sha256(path.read_bytes()).digest())
        tag = f"{REPOSITORY}/{kind}:{digest.hexdigest()[:12]}"
    if (found := find_image(client, tag)) is not None:
        return str(found["Id"])
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        _add(archive, "Dockerfile", text.encode())
        folder = tarfile.TarInfo("run")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o700
        archive.addfile(folder)
        for name, path in sorted(files.items()):
            _add(archive, name, path.read_bytes())
    context.seek(0)
    for line in client.build(
        fileobj=context, custom_context=True, tag=tag, rm=True, forcerm=True, decode=True
    ):
        assert "error" not in line, line
    return str(client.inspect_image(tag)["Id"])


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _LEFT_OUT & set(path.relative_to(folder).parts):
            yield path
