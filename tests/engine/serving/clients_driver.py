"""Runs one public client through all scenarios; starts in an environment that has only the clients.

Reads {"url", "tensors"} as JSON from standard input; writes {scenario: what the client gave} to standard output.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

MODEL = "everything"
NAMES = {"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64", "object": "BYTES"}
MIXED = ("x_int8", "x_fp32", "x_bool")
PARALLEL = 64


def yes(name: str) -> bool:
    return True


def no(name: str) -> bool:
    return False


def some(name: str) -> bool:
    return name in MIXED


def others(name: str) -> bool:
    return name not in MIXED


def unpack(record: dict[str, Any]) -> Any:
    return np.frombuffer(bytes.fromhex(record["hex"]), record["dtype"]).reshape(record["shape"])


def pack(array: Any) -> dict[str, Any]:
    return {"dtype": array.dtype.name, "shape": list(array.shape), "hex": array.tobytes().hex()}


def datatype(array: Any) -> str:
    return NAMES.get(array.dtype.name, array.dtype.name.upper())


def crowd(arrays: dict[str, Any]) -> list[dict[str, Any]]:
    """One to three rows a request, in another order each time: nobody's answer is also somebody else's."""
    return [{name: np.roll(a, i, axis=0)[: 1 + i % 3] for name, a in arrays.items()} for i in range(PARALLEL)]


class Triton:
    """NVIDIA's client."""

    def __init__(self, url: str, arrays: dict[str, Any]) -> None:
        from tritonclient import http, utils

        self.http, self.error = http, utils.InferenceServerException
        self.client = http.InferenceServerClient(url.removeprefix("http://"), concurrency=16)
        self.arrays = arrays

    def inputs(self, values: dict[str, Any], binary: Any) -> list[Any]:
        made = []
        for name, array in values.items():
            one = self.http.InferInput(name, list(array.shape), datatype(array))
            made.append(one.set_data_from_numpy(array, binary_data=binary(name)))
        return made

    def outputs(self, binary: Any) -> list[Any]:
        return [self.http.InferRequestedOutput("y" + n[1:], binary_data=binary(n)) for n in self.arrays]

    def result(self, answer: Any) -> dict[str, Any]:
        about = answer.get_response()
        return {
            "tensors": {o["name"]: pack(answer.as_numpy(o["name"])) for o in about["outputs"]},
            "datatypes": {o["name"]: o["datatype"] for o in about["outputs"]},
            "binary": sorted(
                o["name"] for o in about["outputs"] if "binary_data_size" in o.get("parameters", {})
            ),
            "id": about.get("id"),
            "model": [about["model_name"], about["model_version"]],
        }

    def attempt(self, call: Any) -> Any:
        try:
            answer = call()
        except self.error as error:
            return {"error": error.message(), "status": int(error.status() or 0)}
        return self.result(answer) if isinstance(answer, self.http.InferResult) else answer

    def infer(self, values: dict[str, Any], binary: Any = yes, model: str = MODEL, **options: Any) -> Any:
        return self.attempt(lambda: self.client.infer(model, self.inputs(values, binary), **options))

    def altered(self, change: Any) -> Any:
        """Ask with x_fp32 described otherwise, past the client's own checks."""
        tensors = self.inputs(self.arrays, yes)
        change(next(tensor for tensor in tensors if tensor.name() == "x_fp32"))
        return self.attempt(lambda: self.client.infer(MODEL, tensors))

    def run(self) -> dict[str, Any]:
        arrays, client = self.arrays, self.client
        pending = [
            client.async_infer(MODEL, self.inputs(a, yes if i % 2 else no), request_id=str(i))
            for i, a in enumerate(crowd(arrays))
        ]
        return {
            "crowd": [self.attempt(answer.get_result) for answer in pending],
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model ready": [client.is_model_ready(MODEL), client.is_model_ready(MODEL, "v1")],
            "other ready": [client.is_model_ready(MODEL, "v2"), client.is_model_ready("other")],
            "server": client.get_server_metadata(),
            "metadata": [client.get_model_metadata(MODEL), client.get_model_metadata(MODEL, "v1")],
            "json to json": self.infer(arrays, no, outputs=self.outputs(no)),
            "json to binary": self.infer(arrays, no, outputs=self.outputs(yes)),
            "binary to json": self.infer(arrays, outputs=self.outputs(no)),
            "binary to binary": self.infer(arrays, outputs=self.outputs(yes)),
            "mixed": self.infer(arrays, some, outputs=self.outputs(others)),
            "default": self.infer(arrays),
            "version": self.infer(arrays, model_version="v1"),
            "id": self.infer(arrays, request_id="r-1", outputs=self.outputs(yes)[:1]),
            "parameters": self.infer(arrays, parameters={"why": "a test"}, priority=1, timeout=5_000_000),
            "rows differ": self.infer({**arrays, "x_fp32": arrays["x_fp32"][:1]}),
            "gzip wanted": self.infer(arrays, response_compression_algorithm="gzip"),
            "gzip sent": self.infer(arrays, request_compression_algorithm="gzip"),
            "deflate sent": self.infer(arrays, request_compression_algorithm="deflate"),
            "refused": self.refused(),
            "afterwards": self.infer(arrays),
        }

    def refused(self) -> dict[str, Any]:
        arrays = self.arrays
        fp32 = arrays["x_fp32"]
        text = np.array([[b"a", b"b"]], dtype=np.object_)
        shared = self.http.InferRequestedOutput("y_fp32")
        shared.set_shared_memory("region", 16)
        return {
            "model": self.infer(arrays, model="other"),
            "version": self.infer(arrays, model_version="v2"),
            "missing input": self.infer({n: a for n, a in arrays.items() if n != "x_int8"}),
            "unknown input": self.infer({**arrays, "x_extra": fp32}),
            "unknown output": self.infer(arrays, outputs=[self.http.InferRequestedOutput("y_extra")]),
            "datatype": self.infer({**arrays, "x_fp32": arrays["x_fp64"]}),
            "rank": self.infer({**arrays, "x_fp32": fp32.reshape(-1)}),
            "width": self.infer({**arrays, "x_fp32": fp32[:, :1].copy()}),
            "bytes in binary": self.infer({**arrays, "x_fp32": text}),
            "bytes in json": self.infer({**arrays, "x_fp32": text}, no),
            "size": self.altered(lambda t: t.set_shape([1, 2])),
            "shared memory in": self.altered(lambda t: t.set_shared_memory("region", 16)),
            "shared memory out": self.infer(arrays, outputs=[shared]),
            "classification": self.infer(
                arrays, outputs=[self.http.InferRequestedOutput("y_fp32", class_count=1)]
            ),
            "configuration": self.attempt(lambda: self.client.get_model_config(MODEL)),
            "repository": self.attempt(lambda: self.client.get_model_repository_index()),
            "load": self.attempt(lambda: self.client.load_model(MODEL)),
        }


