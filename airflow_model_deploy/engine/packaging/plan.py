"""What is to be released, where, and under which promises; written before an image or bundle exists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from airflow_model_deploy.engine.packaging.jsonobject import (
    NAME_WANTED,
    JsonObject,
    check,
    check_digest,
    is_name,
    is_number,
    is_positive,
    is_share,
)
from airflow_model_deploy.engine.packaging.rollout import Rollout
from airflow_model_deploy.engine.packaging.workload import Workload

Target = Literal["host", "docker", "kubernetes"]
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Objectives(JsonObject):
    """What the served model owes its callers.

    Args:
        latency_ms: the bound of a request.
        latency_share: the share of requests that has to stay within it.
        max_error_share: the share of requests that may fail by the server's fault.
        min_requests: fewer observations than these decide nothing.
        max_memory_bytes: the server's memory, or None for no bound.
    """

    latency_ms: float
    latency_share: float = 0.95
    max_error_share: float = 0.01
    min_requests: int = 20
    max_memory_bytes: int | None = None

    def __post_init__(self) -> None:
        check(is_positive(self.latency_ms), "objective latency_ms", self.latency_ms, "above 0")
        for name in ("latency_share", "max_error_share"):
            check(is_share(getattr(self, name)), f"objective {name}", getattr(self, name), "between 0 and 1")
        minimum, memory = self.min_requests, self.max_memory_bytes
        check(
            type(minimum) is int and minimum >= 1,
            "objective min_requests",
            minimum,
            "a whole number, 1 or more",
        )
        check(memory is None or is_positive(memory), "objective max_memory_bytes", memory, "above 0, or null")


@dataclass(frozen=True)
class GoldenPromise(JsonObject):
    """How many golden requests travel with the model, and the largest absolute tolerance of either answer."""

    requests: int
    original_tolerance: float
    built_tolerance: float

    def __post_init__(self) -> None:
        check(
            type(self.requests) is int and self.requests >= 1, "golden requests", self.requests, "1 or more"
        )
        for name in ("original_tolerance", "built_tolerance"):
            value = getattr(self, name)
            check(is_number(value) and value >= 0, f"golden {name}", value, "0 or more")


@dataclass(frozen=True)
class Resources(JsonObject):
    """What one server process needs, from measurement: cores, bytes, threads."""

    cpu: float
    memory_bytes: int
    threads: int

    def __post_init__(self) -> None:
        for name in ("cpu", "memory_bytes", "threads"):
            check(
                is_positive(getattr(self, name)),
                f"resources: {name}",
                getattr(self, name),
                "a number above 0",
            )


@dataclass(frozen=True)
class ReleasePlan(JsonObject):
    """What is to be released, where and under which promises; written before an image or bundle exists.

    `workload` and `rollout` are a cluster's; None elsewhere, and in plans that don't say.
    """

    name: str
    servable_digest: str
    target: Target
    strategy: str
    objectives: Objectives
    golden: GoldenPromise
    resources: Resources
    schema_version: int = SCHEMA_VERSION
    workload: Workload | None = None
    rollout: Rollout | None = None

    def __post_init__(self) -> None:
        for name in ("name", "strategy"):
            value = getattr(self, name)
            check(is_name(value), f"release plan: {name}", value, NAME_WANTED)
        check_digest(self.servable_digest, "release plan: servable_digest")
        check(
            self.target in get_args(Target), "release plan: target", self.target, f"one of {get_args(Target)}"
        )
        check(
            self.schema_version == SCHEMA_VERSION,
            "release plan: schema_version",
            self.schema_version,
            str(SCHEMA_VERSION),
        )

    @classmethod
    def _parsed(cls, value: dict[str, Any]) -> dict[str, Any]:
        readers: dict[str, type[JsonObject]] = {
            "objectives": Objectives,
            "golden": GoldenPromise,
            "resources": Resources,
            "workload": Workload,
            "rollout": Rollout,
        }
        optional = ("workload", "rollout")
        return {
            k: readers[k].from_json(v) if k in readers and not (v is None and k in optional) else v
            for k, v in value.items()
        }
