"""Package the release for its target."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_model_deploy.config import ImageConfig
from airflow_model_deploy.operators import execution
from airflow_model_deploy.operators.base import EngineOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context


class BuildImageOperator(EngineOperator):
    """Package what the target installs and bless it: as packaged, it answers its golden requests.

    For target ``host`` this is a folder with servable, server, start program and checksums; for ``docker`` and
    ``kubernetes`` an image: the servable on top of the server's own image, pushed where a registry is named. The very
    image answers under the limits that it will run with, read only, without a network.

    :param servable: the result of the build. (templated)
    :param plan: the result of the preparation. (templated)
    :param target: must be the plan's target. (templated)
    :param image: how an image is built and where it goes. (templated)
    :param docker: the engine that builds and blesses, and the connection of the registry. (templated)
    """

    step = "package"
    template_fields: Sequence[str] = (*EngineOperator.template_fields, "image")

    def __init__(
        self,
        *,
        servable: Any,
        plan: Any,
        target: str | None = None,
        image: ImageConfig | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(inputs={"servable": servable, "plan": plan}, spec={"target": target}, **kwargs)
        self.image = asdict(image or ImageConfig())

    def full_spec(self, context: Context) -> dict[str, Any]:
        """Add how an image is built, for the targets that run one."""
        spec = super().full_spec(context)
        if spec.get("target", "host") == "host":
            return spec
        image = {key: execution.given(value) for key, value in self.image.items()}
        wanted = {
            "registry": image["registry"] or execution.default_registry(),
            "base_image": image["base"] or execution.default_base_image(),
            "runtime_image": image["runtime"],
            "backend": image["backend"],
        }
        return spec | {key: value for key, value in wanted.items() if value}

    def connections(self) -> dict[str, Any]:
        """Return engine and registry, where the target has any."""
        from airflow_model_deploy.operators.engines import docker_connections

        return docker_connections(self.docker) if self.has_engine() else {}
