"""From a built model to what a target installs: the servable, the bundle of a host, the blessed release."""

from __future__ import annotations

from airflow_model_deploy.engine.packaging.blessing import bless
from airflow_model_deploy.engine.packaging.container_blessing import bless_image
from airflow_model_deploy.engine.packaging.host_release import (
    Bundle,
    revision_of,
    verify_bundle,
    write_bundle,
)
from airflow_model_deploy.engine.packaging.plan import (
    GoldenPromise,
    Objectives,
    ReleasePlan,
    Resources,
    Target,
)
from airflow_model_deploy.engine.packaging.release import Blessing, Release, require_blessed
from airflow_model_deploy.engine.packaging.released import read_golden
from airflow_model_deploy.engine.packaging.rollout import Metrics, Rollout, Strategy
from airflow_model_deploy.engine.packaging.servable import Servable, read_servable, write_servable
from airflow_model_deploy.engine.packaging.workload import Exposure, Workload

__all__ = [
    "Blessing",
    "Bundle",
    "Exposure",
    "GoldenPromise",
    "Metrics",
    "Objectives",
    "Release",
    "ReleasePlan",
    "Resources",
    "Rollout",
    "Servable",
    "Strategy",
    "Target",
    "Workload",
    "bless",
    "bless_image",
    "read_golden",
    "read_servable",
    "require_blessed",
    "revision_of",
    "verify_bundle",
    "write_bundle",
    "write_servable",
]
