"""The last gate before traffic: the very bundle that would be installed answers its own golden requests.

Fails closed: whatever keeps the answer from being known is a refusal.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import GateError, InputError
from airflow_model_deploy.engine.packaging.gates import (
    REMEDY,
    blessed,
    measure_latencies,
    require_latency,
    require_match,
    require_memory,
)
from airflow_model_deploy.engine.packaging.host_release import verify_bundle
from airflow_model_deploy.engine.packaging.servable import read_servable
from airflow_model_deploy.engine.probing import Client, ProbeError, ask, load_golden, serve

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from airflow_model_deploy.engine.packaging.release import Blessing


def bless(
    bundle: Path,
    *,
    python: str,
    memory_limit_bytes: int | None = None,
    latency_ms: float | None = None,
    latency_share: float = 0.95,
    ready_timeout_s: float = 60.0,
    server_options: Iterable[str] = (),
) -> Blessing:
    """Start the bundle where it lies, ask every golden request, compare with both recorded answers.

    Args:
        bundle: a folder as `write_bundle` leaves it.
        python: the interpreter that will run it; has what the bundle's requirements.txt lists.
        memory_limit_bytes: bound of the server's peak memory, loading included.
        latency_ms: bound of `latency_share` of the requests, asked one at a time; None to only measure.
        latency_share: see `latency_ms`.
        ready_timeout_s: bound for loading and warming.
        server_options: more arguments for the server.

    Raises:
        GateError: it doesn't start, an answer is off (with the differences), or a limit is passed.
        IntegrityError: the bundle isn't what its SHA256SUMS says.
    """
    digest = verify_bundle(bundle)
    servable = read_servable(bundle / "servable")
    if servable.golden is None:
        raise GateError(f"bundle {bundle} can't be blessed", found="no golden requests", wanted="golden.json")
    golden = load_golden(servable.golden)
    # Without PYTHONPATH: the bundle has to work from its own files, as it will on the host.
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    try:
        with (
            serve(
                [python, str(bundle / "start.py"), *server_options], ready_timeout_s=ready_timeout_s, env=env
            ) as server,
            Client(server.base_url, servable.name) as client,
        ):
            comparison = ask(client, golden)
            latencies = measure_latencies(client, golden) if comparison.passed else [0.0]
            peak = server.peak_memory_bytes()
            words = server.last_words()
    except (InputError, ProbeError) as e:  # one that isn't ready in time may be another time
        raise GateError(f"bundle {bundle} does not serve", found=str(e), remedy=REMEDY) from e
    what = f"bundle {bundle}"
    require_match(comparison, what, words)
    require_memory(peak, memory_limit_bytes, what)
    require_latency(latencies, latency_ms, latency_share, what)
    if verify_bundle(bundle) != digest:  # serving must leave the bundle as it was
        raise GateError(f"bundle {bundle} was changed while it was asked", wanted=digest, remedy=REMEDY)
    return blessed(comparison, digest, peak, latencies)
