"""A model as files and as an object: torch folders, ONNX files, sessions, user code and data."""

from __future__ import annotations

from airflow_model_deploy.engine.models.data import Dataset, DataSource
from airflow_model_deploy.engine.models.data import fingerprint as data_fingerprint
from airflow_model_deploy.engine.models.data import load as load_data
from airflow_model_deploy.engine.models.dynamic import dynamic_sizes, with_other_size
from airflow_model_deploy.engine.models.machine import CpuFingerprint, cpu_fingerprint
from airflow_model_deploy.engine.models.onnx_check import check_onnx
from airflow_model_deploy.engine.models.onnx_external import (
    copy_onnx,
    external_files,
    model_files,
    onnx_sha256,
)
from airflow_model_deploy.engine.models.onnx_file import (
    file_size,
    load_onnx,
    open_onnx,
    read_signature,
    save_onnx,
)
from airflow_model_deploy.engine.models.onnx_precision import onnx_precision, weight_precisions
from airflow_model_deploy.engine.models.onnx_stream import (
    ONE_FILE,
    StoredTensor,
    Stream,
    fits_one_file,
    stored_tensor,
    write_onnx,
)
from airflow_model_deploy.engine.models.random_inputs import random_inputs
from airflow_model_deploy.engine.models.reproducible import reproducible
from airflow_model_deploy.engine.models.runtime import (
    OptimizationLevel,
    SessionSettings,
    create_session,
    ort_errors,
    run,
)
from airflow_model_deploy.engine.models.surgery import (
    Cut,
    Dimension,
    Surgery,
    is_depthwise,
    is_transposed_linear,
    width,
)
from airflow_model_deploy.engine.models.timing import denormals_as_zero, interleaved_seconds
from airflow_model_deploy.engine.models.torch_model import (
    build_model,
    fill_model,
    load_torch_model,
    read_factory,
    read_model_description,
    save_torch_model,
)
from airflow_model_deploy.engine.models.transformers_folder import (
    TransformersFolder,
    read_transformers_folder,
    wanted_files,
)
from airflow_model_deploy.engine.models.transformers_library import Task, token_inputs
from airflow_model_deploy.engine.models.transformers_model import FACTORY as TRANSFORMERS_FACTORY
from airflow_model_deploy.engine.models.transformers_weights import load_transformers
from airflow_model_deploy.engine.models.usercode import (
    UserCode,
    UserFunction,
    collect_functions,
    locate,
    resolve,
)
from airflow_model_deploy.engine.models.weights import load_weights

__all__ = [
    "ONE_FILE",
    "TRANSFORMERS_FACTORY",
    "CpuFingerprint",
    "Cut",
    "DataSource",
    "Dataset",
    "Dimension",
    "OptimizationLevel",
    "SessionSettings",
    "StoredTensor",
    "Stream",
    "Surgery",
    "Task",
    "TransformersFolder",
    "UserCode",
    "UserFunction",
    "build_model",
    "check_onnx",
    "collect_functions",
    "copy_onnx",
    "cpu_fingerprint",
    "create_session",
    "data_fingerprint",
    "denormals_as_zero",
    "dynamic_sizes",
    "external_files",
    "file_size",
    "fill_model",
    "fits_one_file",
    "interleaved_seconds",
    "is_depthwise",
    "is_transposed_linear",
    "load_data",
    "load_onnx",
    "load_torch_model",
    "load_transformers",
    "load_weights",
    "locate",
    "model_files",
    "onnx_precision",
    "onnx_sha256",
    "open_onnx",
    "ort_errors",
    "random_inputs",
    "read_factory",
    "read_model_description",
    "read_signature",
    "read_transformers_folder",
    "reproducible",
    "resolve",
    "run",
    "save_onnx",
    "save_torch_model",
    "stored_tensor",
    "token_inputs",
    "wanted_files",
    "weight_precisions",
    "width",
    "with_other_size",
    "write_onnx",
]
