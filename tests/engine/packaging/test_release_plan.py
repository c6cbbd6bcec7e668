from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from airflow_model_deploy.engine.errors import InputError, RolloutError
from airflow_model_deploy.engine.packaging import (
    Blessing,
    GoldenPromise,
    Objectives,
    Release,
    ReleasePlan,
    Resources,
    require_blessed,
)

DIGEST, OTHER = ("sha256:" + c * 64 for c in "ab")
PLAN = ReleasePlan(
    name="digits",
    servable_digest=OTHER,
    target="host",
    strategy="blue-green",
    objectives=Objectives(latency_ms=20.0, max_memory_bytes=1 << 28),
    golden=GoldenPromise(requests=16, original_tolerance=0.06, built_tolerance=1e-5),
    resources=Resources(cpu=1.0, memory_bytes=1 << 27, threads=1),
)
BLESSING = Blessing(
    passed=True,
    golden_matched=16,
    golden_total=16,
    max_abs_error=0.02,
    bundle_digest=DIGEST,
    tolerance=0.06,
    peak_memory_bytes=70_000_000,
    latency_ms=0.7,
)
RELEASE = Release(PLAN, DIGEST, BLESSING)


@pytest.mark.parametrize("value", [PLAN, BLESSING, RELEASE, replace(RELEASE, blessing=None)])
def test_a_value_survives_json(value: Any) -> None:
    assert type(value).from_json(json.loads(json.dumps(value.to_json()))) == value


@pytest.mark.parametrize(
    ("path", "bad"),
    [
        (("plan", "target"), "mainframe"),
        (("plan", "servable_digest"), "latest"),
        (("plan", "schema_version"), 2),
        (("plan", "objectives", "latency_ms"), 0),
        (("plan", "objectives", "latency_share"), 1.5),
        (("plan", "objectives", "min_requests"), 0),
        (("plan", "golden", "requests"), 0),
        (("plan", "golden", "built_tolerance"), float("nan")),
        (("plan", "resources", "threads"), -1),
        (("plan", "name"), "a/b"),
        (("plan", "colour"), "red"),
        (("bundle_digest",), None),
        (("blessing", "golden_matched"), 17),
        (("blessing", "passed"), "yes"),
    ],
)
def test_what_does_not_fit_is_refused(path: tuple[str, ...], bad: object) -> None:
    value = RELEASE.to_json()
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = bad
    with pytest.raises(InputError):
        Release.from_json(value)


def test_a_missing_field_is_named() -> None:
    value = PLAN.to_json()
    del value["target"]
    with pytest.raises(InputError, match="target"):
        ReleasePlan.from_json(value)


def test_a_blessed_release_may_be_deployed() -> None:
    require_blessed(RELEASE, DIGEST)


@pytest.mark.parametrize(
    ("release", "digest"),
    [
        (replace(RELEASE, blessing=None), DIGEST),
        (replace(RELEASE, blessing=replace(BLESSING, passed=False)), DIGEST),
        (replace(RELEASE, blessing=replace(BLESSING, golden_matched=15)), DIGEST),
        (replace(RELEASE, blessing=replace(BLESSING, golden_matched=0, golden_total=0)), DIGEST),
        (replace(RELEASE, blessing=replace(BLESSING, bundle_digest=OTHER)), DIGEST),
        (RELEASE, OTHER),
    ],
)
def test_anything_less_may_not(release: Release, digest: str) -> None:
    with pytest.raises(RolloutError):
        require_blessed(release, digest)
