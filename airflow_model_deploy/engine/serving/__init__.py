"""The program inside the image: an Open Inference Protocol v2 server on ONNX Runtime.

It knows the servable folder and nothing of its neighbours: it is copied into releases under another name, so
it imports itself relatively and otherwise only the standard library, onnxruntime, numpy, orjson, uvicorn,
uvloop and prometheus_client.
"""

from __future__ import annotations

__version__ = "0.1.0"
