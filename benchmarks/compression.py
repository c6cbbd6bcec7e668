"""What compression by a budget reaches, beside ONNX Runtime's own quantizers, NNCF and Torch-Pruning in the same run.

The baseline is the dynamo export in fp32 at ONNX Runtime's defaults on one thread; ours is what the steps autocompress
and optimize make of it, in the session settings that a server would take. Every model is timed in a process of its
own, in turns; the least CPU time of each counts. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import _digits, _memory, _minilm
from benchmarks._steps import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._claims import Found

PARTS: dict[str, Callable[..., Found]] = {
    "minilm": _minilm.measure,
    "digits": _digits.measure,
    "memory": _memory.measure,
}
_VERSIONS = (
    "torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "onnx-ir",
    "numpy",
    "transformers",
    "torch-pruning",
)


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    from airflow_model_deploy.engine.models import cpu_fingerprint

    versions = {name: version(name) for name in _VERSIONS}
    return {**cpu_fingerprint().to_json(), "python": platform.python_version(), "threads": 1, **versions}


def main() -> int:
    """Run the parts, print, and return 1 if a claim doesn't hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="this part alone; may be repeated")
    parser.add_argument("--quick", action="store_true", help="fewer samples, seeds and rounds: to try it out")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    claims: list[dict[str, Any]] = []
    seconds: dict[str, int] = {}
    for name in given.only or PARTS:
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"benchmark-{name}-") as folder:
            found = PARTS[name](Path(folder), quick=given.quick)
        rows += found.rows
        claims += found.claims
        seconds[name] = round(time.monotonic() - begin)
        say(f"{name}: {seconds[name]} s")
    about = {**machine(), "part_wall_s": seconds, "quick": given.quick}
    print(json.dumps({"machine": about, "rows": rows, "claims": claims}))
    return 0 if all(claim["holds"] for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
