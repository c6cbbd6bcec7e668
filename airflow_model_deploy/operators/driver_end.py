"""What a task makes of a driver's end: its result, a failure for good, or one that another try may mend."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_model_deploy.operators import execution
from airflow_model_deploy.operators.verdict import ended, result_of
from airflow_model_deploy.runners.base import PERMANENT_EXITS

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_model_deploy.engine.deployment import kubernetes as k8s
    from airflow_model_deploy.operators.verdict import Driven
    from airflow_model_deploy.runners.base import Log


@dataclass(frozen=True)
class PodEnd:
    """What was seen of the driver's pod, which decides nothing.

    Args:
        failure: of the pod, or of the way to it.
        code: its exit code; None: nobody knows.
        grace_s: how long a pod that may be alive takes to give the traffic back.
    """

    failure: Exception | None
    code: int | None
    grace_s: float


def concluded(
    cluster: k8s.Cluster, driven: Driven, pod: PodEnd, *, release: Any, context: Context, log: Log
) -> dict[str, Any]:
    """Return the step's result where the cluster says that what was wanted is done.

    Raises:
        AirflowFailException: rolled back or held; or refused by the driver before it began.
        AirflowException: interrupted, or without a trace: another try goes on from what the cluster shows.
        ModelDeployError: the cluster can't be asked now.
    """
    from airflow_model_deploy.engine.errors import ModelDeployError

    patience_s = 0.0 if pod.code is not None else pod.grace_s
    try:
        outcome = ended(cluster, driven, patience_s=patience_s, log=log)
        if outcome is None or not driven.succeeded(outcome):
            _fail(driven, outcome, pod)
        if pod.failure is not None:
            log.warning("The pod failed after the traffic had moved: %s", pod.failure)
        result = result_of(cluster, driven, outcome, release, _seconds_since(context))
    except ModelDeployError as error:
        if error.permanent:
            execution.fail(str(error))
        raise
    log.info("%s: %s; %s", driven.service, outcome.result, result["details"]["summary"])
    return result


def _fail(driven: Driven, outcome: k8s.Outcome | None, pod: PodEnd) -> NoReturn:
    from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

    said = f"{driven.step} of {driven.service}: "
    if outcome is not None and outcome.result in ("rolled back", "held"):
        raise AirflowFailException(f"{said}{outcome.result}: {outcome.reason}")
    told = outcome.reason if outcome is not None else "the driver left no trace of an end in the cluster"
    message = f"{said}{told}" + (f"; its pod: {pod.failure}" if pod.failure else "")
    # What the driver refused for good, before it began anything.
    if outcome is None and pod.code in PERMANENT_EXITS:
        raise AirflowFailException(message)
    raise AirflowException(message) from pod.failure


def _seconds_since(context: Context) -> float:
    began = getattr(context["ti"], "start_date", None)
    return time.time() - began.timestamp() if began else 0.0
