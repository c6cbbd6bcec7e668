"""What goes into our images: the server, the models, the engine's own driver and worker. Builds none of them."""

from __future__ import annotations

from airflow_model_deploy.engine.packaging.images.contents.cache import package_cache
from airflow_model_deploy.engine.packaging.images.contents.engine_images import driver_spec, worker_spec
from airflow_model_deploy.engine.packaging.images.contents.model import model_spec
from airflow_model_deploy.engine.packaging.images.contents.runtime import runtime_spec
from airflow_model_deploy.engine.packaging.images.contents.target import default_base

__all__ = [
    "default_base",
    "driver_spec",
    "model_spec",
    "package_cache",
    "runtime_spec",
    "worker_spec",
]
