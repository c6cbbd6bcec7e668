"""Prepare the release plan: what is to run where, under which objectives, with how much memory and CPU."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field

from airflow_model_deploy.engine.artifacts import Description, canonical_json
from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.packaging import (
    GoldenPromise,
    Objectives,
    ReleasePlan,
    Resources,
    Rollout,
    Workload,
    read_servable,
)
from airflow_model_deploy.engine.probing import load_golden
from airflow_model_deploy.engine.steps.base import Inputs, Step, StepContext, StepOutput
from airflow_model_deploy.engine.steps.cluster_objects import measured_workload, write_objects
from airflow_model_deploy.engine.steps.fields import Target
from airflow_model_deploy.engine.steps.layout import EVALUATION, PLAN
from airflow_model_deploy.engine.steps.spec import spec

_MEMORY_STEP = 16 << 20


@spec
class PrepareSpec:
    """The target, and what the service owes its callers."""

    target: Target = "host"
    latency_ms: Annotated[float, Field(gt=0, description="bound of a request")] = 100.0
    latency_share: Annotated[float, Field(gt=0, le=1, description="share of requests within the bound")] = (
        0.95
    )
    max_error_share: Annotated[float, Field(ge=0, lt=1, description="share of requests that may fail")] = 0.01
    min_requests: Annotated[int, Field(ge=1, description="fewer observations decide nothing")] = 20
    memory_headroom: Annotated[
        float, Field(ge=1, le=10, description="memory limit over the measured peak")
    ] = 1.5
    kubernetes: Annotated[
        Workload | None,
        Field(
            description="target 'kubernetes': copies, placement, exposure, autoscaling; None: the defaults"
        ),
    ] = None
    rollout: Annotated[
        Rollout | None,
        Field(description="target 'kubernetes': strategy, shares of traffic, waits; None: blue-green"),
    ] = None


def prepare(spec: PrepareSpec, inputs: Inputs, context: StepContext) -> StepOutput:
    """Write the plan from the servable and from what `test` measured."""
    servable = read_servable(inputs["servable"].folder)
    evaluation: dict[str, Any] = json.loads((inputs["evaluation"].folder / EVALUATION).read_bytes())
    if evaluation["servable_digest"] != servable.digest or servable.golden is None:
        raise InputError(
            "the evaluation is of another servable",
            found=evaluation["servable_digest"],
            wanted=servable.digest,
            remedy="Pass the test's result for this very servable.",
        )
    golden = load_golden(servable.golden)
    memory = _rounded_up(evaluation["measured"]["peak_memory_bytes"] * spec.memory_headroom)
    threads = int(servable.session["intra_op_threads"])
    workload, rollout = None, None
    if spec.target == "kubernetes":
        workload = measured_workload(spec.kubernetes, servable.folder, evaluation)
        rollout = spec.rollout or Rollout()
    plan = ReleasePlan(
        name=servable.name,
        servable_digest=servable.digest,
        target=spec.target,
        strategy=rollout.strategy if rollout else "blue-green",
        objectives=Objectives(
            latency_ms=spec.latency_ms,
            latency_share=spec.latency_share,
            max_error_share=spec.max_error_share,
            min_requests=spec.min_requests,
            max_memory_bytes=memory,
        ),
        golden=GoldenPromise(
            requests=len(golden.requests),
            original_tolerance=golden.largest_absolute("original"),
            built_tolerance=golden.largest_absolute("built"),
        ),
        resources=Resources(cpu=float(threads), memory_bytes=memory, threads=threads),
        workload=workload,
        rollout=rollout,
    )
    folder = context.folder("plan")
    (folder / PLAN).write_bytes(canonical_json(plan.to_json()))
    if workload is not None:
        write_objects(folder, plan)
    return StepOutput(
        folder=folder,
        description=Description(name=servable.name, kind="plan", format="json"),
        main="servable",
        details={"target": spec.target, "memory_bytes": memory, "threads": threads},
    )


def _rounded_up(value: float) -> int:
    return -int(-value // _MEMORY_STEP) * _MEMORY_STEP


STEP = Step(
    name="prepare",
    summary="Write the release plan.",
    spec=PrepareSpec,
    function=prepare,
    inputs=("servable", "evaluation"),
    version=2,
    libraries=("numpy",),
)