class KServe:
    """KServe's REST client."""

    def __init__(self, url: str, arrays: dict[str, Any]) -> None:
        # The package's own __init__ imports its server and Kubernetes; an empty one in its place lets the client
        # be imported alone.
        spec = importlib.util.find_spec("kserve")
        assert spec is not None
        assert spec.origin is not None
        package = types.ModuleType("kserve")
        package.__path__ = [str(Path(spec.origin).parent)]
        sys.modules["kserve"] = package
        import httpx
        from kserve import inference_client
        from kserve.protocol import infer_type

        self.error, self.types = httpx.HTTPStatusError, infer_type
        self.client = inference_client.InferenceRESTClient(inference_client.RESTConfig(protocol="v2"))
        self.url, self.arrays = url, arrays

    async def infer(
        self,
        values: dict[str, Any],
        binary: Any = yes,
        outputs: Any = None,
        model: str = MODEL,
        **options: Any,
    ) -> Any:
        inputs = []
        for name, array in values.items():
            one = self.types.InferInput(name, list(array.shape), datatype(array))
            # Its client refuses to write FP16 as JSON.
            one.set_data_from_numpy(array, binary_data=binary(name) or datatype(array) == "FP16")
            inputs.append(one)
        if outputs is not None:
            options["request_outputs"] = [
                self.types.RequestedOutput("y" + name[1:], {"binary_data": outputs(name)}) for name in values
            ]
        request = self.types.InferRequest(model, inputs, **options)
        headers: dict[str, str] = {}
        try:
            answer = await self.client.infer(self.url, request, model, response_headers=headers)
        except self.error as error:
            return {"error": str(error), "status": error.response.status_code}
        return {
            "tensors": {o.name: pack(o.as_numpy()) for o in answer.outputs},
            "datatypes": {o.name: o.datatype for o in answer.outputs},
            "binary": sorted(o.name for o in answer.outputs)
            if "inference-header-content-length" in headers
            else [],
            "id": answer.id,
            "model": [answer.model_name, "v1"],  # this client doesn't keep the version
        }

    async def run(self) -> dict[str, Any]:
        arrays, client, url = self.arrays, self.client, self.url
        pending = [
            self.infer(a, yes if i % 2 else no, yes if i % 3 else no, request_id=str(i))
            for i, a in enumerate(crowd(arrays))
        ]
        return {
            "crowd": await asyncio.gather(*pending),
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model ready": [await client.is_model_ready(url, MODEL)],
            "other ready": [await client.is_model_ready(url, "other")],
            "json to json": await self.infer(arrays, no, no),
            "json to binary": await self.infer(arrays, no, yes),
            "binary to json": await self.infer(arrays, yes, no),
            "binary to binary": await self.infer(arrays, yes, yes),
            "mixed": await self.infer(arrays, some),
            "default": await self.infer(arrays, no),
            "id": await self.infer(arrays, request_id="r-1"),
            "parameters": await self.infer(arrays, no, parameters={"binary_data_output": True, "n": 3}),
            "refused": await self.refused(),
            "afterwards": await self.infer(arrays),
        }

    async def refused(self) -> dict[str, Any]:
        arrays = self.arrays
        fp32 = arrays["x_fp32"]
        text = np.array([[b"a", b"b"]], dtype=np.object_)
        return {
            "model": await self.infer(arrays, model="other"),
            "missing input": await self.infer({n: a for n, a in arrays.items() if n != "x_int8"}),
            "unknown input": await self.infer({**arrays, "x_extra": fp32}),
            "datatype": await self.infer({**arrays, "x_fp32": arrays["x_fp64"]}),
            "rank": await self.infer({**arrays, "x_fp32": fp32.reshape(-1)}),
            "width": await self.infer({**arrays, "x_fp32": fp32[:, :1].copy()}),
            "bytes in binary": await self.infer({**arrays, "x_fp32": text}),
            "bytes in json": await self.infer({**arrays, "x_fp32": text}, no),
        }


def main() -> None:
    asked = json.load(sys.stdin)
    arrays = {name: unpack(record) for name, record in asked["tensors"].items()}
    if sys.argv[1] == "tritonclient":
        answers = Triton(asked["url"], arrays).run()
    else:
        answers = asyncio.run(KServe(asked["url"], arrays).run())
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
