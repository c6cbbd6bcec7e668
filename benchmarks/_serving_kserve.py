"""The model in KServe's Python server, in KServe's venv: python -m benchmarks._serving_kserve PORT."""

from __future__ import annotations

import logging
import sys
from typing import Any

from kserve import InferOutput, InferResponse, Model, ModelServer  # type: ignore[import-not-found]
from kserve.utils.utils import generate_uuid  # type: ignore[import-not-found]

from benchmarks._serving_session import open_session


class Mlp(Model):  # type: ignore[misc]
    """The model."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.session = open_session()
        self.ready = True

    async def predict(self, payload: Any, *_: Any, **__: Any) -> Any:
        """Run the model; the answer is binary where the request asks for it."""
        given = payload.inputs[0]
        outputs = self.session.run(None, {given.name: given.as_numpy()})[0]
        made = InferOutput("y", list(outputs.shape), "FP32")
        made.set_data_from_numpy(outputs, binary_data=payload.use_binary_outputs)
        return InferResponse(
            response_id=payload.id or generate_uuid(),
            model_name=self.name,
            infer_outputs=[made],
            use_binary_outputs=payload.use_binary_outputs,
        )


def main(port: int) -> None:
    """Serve by HTTP alone, without a log line a request."""
    server = ModelServer(http_port=port, workers=1, enable_grpc=False, enable_latency_logging=False)
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    server.start([Mlp("mlp")])


if __name__ == "__main__":
    main(int(sys.argv.pop()))
