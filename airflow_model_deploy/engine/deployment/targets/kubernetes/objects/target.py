"""What the objects of one release are made from; checked once, so that no builder has to."""

from __future__ import annotations

import re
from dataclasses import dataclass

from airflow_model_deploy.engine.errors import InputError
from airflow_model_deploy.engine.packaging import Resources, Workload

PENDING = "pending"
# A Service's name begins with a letter; 40 leaves room for "-" and a revision, and for a pod's own ending, in 63.
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_IMAGE = re.compile(r"\S+@(sha256:[0-9a-f]{64}|pending)")


@dataclass(frozen=True)
class Target:
    """One release in one namespace.

    Args:
        name: the service's.
        namespace: "" leaves it out of the objects, which then fit any.
        image: "repository@sha256:..."; or `pending_image`, before there is one.
        resources: of one server, from measurement.
        workload: the author's settings.
    """

    name: str
    namespace: str
    image: str
    resources: Resources
    workload: Workload

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(
                "the name of a service in Kubernetes",
                found=repr(self.name),
                wanted="lower-case letters, digits and '-'; a letter first, no '-' last; at most 40",
                remedy="Give the model such a name where it is trained or ingested.",
            )
        if self.namespace and not _NAMESPACE.fullmatch(self.namespace):
            raise InputError(
                "namespace",
                found=repr(self.namespace),
                wanted="lower-case letters, digits and '-'; at most 63",
                remedy="`kubectl get namespaces` lists those of the cluster.",
            )
        if not _IMAGE.fullmatch(self.image):
            raise InputError(
                f"the image of {self.name}",
                found=repr(self.image),
                wanted="'repository@sha256:<64 hex digits>'",
                remedy="Package the release for target 'kubernetes', with a registry: a tag may move.",
            )

    @property
    def pending(self) -> bool:
        """Whether the image does not exist yet."""
        return self.image.endswith(f"@{PENDING}")


def pending_image(name: str) -> str:
    """Return what stands for the image of a release that was not packaged yet."""
    return f"{name}@{PENDING}"
