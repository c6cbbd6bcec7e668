"""The venvs of the servers that ours is compared with: what each is made of, pinned; made once and kept.

They keep to no constraints of ours: MLServer wants an older Starlette than anyone else.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from benchmarks._environments import venv

if TYPE_CHECKING:
    from pathlib import Path

_COMMON = ("onnxruntime==1.32.0", "numpy==2.4.6", "pydantic==2.14.3", "uvicorn==0.54.0")
# uvloop and httptools are what uvicorn is fastest with; a peer that doesn't ask for them gets them too.
_FAST = ("uvloop==0.23.0", "httptools==0.9.0")
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "fastapi": ("fastapi==0.165.0", "starlette==1.10.0", *_FAST, *_COMMON),
    "mlserver": ("mlserver==1.7.1", "fastapi==0.115.14", "starlette==0.46.2", *_FAST, *_COMMON),
    "kserve": ("kserve==0.21.0", "fastapi==0.165.0", "starlette==1.10.0", *_FAST, *_COMMON),
    "bentoml": ("bentoml==1.4.39", "starlette==1.10.0", *_FAST, *_COMMON),
}
_VERSIONS = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""
_TOLD = ("onnxruntime", "numpy", "pydantic", "starlette", "uvicorn", "uvloop", "httptools", "orjson")


def interpreter(peer: str) -> Path:
    """The interpreter of a peer's venv, which is made at the first call."""
    return venv(peer, REQUIREMENTS[peer], constrained=False)


def versions(python: Path, *packages: str) -> dict[str, str]:
    """What of these packages, and of those that all servers are made of, an interpreter has."""
    command = [str(python), "-c", _VERSIONS, *packages, *_TOLD]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found
