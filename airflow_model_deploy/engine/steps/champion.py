"""The champion: the release that a candidate would replace, measured on the same data. Decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.models import DataSource, SessionSettings, UserFunction
from airflow_model_deploy.engine.packaging import read_servable
from airflow_model_deploy.engine.steps.layout import BUNDLE
from airflow_model_deploy.engine.steps.quality import onnx_quality

if TYPE_CHECKING:
    from airflow_model_deploy.engine.steps.base import Input, StepContext

CHAMPION = "champion"


def champion_quality(
    champion: Input, name: str, data: DataSource | None, metric: str | UserFunction, context: StepContext
) -> dict[str, Any]:
    """Return the quality of a release's or a servable's model, run with the session settings that it serves with.

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
    settings = SessionSettings.from_json(servable.session)
    return onnx_quality(servable.model, data, metric, context.resolve, settings)
