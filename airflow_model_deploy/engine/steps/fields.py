"""Fields that several specs share, with their limits and descriptions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from airflow_model_deploy.engine.models import UserFunction

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"

Name = Annotated[
    str,
    Field(
        pattern=NAME_PATTERN,
        description="the model's name: lower-case letters, digits and dashes, at most 40",
    ),
]
Place = Annotated[
    Literal["host", "docker", "kubernetes"],
    Field(description="where the service runs: a host's processes, a Docker engine, or a Kubernetes cluster"),
]
Target = Annotated[
    Literal["host", "docker", "kubernetes"],
    Field(description="what the release is for: a host's folder, or an image for an engine or a cluster"),
]
Root = Annotated[
    str | None, Field(description="folder of the host's services, one folder each; target 'host' needs it")
]
Namespace = Annotated[
    str | None,
    Field(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        description="of the cluster; target 'kubernetes' needs it",
    ),
]
ReachMode = Annotated[
    Literal["auto", "direct", "proxy"],
    Field(
        description="how pods are asked: direct, by their addresses, from inside the cluster; proxy, through the API"
        " server; auto: direct inside a pod, else proxy"
    ),
]
LeaseSeconds = Annotated[
    int, Field(ge=1, le=300, description="after which a silent driver has lost its turn")
]
Attempt = Annotated[
    str | None,
    Field(max_length=512, description="names this call, so that it can be told whether it was done"),
]
Metric = Annotated[
    str | UserFunction,
    Field(
        description="'accuracy', 'top5', 'mae', 'rmse', 'perplexity'; or 'cosine', 'agreement', 'retrieval', which"
        " compare with the original model and need no targets; each with ':<output>' behind it where the model has"
        " several; or a function of the author's: metric(outputs, targets) -> float, with an attribute"
        " higher_is_better = False where less is better"
    ),
]
Loss = Annotated[
    str | UserFunction | None,
    Field(
        description="'cross_entropy', 'mse', 'l1', 'cosine', each with ':<output>' behind it where the model has"
        " several, or a function of the author's: loss(outputs, targets) -> scalar tensor"
    ),
]
Dynamic = Annotated[
    dict[str, dict[Annotated[int, Field(ge=1)], Annotated[str, Field(pattern=r"^[A-Za-z_]\w{0,63}$")]]],
    Field(
        description="what may vary besides the batch: input -> dimension -> its name, as"
        ' {"tokens": {1: "sequence"}}; the same name is the same size'
    ),
]
Seed = Annotated[int, Field(ge=0, lt=2**32, description="every random choice follows from it")]
Threads = Annotated[
    int,
    Field(
        ge=1,
        le=1024,
        description="threads to compute with; a fixed number, so that another machine gives the same bits",
    ),
]
