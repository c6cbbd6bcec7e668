"""A served MLP as a release for a cluster: one image, and as many revisions of it as a benchmark needs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks._serving_model import INPUT, NAME, OUTPUT, WIDTHS, expected, samples, write_model
from benchmarks._steps import say

if TYPE_CHECKING:
    from airflow_model_deploy.engine.packaging import Release

_GOLDEN, _MEMORY = 8, 256 << 20


@dataclass(frozen=True)
class Packaged:
    """The model's image by digest, and its servable."""

    image: str
    servable: Path


def package(folder: Path, registry: str, base: str) -> Packaged:
    """Build the server's and the model's image and push them; what is there is only read."""
    from airflow_model_deploy.engine.artifacts import Signature, TensorSpec
    from airflow_model_deploy.engine.packaging import write_servable
    from airflow_model_deploy.engine.packaging.images import OciBuilder
    from airflow_model_deploy.engine.packaging.images.contents import model_spec, package_cache, runtime_spec
    from airflow_model_deploy.engine.probing import GoldenRequest, GoldenSet, Tolerance

    inputs = samples(_GOLDEN)
    answers = {OUTPUT: expected(inputs).astype("float32")}
    tolerance = {OUTPUT: Tolerance(1e-3, 1e-3, "float32 against float64")}
    requests = tuple(
        GoldenRequest(
            f"golden-{number:03}",
            {INPUT: inputs[number : number + 1]},
            {name: value[number : number + 1] for name, value in answers.items()},
            {name: value[number : number + 1] for name, value in answers.items()},
        )
        for number in range(_GOLDEN)
    )
    servable = folder / "servable"
    write_servable(
        servable,
        model=write_model(folder / "model.onnx"),
        name=NAME,
        version="1",
        signature=Signature(
            (TensorSpec(INPUT, ("batch", WIDTHS[0]), "float32"),),
            (TensorSpec(OUTPUT, ("batch", WIDTHS[-1]), "float32"),),
        ),
        session={},
        precision="fp32",
        golden=GoldenSet(requests, {"original": tolerance, "built": tolerance}),
    )
    builder = OciBuilder()
    runtime = builder.build(
        runtime_spec(f"{registry}/{base}", scratch=package_cache()),
        f"{registry}/benchmark-rollout/server",
        log=say,
    )
    built = builder.build(
        model_spec(runtime.reference, servable), f"{registry}/benchmark-rollout/model", log=say
    )
    return Packaged(built.reference, servable)


def release(packaged: Packaged, number: int, replicas: int) -> Release:
    """Release the same image once more, as another revision: it drains a little longer."""
    from airflow_model_deploy.engine.packaging import (
        GoldenPromise,
        Objectives,
        Release,
        ReleasePlan,
        Resources,
        Rollout,
        Workload,
    )

    plan = ReleasePlan(
        name=NAME,
        servable_digest="sha256:" + "0" * 64,
        target="kubernetes",
        strategy="rolling",
        objectives=Objectives(latency_ms=100.0),
        golden=GoldenPromise(requests=_GOLDEN, original_tolerance=1e-3, built_tolerance=1e-3),
        resources=Resources(cpu=0.05, memory_bytes=_MEMORY, threads=1),
        workload=Workload(replicas=replicas, drain_s=10.0 + number / 100),
        rollout=Rollout(strategy="rolling", bake_s=0.0, max_surge=1, max_unavailable=0),
    )
    return Release(plan, packaged.image.rpartition("@")[2], image=packaged.image)


def release_bytes(one: Release) -> bytes:
    """The release as packaging writes it."""
    return json.dumps(one.to_json(), sort_keys=True).encode()
