"""What an author of a Dag says, in a few frozen objects. Values marked templated may hold Jinja templates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from airflow_model_deploy.engine.models import DataSource, UserFunction

__all__ = [
    "Budget",
    "CompressionConfig",
    "ContainerConfig",
    "DataSource",
    "DistillationConfig",
    "DockerConfig",
    "GateConfig",
    "ImageConfig",
    "KubernetesConfig",
    "ModelCode",
    "PodConfig",
    "RolloutConfig",
    "RunConfig",
    "ServiceConfig",
    "UserFunction",
]


@dataclass(frozen=True)
class ModelCode:
    """The author's own code and data for one model. Never templated: a form must not choose what is imported.

    An ONNX file needs no factory. Without data nothing is trained, pruned with recovery or quantized statically,
    and no quality is measured; golden requests are then random inputs by the model's signature.

    Args:
        factory: returns the torch.nn.Module.
        data: split "train" trains, recovers and calibrates; split "test" measures and guards.
        fit: trains a module in place; also recovers it after pruning.
        metric: "accuracy", "top5", "mae", "rmse" or "perplexity", or, compared with the original model and without
            targets, "cosine", "agreement" or "retrieval", each with ":<output>" behind it where the model has several
            outputs; or a function metric(outputs, targets) -> float; its attribute higher_is_better = False says
            that less is better.
        dynamic: what may vary besides the batch: input -> dimension -> its name, e.g. {"tokens": {1: "sequence"}}
            for texts of any length; the same name is the same size. An ONNX file says so itself.
        loss: "cross_entropy", "mse", "l1", "cosine", each with ":<output>" behind it where the model has several
            outputs, or a function loss(outputs, targets) -> scalar tensor. Gradients are taken of it; without
            `fit`, a pruned model recovers by it; a distilled one may learn by it too.
    """

    factory: UserFunction | None = None
    data: DataSource | None = None
    fit: UserFunction | None = None
    metric: str | UserFunction = "accuracy"
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)
    loss: str | UserFunction | None = None


@dataclass(frozen=True)
class Budget:
    """What compression may cost, and has to reach. None: no such limit. All templated.

    Args:
        max_drop: how much worse than the original; percentage points for shares (accuracy, top5, cosine, agreement,
            retrieval), the metric's own unit otherwise.
        max_size_mb: of the model file, in MB of 10^6 bytes.
        max_latency_ms: CPU milliseconds of a single request, on one thread.
    """

    max_drop: float | str | None = 1.0
    max_size_mb: float | str | None = None
    max_latency_ms: float | str | None = None


@dataclass(frozen=True)
class DistillationConfig:
    """What of a larger model's answers is learned. All templated, keys and values of `hidden` too.

    Args:
        kind: "logits": soft targets, the classes' probabilities; "cosine": the direction of the outputs, for models
            that embed; "hidden": the outputs of the modules in `hidden` alone.
        temperature: of the soft targets: the higher, the more the small probabilities count.
        alpha: weight of what the teacher says, above 0 and at most 1; the rest goes to ModelCode.loss of the targets.
            None: a half where there are a loss and targets, else 1.
        hidden: module of the student -> module of the teacher, named as by named_modules(), whose outputs are to
            agree; "" is the whole model.
        dimension: of the outputs, where the classes are; -1 for tokens [samples, tokens, classes].
    """

    kind: str = "logits"
    temperature: float | str = 2.0
    alpha: float | str | None = None
    hidden: dict[str, str] = field(default_factory=dict)
    dimension: int | str = 1


@dataclass(frozen=True)
class CompressionConfig:
    """How the model is compressed. All templated.

    Args:
        method: "auto" plans structure and number formats under the budget; else how it is pruned: "channels", "ffn",
            "magnitude-mean", "magnitude-ratio", "gradient-mean", "gradient-ratio", "taylor-mean", "taylor-ratio",
            "wanda-ratio" or "none".
        budget: what the planner has to keep; a number is the largest loss of quality.
        objective: what the planner makes small: "balanced", "latency" or "size".
        ratio: share that goes, by any other method.
        recovery_epochs: passes over the training data after pruning; 0: the planner cuts nothing.
        distillation: what the pruned model learns from the original in its recovery, in place of ModelCode.fit; None:
            nothing.
        quantization: "auto" follows the plan, and without one chooses by the kind of model; or "static", "dynamic",
            "weight-only", "none".
        calibration_samples: that ranges are taken from, without a plan.
    """

    method: str = "auto"
    budget: Budget | float | str = field(default_factory=Budget)
    objective: str = "balanced"
    ratio: float | str = 0.5
    recovery_epochs: int | str = 10
    distillation: DistillationConfig | None = None
    quantization: str = "auto"
    calibration_samples: int | str = 256


@dataclass(frozen=True)
class GateConfig:
    """What the servable has to keep before it may be released. None: no such gate. All templated.

    Args:
        max_quality_drop: how much worse than the ingested model; percentage points for accuracy and other shares
            (top5, cosine, agreement, retrieval), the metric's own unit otherwise. Without data no quality is
            measured: set it to None.
        max_drop_from_champion: how much worse than the champion, where the test is given one; counted likewise.
        min_quality: the metric's own bound; for mae, rmse and perplexity the largest value.
        min_cosine: mean cosine between the servable's outputs and the ingested model's on the test samples.
        min_agreement: share of test samples whose largest score is of the class that the ingested model chooses.
        min_size_ratio: fp32 ONNX bytes over the servable's model bytes.
        max_size_mb: the servable's model file, in MB of 10^6 bytes.
        max_compressed_mb: the same compressed by zlib, level 6: about what is downloaded.
        min_speedup: throughput at batch 64 on one thread over that of the fp32 ONNX export.
        max_latency_ms: median of single requests to the real server.
        max_memory_mb: peak memory of the real server.
        confident: the gates on quality must hold at the worse end of the 95 % interval, not just for the figure
            that the test samples gave.
    """

    max_quality_drop: float | str | None = 1.0
    max_drop_from_champion: float | str | None = 1.0
    min_quality: float | str | None = None
    min_cosine: float | str | None = None
    min_agreement: float | str | None = None
    min_size_ratio: float | str | None = None
    max_size_mb: float | str | None = None
    max_compressed_mb: float | str | None = None
    min_speedup: float | str | None = None
    max_latency_ms: float | str | None = None
    max_memory_mb: float | str | None = None
    confident: bool | str = False


@dataclass(frozen=True)
class DockerConfig:
    """A Docker engine, and whose images it may pull and push. All templated.

    Args:
        url: of the engine, "unix:///run/docker.sock" or "tcp://edge-7:2376"; None: DOCKER_HOST, or the worker's own.
        conn_id: Airflow connection of type docker, with a registry's address, user and password; None: the setting
            [model_deploy] docker_conn_id, and without one no login.
        ca_cert, client_cert, client_key: files on the worker, for an engine behind TLS; all three or none.
    """

    url: str | None = None
    conn_id: str | None = None
    ca_cert: str | None = None
    client_cert: str | None = None
    client_key: str | None = None


@dataclass(frozen=True)
class ImageConfig:
    """How an image is built and where it goes. All templated.

    Args:
        registry: "host[:port][/path]" below which images are pushed, as <registry>/<model> and
            <registry>/model-server; None: the setting [model_deploy] registry, and without one they stay on the
            engine that built them.
        base: image with Python below the server; None: the setting [model_deploy] base_image, or
            python:<version>-slim, of the Python that runs the step.
        runtime: the server's image by digest, made before with `model-deploy image runtime`; None: it is built where
            it isn't there yet.
        backend: "docker" builds on an engine, "oci" without one; "auto": docker where an engine answers.
    """

    registry: str | None = None
    base: str | None = None
    runtime: str | None = None
    backend: str = "auto"


@dataclass(frozen=True)
class RolloutConfig:
    """How a release takes over the traffic in a cluster, and when it gives it back. All templated.

    Args:
        strategy: "blue-green" switches all at once, "canary" by rising shares of the traffic, "rolling" pod by pod
            without a second full set of pods.
        weights: a canary's shares of the traffic, rising, none above 0.5.
        bake_s: how long each share, and the whole after the switch, is watched.
        hold_s: how much longer an undecided verdict is waited for before the way back.
        interval_s: between two looks.
        alpha: probability of sending a good revision back by chance, over all looks together.
        metrics: where the counts come from: "servers" themselves, or a "prometheus" that scrapes them.
        prometheus_url: of its HTTP API, as the cluster reaches it; no credentials.
        max_surge: pods above `replicas` while rolling.
        max_unavailable: pods below `replicas` while rolling.
        ready_timeout_s: for the pods of a revision to be ready; None: by the model's size.
    """

    strategy: str = "blue-green"
    weights: tuple[float | str, ...] = (0.1, 0.5)
    bake_s: float | str = 60.0
    hold_s: float | str = 300.0
    interval_s: float | str = 5.0
    alpha: float | str = 0.01
    metrics: str = "servers"
    prometheus_url: str | None = None
    max_surge: int | str = 1
    max_unavailable: int | str = 0
    ready_timeout_s: float | str | None = None


@dataclass(frozen=True)
class KubernetesConfig:
    """A namespace of a Kubernetes cluster, and how the service runs in it. All templated.

    Args:
        namespace: of service and driver; None: the connection's, else the worker's own, else "default".
        conn_id: Airflow connection of type kubernetes; None: the setting [model_deploy] kubernetes_conn_id, or
            kubernetes_default.
        driver_image: runs the rollout in the cluster, best by digest (`model-deploy image driver` makes one); None:
            the setting [model_deploy] driver_image.
        service_account: of the driver's pod.
        deferrable: waits without a worker's slot; None: Airflow's setting [operators] default_deferrable.
        replicas: copies of the server; where the number is scaled automatically, how many it begins with.
        exposure: "ClusterIP", "NodePort" or "LoadBalancer".
        port: the Service's.
        node_port: 30000 to 32767; None: the cluster chooses.
        service_annotations: of the Service, such as a cloud's settings of its load balancer.
        gateway: "[namespace/]name" of a Gateway (Gateway API) through which requests come; a canary then gets its
            share of them exactly. None: no HTTPRoute.
        hostnames: that the route answers to; empty: every one.
        min_replicas: the least that an autoscaler may leave; None: `replicas`.
        max_replicas: the most; None: no autoscaler.
        cpu_request: cores that a copy asks of its node; None: one a thread of the server.
        cpu_target_percent: of the CPU request, which an autoscaler aims at.
        gpus: whole devices of a pod.
        gpu_resource: the device plugin's name for them.
        node_selector: labels that a node must have.
        tolerations: of taints, as the API writes them.
        affinity: as the API writes it.
        topology_key: node label over whose values the pods are spread; None: not spread.
        image_pull_secrets: names of Secrets in the namespace; for the driver's image, too.
        ingress_from: NetworkPolicy peers that may send requests; empty: everybody. Name what collects metrics, too.
        priority_class: name of a PriorityClass.
        cpu_limit: also bound the CPU by its request.
        drain_s: how long a server that ends may take to answer what it accepted.
        rollout: the way from one revision to the next.
    """

    namespace: str | None = None
    conn_id: str | None = None
    driver_image: str | None = None
    service_account: str = "model-deploy-driver"
    deferrable: bool | str | None = None
    replicas: int | str = 2
    exposure: str = "ClusterIP"
    port: int | str = 80
    node_port: int | str | None = None
    service_annotations: dict[str, str] = field(default_factory=dict)
    gateway: str | None = None
    hostnames: tuple[str, ...] = ()
    min_replicas: int | str | None = None
    max_replicas: int | str | None = None
    cpu_request: float | str | None = None
    cpu_target_percent: int | str = 80
    gpus: int | str = 0
    gpu_resource: str = "nvidia.com/gpu"
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] | None = None
    topology_key: str | None = "kubernetes.io/hostname"
    image_pull_secrets: tuple[str, ...] = ()
    ingress_from: tuple[dict[str, Any], ...] = ()
    priority_class: str | None = None
    cpu_limit: bool | str = False
    drain_s: float | str = 10.0
    rollout: RolloutConfig = field(default_factory=RolloutConfig)


@dataclass(frozen=True)
class ServiceConfig:
    """Where the release runs, and what it owes its callers. All templated.

    Args:
        target: "host", "docker" or "kubernetes".
        root: folder of the host's services; None: the setting [model_deploy] host_root.
        host: the address to listen on.
        port: the port to listen on.
        latency_ms: a request's bound, kept by `latency_share` of them.
        memory_headroom: the memory limit over the peak that the test measured; None: 1.5.
        window_s: how long monitoring watches.
        image: how the image is built, for targets "docker" and "kubernetes"; a cluster needs its registry.
        docker: the engine that builds and blesses it, and with target "docker" runs it.
        kubernetes: the cluster's namespace, and how the service runs there.
    """

    target: str = "host"
    root: str | None = None
    host: str = "127.0.0.1"
    port: int | str = 8500
    latency_ms: float | str = 100.0
    latency_share: float | str = 0.95
    max_error_share: float | str = 0.01
    memory_headroom: float | str | None = None
    window_s: float | str = 10.0
    image: ImageConfig = field(default_factory=ImageConfig)
    docker: DockerConfig = field(default_factory=DockerConfig)
    kubernetes: KubernetesConfig = field(default_factory=KubernetesConfig)


@dataclass(frozen=True)
class ContainerConfig:
    """A container in which a step runs, instead of a subprocess of the worker. All templated.

    Args:
        image: a worker image, best by digest (`model-deploy image worker` makes one); None: the setting
            [model_deploy] worker_image.
        docker: the engine.
        memory_bytes: the container's limit; None: none.
        cpus: likewise.
        gpus: how many of the engine's GPUs it sees; -1: all.
        network: the container's network.
        mounts: folders of the engine's machine that it sees, read only, at the same path; a file:// store is mounted
            by itself.
        environment: variables that the step sees. No secrets: an engine shows them to whoever may look.
    """

    image: str | None = None
    docker: DockerConfig = field(default_factory=DockerConfig)
    memory_bytes: int | str | None = None
    cpus: float | str | None = None
    gpus: int | str = 0
    network: str = "bridge"
    mounts: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PodConfig:
    """A pod in which a step runs, instead of a subprocess of the worker. All templated.

    Args:
        image: a worker image, best by digest (`model-deploy image worker` makes one; the package that reads the store
            must be in it, such as s3fs); None: the setting [model_deploy] worker_image.
        namespace: None: the connection's, else the worker's own, else "default".
        conn_id: Airflow connection of type kubernetes; None: the setting [model_deploy] kubernetes_conn_id, or
            kubernetes_default.
        cpus: requested; numeric libraries start as many threads.
        memory_bytes: requested, and the limit; None: no limit.
        scratch_bytes: the limit of its temporary folder, where inputs and results of a step lie meanwhile.
        gpus: whole devices.
        gpu_resource: the device plugin's name for them.
        node_selector: labels that the node must have.
        tolerations: of taints, as the API writes them.
        service_account: such as one to which a cloud grants access to the store; None: the namespace's default.
        image_pull_secrets: names of Secrets in the namespace.
        startup_timeout_s: for the node to be found and, once more, for the image to be pulled.
        deferrable: waits without a worker's slot; None: Airflow's setting [operators] default_deferrable.
        environment: variables that the step sees. No secrets: a cluster shows them to whoever may look at a pod.
    """

    image: str | None = None
    namespace: str | None = None
    conn_id: str | None = None
    cpus: float | str | None = None
    memory_bytes: int | str | None = None
    scratch_bytes: int | str = 16 << 30
    gpus: int | str = 0
    gpu_resource: str = "nvidia.com/gpu"
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[dict[str, Any], ...] = ()
    service_account: str | None = None
    image_pull_secrets: tuple[str, ...] = ()
    startup_timeout_s: float | str = 600.0
    deferrable: bool | str | None = None
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunConfig:
    """Where the steps run and keep what they make. All templated.

    Args:
        store: URL of the artifact store; None: the setting [model_deploy] store.
        python: interpreter with the engine; None: the setting [model_deploy] python, or Airflow's own.
        threads: threads to train and to recover with; None: 1. Another number may give other bits.
        container: runs the computing steps, train to prepare, in containers; None: on the worker. Packaging, rollout
            and monitoring stay on the worker: they are what talks to engines and registries.
        pod: runs them in pods of a cluster; not together with `container`.
        store_conn_id: Airflow connection with the store's credentials and endpoint; None: the setting
            [model_deploy] store_conn_id, and without one what the machine itself has.
    """

    store: str | None = None
    python: str | None = None
    threads: int | str | None = None
    container: ContainerConfig | None = None
    pod: PodConfig | None = None
    store_conn_id: str | None = None
