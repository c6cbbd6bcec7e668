"""What travels between steps: files with a manifest, addressed by content, in one store."""

from __future__ import annotations

from airflow_model_deploy.engine.artifacts.canonical import canonical_json, digest_of, file_sha256
from airflow_model_deploy.engine.artifacts.checkpoints import Checkpoint
from airflow_model_deploy.engine.artifacts.files import check_relative, list_files, write_atomically
from airflow_model_deploy.engine.artifacts.keys import step_key
from airflow_model_deploy.engine.artifacts.manifest import Description, FileEntry, Manifest, StepRecord
from airflow_model_deploy.engine.artifacts.places import is_local
from airflow_model_deploy.engine.artifacts.reference import Reference
from airflow_model_deploy.engine.artifacts.signature import Signature, TensorSpec
from airflow_model_deploy.engine.artifacts.store import Store

__all__ = [
    "Checkpoint",
    "Description",
    "FileEntry",
    "Manifest",
    "Reference",
    "Signature",
    "StepRecord",
    "Store",
    "TensorSpec",
    "canonical_json",
    "check_relative",
    "digest_of",
    "file_sha256",
    "is_local",
    "list_files",
    "step_key",
    "write_atomically",
]
