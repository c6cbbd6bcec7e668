"""Package the release for its target."""

from __future__ import annotations

from typing import Any

from airflow_model_deploy.operators.base import StepOperator


class BuildImageOperator(StepOperator):
    """Package what the target installs and bless it: as packaged, it answers its golden requests.

    For target ``host`` this is a folder with servable, server, start program and checksums.

    :param servable: the result of the build. (templated)
    :param plan: the result of the preparation. (templated)
    :param target: must be the plan's target. (templated)
    """

    step = "package"

    def __init__(self, *, servable: Any, plan: Any, target: str | None = None, **kwargs: Any) -> None:
        super().__init__(inputs={"servable": servable, "plan": plan}, spec={"target": target}, **kwargs)
