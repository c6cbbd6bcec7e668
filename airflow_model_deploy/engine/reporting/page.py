"""The report as one HTML file without outside resources; knows the page, measures nothing."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.reporting import wording
from airflow_model_deploy.engine.reporting.charts import Chart, draw_charts

if TYPE_CHECKING:
    from pathlib import Path


def write_html(report: dict[str, Any], path: Path) -> None:
    """Write the page for a report as `build_report` returns it; without matplotlib it has tables only.

    Raises:
        InputError: jinja2 isn't installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as e:
        raise InputError(
            "the report's page needs jinja2",
            found=str(e),
            remedy="Install the extra: pip install 'airflow-model-deploy[report]'",
        ) from e
    charts, missing = _charts(report)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("airflow_model_deploy.engine.reporting") / "resources" / "report.html.j2"
    page = environment.from_string(source.read_text(encoding="utf-8")).render(
        report=report,
        headlines=_headlines(report["compression"]),
        # matplotlib escapes the names that it draws; everything else on the page is escaped here.
        charts=[(chart.title, chart.note, Markup(chart.svg)) for chart in charts],  # noqa: S704
        missing=missing,
        say=wording,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _charts(report: dict[str, Any]) -> tuple[tuple[Chart, ...], str | None]:
    try:
        return draw_charts(report), None
    except ImportError as e:
        return (), f"No plots: matplotlib can't be imported ({e})."


def _headlines(compression: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        wording.factor(compression["size_ratio"], "smaller", "larger"),
        wording.factor(compression["speedup"], "faster", "slower"),
        wording.points(compression["accuracy_drop_points"]),
    ]
