"""What our images weigh, what a changed model moves, what pushing it costs, and whether two builds give one digest.

The builder is `oci`, run by the command line as a user runs it. Sizes and reproducibility are measured on a base
without content, for which no registry is needed; a push needs one (`--registry`, TESTBED_REGISTRY), and `docker build`
beside it an engine (DOCKER_HOST). A claim that could not be measured doesn't hold. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import _image_push, _image_runtime
from benchmarks._steps import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._claims import Found

PARTS: dict[str, Callable[..., Found]] = {"runtime": _image_runtime.measure, "push": _image_push.measure}
_VERSIONS = ("numpy", "onnxruntime", "uvicorn", "uvloop", "httptools", "orjson", "prometheus-client", "pip")


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    from airflow_model_deploy.engine.models import cpu_fingerprint

    versions = {name: version(name) for name in _VERSIONS}
    return {**cpu_fingerprint().to_json(), "python": platform.python_version(), **versions}


def main() -> int:
    """Run the parts, print, and return 1 if a claim doesn't hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="this part alone; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a small model and one turn: to try it out")
    parser.add_argument(
        "--registry",
        default=os.environ.get("TESTBED_REGISTRY", ""),
        help="HOST:PORT to push to, below benchmark-image/; what is pushed stays there",
    )
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    claims: list[dict[str, Any]] = []
    seconds: dict[str, int] = {}
    for name in given.only or PARTS:
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"benchmark-{name}-") as folder:
            found = PARTS[name](Path(folder), quick=given.quick, registry=given.registry)
        rows += found.rows
        claims += found.claims
        seconds[name] = round(time.monotonic() - begin)
        say(f"{name}: {seconds[name]} s")
    about = {**machine(), "part_wall_s": seconds, "quick": given.quick}
    print(json.dumps({"machine": about, "rows": rows, "claims": claims}))
    return 0 if all(claim["holds"] for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
