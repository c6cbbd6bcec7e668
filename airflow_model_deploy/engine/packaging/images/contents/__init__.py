"""What goes into our images: the server, the models, the engine's own driver and worker. Builds none of them."""

from __future__ import annotations

from airflow_model_deploy.engine.packaging.images.contents.engine_images import driver_spec, worker_spec
from airflow_model_deploy.engine.packaging.images.contents.model import model_spec
from airflow_model_deploy.engine.packaging.images.contents.runtime import runtime_spec

__all__ = ["driver_spec", "model_spec", "runtime_spec", "worker_spec"]
