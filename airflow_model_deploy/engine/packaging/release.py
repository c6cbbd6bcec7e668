"""What travels from packaging to a rollout: the blessing and the release. Knows no target's details."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_model_deploy.engine.errors import RolloutError
from airflow_model_deploy.engine.packaging.jsonobject import JsonObject, check, check_digest
from airflow_model_deploy.engine.packaging.plan import ReleasePlan


@dataclass(frozen=True)
class Blessing(JsonObject):
    """What the packaged model itself answered before any traffic.

    Args:
        passed: every golden request matched, within the limits.
        golden_matched: requests that matched both recorded answers.
        golden_total: requests asked.
        max_abs_error: the largest error against the original model's answers.
        bundle_digest: the very bundle or image that answered.
        tolerance: the largest absolute tolerance for the original model's answers.
        peak_memory_bytes: of the server process; None where the record is to be the same on every machine.
        latency_ms: median over the requests asked, one at a time; None likewise.
    """

    passed: bool
    golden_matched: int
    golden_total: int
    max_abs_error: float
    bundle_digest: str
    tolerance: float
    peak_memory_bytes: int | None = None
    latency_ms: float | None = None

    def __post_init__(self) -> None:
        check_digest(self.bundle_digest, "blessing: bundle_digest")
        check(type(self.passed) is bool, "blessing: passed", self.passed, "true or false")
        counts = (self.golden_matched, self.golden_total)
        ok = all(type(n) is int for n in counts) and 0 <= counts[0] <= counts[1]
        check(ok, "blessing: golden_matched, golden_total", counts, "0 <= matched <= total")


@dataclass(frozen=True)
class Release(JsonObject):
    """A plan with the digest of what was packaged and, once it answered, its blessing.

    Args:
        plan: what was promised.
        bundle_digest: of the host's bundle, or of the image.
        blessing: None where nothing could run it yet; a rollout refuses it then.
        image: where an image is found: "registry/repository@sha256:...", or its id where only one engine has it.
    """

    plan: ReleasePlan
    bundle_digest: str
    blessing: Blessing | None = None
    image: str | None = None

    def __post_init__(self) -> None:
        check_digest(self.bundle_digest, "release: bundle_digest")

    @classmethod
    def _parsed(cls, value: dict[str, Any]) -> dict[str, Any]:
        parsed = dict(value)
        if "plan" in value:
            parsed["plan"] = ReleasePlan.from_json(value["plan"])
        if value.get("blessing") is not None:
            parsed["blessing"] = Blessing.from_json(value["blessing"])
        return parsed


def require_blessed(release: Release, bundle_digest: str) -> None:
    """Refuse a release that isn't blessed, or whose blessing is for other content than `bundle_digest`.

    Raises:
        RolloutError: no blessing, one that didn't pass, or one of another bundle or image.
    """
    blessing, remedy = release.blessing, "Run the package step again; nothing was changed"
    if blessing is None or not blessing.passed:
        raise RolloutError(
            f"release of {release.plan.name} isn't blessed",
            found="no blessing" if blessing is None else "a blessing that did not pass",
            wanted="golden requests answered by the packaged model",
            remedy=remedy,
        )
    if blessing.golden_total < 1 or blessing.golden_matched != blessing.golden_total:
        raise RolloutError(
            f"release of {release.plan.name}: its blessing contradicts itself",
            found=f"{blessing.golden_matched} of {blessing.golden_total} golden requests",
            wanted="all of them, one or more",
            remedy=remedy,
        )
    if len({bundle_digest, release.bundle_digest, blessing.bundle_digest}) != 1:
        raise RolloutError(
            f"release of {release.plan.name}: the blessing is for other content",
            found=f"to deploy: {bundle_digest}, released: {release.bundle_digest},"
            f" blessed: {blessing.bundle_digest}",
            wanted="one digest",
            remedy=remedy,
        )
