"""The model as a custom runtime of MLServer, in MLServer's venv; MLServer loads it by its import path."""

from __future__ import annotations

from typing import Any

from mlserver import MLModel  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.types import InferenceResponse  # type: ignore[import-not-found]

from benchmarks._serving_session import open_session


class Mlp(MLModel):  # type: ignore[misc]
    """The model."""

    async def load(self) -> bool:
        """Open the session."""
        self.session = open_session(self.settings.parameters.uri)
        return True

    async def predict(self, payload: Any) -> Any:
        """Run the model."""
        inputs = NumpyCodec.decode_input(payload.inputs[0])
        outputs = self.session.run(None, {payload.inputs[0].name: inputs})[0]
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("y", outputs)])
