"""The whole chain in one call, for somebody's own Dag."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, BaseOperator, TaskGroup

from airflow_model_deploy.config import CompressionConfig, GateConfig, ModelCode, RunConfig, ServiceConfig
from airflow_model_deploy.operators.build import BuildModelOperator
from airflow_model_deploy.operators.build_image import BuildImageOperator
from airflow_model_deploy.operators.compress import CompressModelOperator
from airflow_model_deploy.operators.evaluate import EvaluateModelOperator
from airflow_model_deploy.operators.monitor import MonitorReleaseOperator
from airflow_model_deploy.operators.optimize import OptimizeModelOperator
from airflow_model_deploy.operators.prepare import PrepareReleaseOperator
from airflow_model_deploy.operators.quantize import QuantizeModelOperator
from airflow_model_deploy.operators.rollout import RolloutOperator
from airflow_model_deploy.operators.train import TrainModelOperator

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Pipeline:
    """The group and its tasks, so that a Dag can set something before, between or after them."""

    group: TaskGroup | None
    train_model: BaseOperator
    compress_model: BaseOperator
    quantize_model: BaseOperator
    optimize_model: BaseOperator
    build_model: BaseOperator
    test_model: BaseOperator
    prepare_deployment: BaseOperator
    package_image: BaseOperator
    deploy_model: BaseOperator
    monitor_model: BaseOperator

    @property
    def stages(self) -> dict[str, BaseOperator]:
        """The tasks by the names of their stages, in the order of the flow."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "group"}


def model_deploy_pipeline(
    *,
    code: ModelCode | Mapping[str, ModelCode] | None = None,
    name: str,
    source: Any = "",
    epochs: int | str | None = None,
    compression: CompressionConfig | None = None,
    gates: GateConfig | None = None,
    service: ServiceConfig | None = None,
    run: RunConfig | None = None,
    champion: Any = None,
    asset: str | None = None,
    group_id: str | None = "model_deploy",
    prefix_group_id: bool = True,
) -> Pipeline:
    """Train (or ingest), compress, quantize, optimize, build, test, prepare, package, deploy and monitor a model.

    :param code: the author's code, or a mapping of names to it, from which ``name`` chooses; None: the source is an
        ONNX file, and what needs code or data is off (``CompressionConfig(method="none",
        quantization="dynamic")``, ``GateConfig(max_quality_drop=None)``).
    :param name: the model's and the service's name. (templated)
    :param source: where a trained model is; empty: train. (templated)
    :param epochs: passes over the training data. (templated)
    :param compression: how far the model is compressed.
    :param gates: what the servable has to keep.
    :param service: where the release runs, and what it owes its callers.
    :param run: where the steps run and keep what they make.
    :param champion: what serves now, which the new model may not fall behind by more than
        ``GateConfig.max_drop_from_champion``: a release's reference, or an Asset whose last event names it; None: no
        comparison. (templated)
    :param asset: name below which the stages' Assets stand ("model/digits"); None: no Assets.
    :param group_id: the TaskGroup's id; None: the tasks stand in the Dag itself.
    :param prefix_group_id: whether the tasks' ids start with the group's.
    """
    compression, gates = compression or CompressionConfig(), gates or GateConfig()
    service, run = service or ServiceConfig(), run or RunConfig()
    common: dict[str, Any] = {"store": run.store, "store_conn_id": run.store_conn_id, "python": run.python}
    computing: dict[str, Any] = {**common, "container": run.container, "pod": run.pod}
    coded: dict[str, Any] = {**computing, "code": code, "name": name}

    def outlet(stage: str) -> list[Asset]:
        return [Asset(name=f"{asset}/{stage}", uri=f"x-model-deploy://{asset}/{stage}")] if asset else []

    group = TaskGroup(group_id, prefix_group_id=prefix_group_id) if group_id else None
    with group or nullcontext():
        train = TrainModelOperator(
            task_id="train_model",
            epochs=epochs,
            threads=run.threads,
            source=source,
            outlets=outlet("trained"),
            **coded,
        )
        compress = CompressModelOperator(
            task_id="compress_model",
            model=train.output,
            compression=compression,
            threads=run.threads,
            **coded,
        )
        quantize = QuantizeModelOperator(
            task_id="quantize_model",
            model=compress.output,
            mode=compression.quantization,
            calibration_samples=compression.calibration_samples,
            outlets=outlet("quantized"),
            **coded,
        )
        optimize = OptimizeModelOperator(task_id="optimize_model", model=quantize.output, **coded)
        build = BuildModelOperator(
            task_id="build_model",
            model=optimize.output,
            baseline=train.output,
            outlets=outlet("built"),
            **coded,
        )
        test = EvaluateModelOperator(
            task_id="test_model",
            servable=build.output,
            baseline=train.output,
            champion=champion,
            gates=gates,
            **coded,
        )
        prepare = PrepareReleaseOperator(
            task_id="prepare_deployment",
            servable=build.output,
            evaluation=test.output,
            target=service.target,
            latency_ms=service.latency_ms,
            latency_share=service.latency_share,
            max_error_share=service.max_error_share,
            memory_headroom=service.memory_headroom,
            kubernetes=service.kubernetes,
            **computing,
        )
        package = BuildImageOperator(
            task_id="package_image",
            servable=build.output,
            plan=prepare.output,
            target=service.target,
            image=service.image,
            docker=service.docker,
            outlets=outlet("released"),
            **common,
        )
        deploy = RolloutOperator(
            task_id="deploy_model",
            release=package.output,
            target=service.target,
            root=service.root,
            host=service.host,
            port=service.port,
            docker=service.docker,
            kubernetes=service.kubernetes,
            outlets=outlet("deployed"),
            **common,
        )
        monitor = MonitorReleaseOperator(
            task_id="monitor_model",
            release=package.output,
            target=service.target,
            root=service.root,
            docker=service.docker,
            kubernetes=service.kubernetes,
            window_s=service.window_s,
            **common,
        )
        _ = deploy >> monitor
    return Pipeline(
        group, train, compress, quantize, optimize, build, test, prepare, package, deploy, monitor
    )
