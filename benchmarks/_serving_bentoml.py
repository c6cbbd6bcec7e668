"""The model as a BentoML service, in BentoML's venv: bentoml serve benchmarks._serving_bentoml:Mlp."""

import bentoml  # type: ignore[import-not-found]
import numpy as np

from benchmarks._serving_session import open_session


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Mlp:
    """The model."""

    def __init__(self) -> None:
        self.session = open_session()

    @bentoml.api  # type: ignore[untyped-decorator]
    async def predict(self, x: np.ndarray) -> np.ndarray:
        """Run the model."""
        outputs: np.ndarray = self.session.run(None, {"x": x.astype(np.float32)})[0]
        return outputs
