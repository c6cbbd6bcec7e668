"""What a release becomes in a Kubernetes cluster, as files that can be reviewed before anything is changed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.artifacts import list_files
from airflow_model_deploy.engine.deployment import kubernetes
from airflow_model_deploy.engine.packaging import Workload
from airflow_model_deploy.engine.steps.layout import OBJECTS

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_model_deploy.engine.packaging import ReleasePlan


def measured_workload(settings: Workload | None, servable: Path, evaluation: dict[str, Any]) -> Workload:
    """Return the author's settings with the model's size and the time that it took to load.

    The time is rounded up to 1, 2 or 5 times a power of ten: measured again, it is to give the same pods.
    """
    chosen = settings or Workload()
    if chosen.model_bytes is None:
        chosen = replace(chosen, model_bytes=sum(entry.size for entry in list_files(servable)))
    start = evaluation["measured"].get("start_s")
    if chosen.load_s is None and start is not None:
        chosen = replace(chosen, load_s=_coarse(start))
    return chosen


def write_objects(folder: Path, plan: ReleasePlan, image: str | None = None) -> None:
    """Write the objects into a folder of their own, one file each; without a namespace, so that they fit any.

    Until there is an image, it and the revision are named "pending".
    """
    target = kubernetes.Target(
        name=plan.name,
        namespace="",
        image=image or kubernetes.pending_image(plan.name),
        resources=plan.resources,
        workload=plan.workload or Workload(),
    )
    objects = folder / OBJECTS
    objects.mkdir()
    for one in kubernetes.live_objects(target):
        content = json.dumps(one, indent=1, sort_keys=True, allow_nan=False) + "\n"
        (objects / kubernetes.file_name(one)).write_text(content, encoding="utf-8")


def _coarse(seconds: float) -> float:
    step = 1.0
    while True:
        for rounded in (step, 2 * step, 5 * step):
            if seconds <= rounded:
                return rounded
        step *= 10
