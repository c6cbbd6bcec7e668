"""The model behind FastAPI, with pydantic's validation, in FastAPI's venv: uvicorn _serving_fastapi:app."""

from __future__ import annotations

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks._serving_session import open_session

app = FastAPI()
session = open_session()


class Request(BaseModel):
    """A batch of rows."""

    x: list[list[float]]


@app.get("/ready")
async def ready() -> bool:
    """Say that the model is loaded."""
    return True


@app.post("/predict")
async def predict(request: Request) -> list[list[float]]:
    """Run the model."""
    rows: list[list[float]] = session.run(None, {"x": np.asarray(request.x, np.float32)})[0].tolist()
    return rows
