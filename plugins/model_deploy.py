"""For installations that mount dags/ and plugins/ and put the package on the Python path without installing it.

Registers what Airflow otherwise learns from the package's entry point. Where that entry point is installed, this
file says nothing.
"""

from __future__ import annotations

from importlib.metadata import entry_points

from airflow.plugins_manager import AirflowPlugin

_INSTALLED = any(
    entry.value.startswith("airflow_model_deploy.") for entry in entry_points(group="apache_airflow_provider")
)

if not _INSTALLED:
    from airflow_model_deploy.links import DeploymentLink, ReportLink, ServiceLink

    class ModelDeployMountedPlugin(AirflowPlugin):
        """Makes the operators' links known to the UI."""

        name = "model_deploy_mounted"
        operator_extra_links = [DeploymentLink(), ReportLink(), ServiceLink()]  # noqa: RUF012 - Airflow's way
