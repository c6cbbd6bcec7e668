"""Asks a running server the golden requests; a server's fault is a finding here, never an exception."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import UnavailableError
from airflow_model_deploy.engine.probing.client import Client, ProbeError
from airflow_model_deploy.engine.probing.comparison import Comparison, compare_both

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from airflow_model_deploy.engine.probing.golden import GoldenSet


def ask(client: Client, golden: GoldenSet) -> Comparison:
    """Send every golden request once and compare with both kinds of recorded answers.

    The first request that nothing answers ends the asking: the rest would only wait for the same timeout.
    """
    answers: dict[str, Mapping[str, np.ndarray[Any, Any]] | str] = {}
    for request in golden.requests:
        try:
            answers[request.id] = client.infer(request.inputs)
        except ProbeError as e:
            answers[request.id] = str(e)
        except UnavailableError as e:
            answers[request.id] = str(e)
            break
    return compare_both(golden, answers)


def check_server(base_url: str, model: str, golden: GoldenSet, *, timeout_s: float = 10.0) -> Comparison:
    """Ask the server at `base_url`; passed iff every request matches both recorded answers."""
    with Client(base_url, model, timeout_s) as client:
        return ask(client, golden)
