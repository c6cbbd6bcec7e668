"""Times session.run at batch 1 in this process, what no server can be cheaper than: MODEL SECONDS."""

from __future__ import annotations

import json
import sys
import time

from benchmarks import _serving_model as mlp
from benchmarks._serving_session import open_session


def main(path: str, seconds: float) -> None:
    """Check the answers, then print the mean CPU time of a call."""
    session = open_session(path)
    inputs = mlp.samples(1)
    if not mlp.agree(session.run(None, {mlp.INPUT: inputs})[0], mlp.expected(inputs)):
        raise SystemExit("the runtime's answer isn't numpy's")
    warm = time.perf_counter() + 0.2
    while time.perf_counter() < warm:
        session.run(None, {mlp.INPUT: inputs})
    calls, end = 0, time.perf_counter() + seconds
    begin = time.process_time()
    while time.perf_counter() < end:
        for _ in range(100):
            session.run(None, {mlp.INPUT: inputs})
        calls += 100
    print(json.dumps({"cpu_us": (time.process_time() - begin) / calls * 1e6, "calls": calls}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
