"""The samples that a step works with: the author's data, or random inputs where there are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.models import Dataset, DataSource, load_data, random_inputs, read_signature
from airflow_model_deploy.engine.steps.torch_artifacts import data_for

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np  # noqa: TC004 - no one asks this class for its types at run time

    from airflow_model_deploy.engine.models.data import Resolve

RANDOM = "random inputs by the signature"
TEST = "test samples"


@dataclass(frozen=True)
class Samples:
    """Samples for one ONNX file, and where they come from: `TEST` or `RANDOM`."""

    data: Dataset
    feed: dict[str, np.ndarray]
    source: str


def samples_for(path: Path, source: DataSource | None, resolve: Resolve, *, random: int) -> Samples:
    """Return the test split as a file takes it; without data as many random samples as asked for."""
    if source is None:
        drawn = Dataset(random_inputs(path, random), None)
        return Samples(drawn, drawn.inputs, RANDOM)
    data = load_data(source, "test", resolve)
    return Samples(data, data_for(data, read_signature(path)), TEST)


def unmeasured(quality: dict[str, Any], source: DataSource | None) -> dict[str, str]:
    """Return, for a result's details, why there is no quality; {} where there is."""
    if "quality" in quality:
        return {}
    if "metric" in quality:
        why = f"{quality['metric']} compares with the original model, which this step doesn't have at hand"
    else:
        why = "no data was given" if source is None else "the data has no targets"
    return {"not_measured": f"quality: {why}"}
