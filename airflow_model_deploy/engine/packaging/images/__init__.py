"""Images: what they are made of, what goes into ours, and how they get to a registry, a folder or an engine."""

from __future__ import annotations

from airflow_model_deploy.engine.packaging.images.builder import Builder, Built, builder_labels
from airflow_model_deploy.engine.packaging.images.contents import (
    default_base,
    driver_spec,
    model_spec,
    package_cache,
    runtime_spec,
    worker_spec,
)
from airflow_model_deploy.engine.packaging.images.docker_builder import DockerBuilder
from airflow_model_deploy.engine.packaging.images.oci_builder import OciBuilder
from airflow_model_deploy.engine.packaging.images.reference import (
    ImageReference,
    LayoutReference,
    parse_reference,
    parse_repository,
)
from airflow_model_deploy.engine.packaging.images.registry_http import RegistryOptions
from airflow_model_deploy.engine.packaging.images.spec import (
    File,
    Folder,
    Healthcheck,
    ImageSpec,
    Layer,
    Settings,
)

__all__ = [
    "Builder",
    "Built",
    "DockerBuilder",
    "File",
    "Folder",
    "Healthcheck",
    "ImageReference",
    "ImageSpec",
    "Layer",
    "LayoutReference",
    "OciBuilder",
    "RegistryOptions",
    "Settings",
    "builder_labels",
    "default_base",
    "driver_spec",
    "model_spec",
    "package_cache",
    "parse_reference",
    "parse_repository",
    "runtime_spec",
    "worker_spec",
]
