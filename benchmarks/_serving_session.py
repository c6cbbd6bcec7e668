"""The session that the peers' programs, and the bare loop, run the model in. Needs ONNX Runtime alone."""

from __future__ import annotations

import os

import onnxruntime as ort


def open_session(path: str | None = None) -> ort.InferenceSession:
    """Load the model on one thread; without a path, the file that MODEL names."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(path or os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
