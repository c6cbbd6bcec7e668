"""The champion: the release that a candidate would replace, measured on the same data. Decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import SessionSettings, create_session, read_signature, run
from airflow_model_deploy.engine.packaging import read_servable
from airflow_model_deploy.engine.steps.layout import BUNDLE
from airflow_model_deploy.engine.steps.torch_artifacts import data_for

if TYPE_CHECKING:
    import numpy as np

    from airflow_model_deploy.engine.models import Dataset
    from airflow_model_deploy.engine.steps.base import Input

CHAMPION = "champion"
_BATCH = 64


def champion_outputs(champion: Input, name: str, data: Dataset) -> dict[str, np.ndarray]:
    """Return the outputs of a release's or a servable's model, run with the session settings that it serves with.

    Raises:
        InputError: the artifact holds no model that was served, or the test data does not fit it.
    """
    places = {"release": champion.folder / BUNDLE / "servable", "servable": champion.folder}
    kind = champion.manifest.description.kind
    if kind not in places:
        raise InputError(
            "the champion is nothing that serves",
            found=f"an artifact of kind {kind!r}",
            wanted="a release or a servable",
            remedy="Pass the result of the package or the build step whose model is deployed, or none.",
        )
    servable = read_servable(places[kind])
    if servable.name != name:
        raise InputError(
            "the champion is another model",
            found=servable.name,
            wanted=name,
            remedy="Pass the release of this model that serves now, or none.",
        )
    session = create_session(servable.model, SessionSettings.from_json(servable.session))
    return run(session, data_for(data, read_signature(servable.model)), batch_size=_BATCH)
