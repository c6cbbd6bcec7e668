"""The report as one HTML file without outside resources; knows the page, measures nothing."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.reporting import rollout_sentences, sentences, wording
from airflow_model_deploy.engine.reporting.charts import draw_stages
from airflow_model_deploy.engine.reporting.drawing import Chart, settings
from airflow_model_deploy.engine.reporting.plan import KEPT
from airflow_model_deploy.engine.reporting.rollout_charts import draw_rollout
from airflow_model_deploy.engine.reporting.sensitivity import draw_sensitivity
from airflow_model_deploy.engine.reporting.tradeoff import draw_tradeoffs

if TYPE_CHECKING:
    from pathlib import Path


def write_html(report: dict[str, Any], path: Path) -> None:
    """Write the page for a report as `build_report` returns it; without matplotlib it has tables only.

    Raises:
        InputError: jinja2 isn't installed.
    """
    try:
        from jinja2 import Environment, FunctionLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as e:
        raise InputError(
            "the report's page needs jinja2",
            found=str(e),
            remedy="Install the extra: pip install 'airflow-model-deploy[report]'",
        ) from e
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_source),
    )
    page = environment.get_template("report.html.j2").render(
        report=report,
        headlines=_headlines(report),
        **_charts(report),
        formats=_formats(report["plan"]),
        # matplotlib escapes the names that it draws; everything else on the page is escaped here.
        as_drawn=Markup,
        say=wording,
        tell=sentences,
        moved=rollout_sentences,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _source(name: str) -> str:
    found = resources.files("airflow_model_deploy.engine.reporting") / "resources" / name
    return found.read_text(encoding="utf-8")


def _charts(report: dict[str, Any]) -> dict[str, Any]:
    """The plots, or why there are none."""
    rollouts = report["rollouts"]
    try:
        return {
            "stage_charts": draw_stages(report),
            "plan_charts": _plan_charts(report["plan"]),
            "rollout_charts": [draw_rollout(rollout) for rollout in rollouts],
            "missing": None,
        }
    except ImportError as e:
        return {
            "stage_charts": (),
            "plan_charts": (),
            "rollout_charts": [()] * len(rollouts),
            "missing": f"No plots: matplotlib can't be imported ({e}).",
        }


def _plan_charts(plan: dict[str, Any] | None) -> tuple[Chart, ...]:
    if plan is None:
        return ()
    with settings():
        sensitivity = draw_sensitivity(plan)
        return (*draw_tradeoffs(plan), *([sensitivity] if sensitivity else ()))


def _formats(plan: dict[str, Any] | None) -> list[str]:
    """The formats that layers were tried in, in the order of the plan."""
    layers = plan["sensitivity"] if plan else []
    return list(dict.fromkeys(name for layer in layers for name in layer["losses"] if name != KEPT))


def _headlines(report: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Figure, words, and whether it got worse."""
    part, metric = report["compression"], report["metric"] or {}
    size = wording.factor(part["size_ratio"], "smaller", "larger")
    speed = wording.factor(part["speedup"], "faster", "slower")
    lost = wording.lost(
        part["drop"], metric.get("name"), higher_is_better=metric.get("higher_is_better", True)
    )
    return [(*size, size[1] == "larger"), (*speed, speed[1] == "slower"), (*lost, False)]
