"""What our server adds to the model, beside MLServer, KServe's Python server, BentoML and FastAPI in the same run.

The servers run on one core, wrk on another, over loopback; every server's answers are held against numpy's before it
is timed. What counts is CPU time a request of the server's whole process tree, the least of all rounds: on a machine
that does other things it can be trusted where requests a second can't. Prints one JSON object last. Needs wrk.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import _serving_model as mlp
from benchmarks._claims import Found
from benchmarks._serving_contest import (
    QUICK,
    Effort,
    Taken,
    idle_cost,
    measure,
    start_more,
)
from benchmarks._serving_load import version
from benchmarks._serving_process import Cores
from benchmarks._serving_requests import V2Binary
from benchmarks._serving_servers import Place, Server, mlserver, ours, peers
from benchmarks._steps import say

UNBATCHED = "ours max-batch-size 1"
_ONE_ROW = ("--max-batch-size", "1")


def rows(taken: Taken, servers: list[Server]) -> list[dict[str, Any]]:
    """The best of all rounds, a row for every server, mode and number of connections."""
    least = min(taken.bare_us)
    found: list[dict[str, Any]] = [{"server": "bare", "mode": "session.run", "cpu_us": round(least, 1)}]
    versions = {server.name: server.versions() for server in servers}
    for (name, mode, connections), looks in taken.looks.items():
        cpu_us = min(look.cpu_us for look in looks)
        row = {
            "server": name,
            "mode": mode,
            "connections": connections,
            "rps": round(max(look.rps for look in looks)),
            "p50_ms": min(look.p50_us for look in looks) / 1000,
            "p99_ms": min(look.p99_us for look in looks) / 1000,
            "cpu_us": round(cpu_us, 1),
            "times_bare": round(cpu_us / least, 2),
            "start_s": round(min(taken.starts[name]), 3),
            "pss_mb": round(min(taken.pss_mb[name])),
            "versions": versions[name],
        }
        found.append(row)
    return found


def claim(found: Found, taken: Taken, idle: dict[str, Any]) -> None:
    """What must hold."""
    bare = min(taken.bare_us)
    binary, plain = taken.cpu_us("ours", "binary"), taken.cpu_us("ours", "json")
    mlserver_us, kserve_us = taken.best_cpu_us("mlserver"), taken.best_cpu_us("kserve")
    found.claim("binary_vs_bare", binary / bare, most=2.0)
    found.claim("json_vs_bare", plain / bare, most=2.8)
    found.claim("vs_mlserver", mlserver_us / binary, least=5.0)
    found.claim("vs_kserve", kserve_us / binary, least=8.0)
    found.claim("json_vs_mlserver", mlserver_us / plain, least=4.0)
    found.claim("json_vs_kserve", kserve_us / plain, least=6.0)
    found.claim("batching_idle_cost", idle.pop("value"), most=1.1, **idle)
    ready, theirs = min(taken.starts["ours"]), min(taken.starts["mlserver"])
    found.claim("start_vs_mlserver", ready / theirs, most=0.5, seconds=round(ready, 3))


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    from airflow_model_deploy.engine.models import cpu_fingerprint

    return {
        **cpu_fingerprint().to_json(),
        "python": platform.python_version(),
        "threads": 1,
        "wrk": version(),
    }


def run(folder: Path, cores: Cores, effort: Effort) -> Found:
    """Measure everything."""
    model = mlp.write_model(folder / "model.onnx")
    place = Place(folder, model, mlp.write_servable(folder / "servable", model), cores)
    batching, unbatched = ours(place), ours(place, UNBATCHED, *_ONE_ROW, modes=(V2Binary(),))
    servers = [batching, unbatched, *peers(place)]
    taken = measure(place, servers, effort)
    say("starts")
    start_more(place, (batching, mlserver(place)), taken, effort)
    say("what batching costs an idle server")
    idle = idle_cost(place, batching, unbatched, V2Binary(), effort)
    found = Found(rows=rows(taken, servers))
    claim(found, taken, idle)
    return found


def main() -> int:
    """Measure, print, and return 1 if a claim doesn't hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: to try it out")
    given = parser.parse_args()
    begin = time.monotonic()
    about = machine()
    cores = Cores.of_machine()
    with tempfile.TemporaryDirectory(prefix="benchmark-serving-") as folder:
        found = run(Path(folder), cores, QUICK if given.quick else Effort())
    about |= {"wall_s": round(time.monotonic() - begin), "quick": given.quick}
    print(json.dumps({"machine": about, "rows": found.rows, "claims": found.claims}))
    return 0 if all(claim["holds"] for claim in found.claims) else 1


if __name__ == "__main__":
    sys.exit(main())
